package peers

import (
	"context"

	"github.com/redis/rueidis"
	"github.com/vmihailenco/msgpack/v5"
)

// viaRueidis is the cache written by hand on rueidis, which sends the commands of
// concurrent callers over one connection. Its client-side cache is off: the
// question is what a read from Redis costs.
type viaRueidis[V any] struct {
	client rueidis.Client
	load   Loader[V]
}

func openRueidis[V any](addr string, load Loader[V]) (Peer[V], error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	return &viaRueidis[V]{client, load}, err
}

func (r *viaRueidis[V]) Get(ctx context.Context, key string) (V, error) {
	b, err := r.client.Do(ctx, r.client.B().Get().Key(key).Build()).AsBytes()
	if err == nil {
		var v V
		err = msgpack.Unmarshal(b, &v)
		return v, err
	}
	v, loadErr := r.load(ctx, key)
	if loadErr != nil || !rueidis.IsRedisNil(err) {
		return v, loadErr
	}
	if b, err = msgpack.Marshal(&v); err != nil {
		return v, err
	}
	set := r.client.B().Set().Key(key).Value(rueidis.BinaryString(b)).Px(TTL).Build()
	return v, r.client.Do(ctx, set).Error()
}

func (r *viaRueidis[V]) Invalidate(ctx context.Context, key string) error {
	return r.client.Do(ctx, r.client.B().Del().Key(key).Build()).Error()
}

func (r *viaRueidis[V]) Close() error {
	r.client.Close()
	return nil
}
