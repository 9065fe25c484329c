package peers

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
)

// Ours is this library behind the interface of its peers. The wrapper is open to
// the workloads that are about more than that.
type Ours[V any] struct {
	*readthrough.ReadThrough[string, V]
	client redis.UniversalClient
	cache  *readthrough.Cache
}

// OpenReadthrough wraps load. The options come after those of all peers.
func OpenReadthrough[V any](addr string, load Loader[V], opts ...readthrough.Option) (*Ours[V], error) {
	return OpenReadthroughOn(redis.NewClient(&redis.Options{Addr: addr}), load, opts...)
}

// OpenReadthroughOn is OpenReadthrough on a client, which is closed with the peer.
func OpenReadthroughOn[V any](client redis.UniversalClient, load Loader[V], opts ...readthrough.Option) (*Ours[V], error) {
	cache, err := readthrough.NewCache(client, readthrough.WithTTL(TTL))
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	wrapped, err := readthrough.New(cache, "v", readthrough.Loader[string, V](load), readthrough.String, opts...)
	if err != nil {
		return nil, errors.Join(err, cache.Close(), client.Close())
	}
	return &Ours[V]{wrapped, client, cache}, nil
}

// openInPerson opens Ours on a client that keeps deadlines: its callers send their GET themselves.
func openInPerson[V any](addr string, load Loader[V]) (Peer[V], error) {
	client, err := readthrough.Open("redis://" + addr)
	if err != nil {
		return nil, err
	}
	return OpenReadthroughOn(client, load)
}

// Invalidate says that the value of key has changed.
func (o *Ours[V]) Invalidate(ctx context.Context, key string) error {
	return o.ReadThrough.Invalidate(ctx, key)
}

// Client is what the cache is on.
func (o *Ours[V]) Client() redis.UniversalClient { return o.client }

// Close waits for the cache's background work and closes its client.
func (o *Ours[V]) Close() error { return errors.Join(o.cache.Close(), o.client.Close()) }
