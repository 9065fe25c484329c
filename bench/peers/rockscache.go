package peers

import (
	"context"

	"github.com/dtm-labs/rockscache"
	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
)

// rocks is rockscache, which stores strings, with msgpack around it.
type rocks[V any] struct {
	client *redis.Client
	cache  *rockscache.Client
	load   Loader[V]
}

// openRockscache opens rockscache with default options, or with strong consistency.
func openRockscache[V any](strong bool) Open[V] {
	return func(addr string, load Loader[V]) (Peer[V], error) {
		client := redis.NewClient(&redis.Options{Addr: addr})
		options := rockscache.NewDefaultOptions()
		options.StrongConsistency = strong
		return &rocks[V]{client, rockscache.NewClient(client, options), load}, nil
	}
}

func (r *rocks[V]) Get(ctx context.Context, key string) (V, error) {
	var v V
	s, err := r.cache.Fetch2(ctx, key, TTL, func() (string, error) {
		loaded, err := r.load(ctx, key)
		if err != nil {
			return "", err
		}
		b, err := msgpack.Marshal(&loaded)
		return string(b), err
	})
	if err != nil {
		// Rockscache has no answer to a Redis that is down but a switch for its user.
		return r.load(ctx, key)
	}
	err = msgpack.Unmarshal([]byte(s), &v)
	return v, err
}

func (r *rocks[V]) Invalidate(ctx context.Context, key string) error {
	return r.cache.TagAsDeleted2(ctx, key)
}

func (r *rocks[V]) Close() error { return r.client.Close() }
