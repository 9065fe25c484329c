package peers

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
)

// commands is what a cache written by hand needs of go-redis.
type commands interface {
	Get(ctx context.Context, key string) *redis.StringCmd
	Set(ctx context.Context, key string, value any, ttl time.Duration) *redis.StatusCmd
	Del(ctx context.Context, keys ...string) *redis.IntCmd
}

// raw is the cache that everybody has written once: GET and decode, or else load,
// encode and SET.
type raw[V any] struct {
	redis commands
	load  Loader[V]
	close func() error
}

func openRaw[V any](addr string, load Loader[V]) (Peer[V], error) {
	client := redis.NewClient(&redis.Options{Addr: addr})
	return &raw[V]{redis: client, load: load, close: client.Close}, nil
}

func (r *raw[V]) Get(ctx context.Context, key string) (V, error) {
	b, err := r.redis.Get(ctx, key).Bytes()
	if err == nil {
		var v V
		err = msgpack.Unmarshal(b, &v)
		return v, err
	}
	v, loadErr := r.load(ctx, key)
	if loadErr != nil || !errors.Is(err, redis.Nil) {
		return v, loadErr // Redis is in trouble: the value is there all the same
	}
	if b, err = msgpack.Marshal(&v); err != nil {
		return v, err
	}
	return v, r.redis.Set(ctx, key, b, TTL).Err()
}

func (r *raw[V]) Invalidate(ctx context.Context, key string) error {
	return r.redis.Del(ctx, key).Err()
}

func (r *raw[V]) Close() error { return r.close() }
