package peers

import (
	"context"

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
)

// goRedisCache is go-redis/cache without its local cache, which would not be read
// from Redis and would not learn of an invalidation in another process.
type goRedisCache[V any] struct {
	client *redis.Client
	cache  *cache.Cache
	load   Loader[V]
}

func openGoRedisCache[V any](addr string, load Loader[V]) (Peer[V], error) {
	client := redis.NewClient(&redis.Options{Addr: addr})
	return &goRedisCache[V]{client, cache.New(&cache.Options{Redis: client}), load}, nil
}

func (g *goRedisCache[V]) Get(ctx context.Context, key string) (V, error) {
	var v V
	err := g.cache.Once(&cache.Item{
		Ctx: ctx, Key: key, Value: &v, TTL: TTL,
		Do: func(item *cache.Item) (any, error) { return g.load(item.Context(), item.Key) },
	})
	return v, err
}

func (g *goRedisCache[V]) Invalidate(ctx context.Context, key string) error {
	return g.cache.Delete(ctx, key)
}

func (g *goRedisCache[V]) Close() error { return g.client.Close() }
