// Package faults tests what callers of the cache see while Redis is refused, killed, paused, full,
// loading or failing over, and while processes of the fleet are paused or killed. The servers and
// the processes are real.
package faults

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.RunIfChild()
	redistest.Parallel(8)
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}

// soon is far longer than anything that is waited for takes, even on a busy machine.
const soon = 30 * time.Second

// fleet returns n Caches with a client each: what n processes would have.
func fleet(t *testing.T, n int, client func() redis.UniversalClient, opts ...readthrough.CacheOption) []*readthrough.Cache {
	t.Helper()
	caches := make([]*readthrough.Cache, n)
	for i := range caches {
		cache, err := readthrough.NewCache(client(), append([]readthrough.CacheOption{readthrough.WithRedisTimeout(5 * time.Second)}, opts...)...)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, cache.Close()) })
		caches[i] = cache
	}
	return caches
}

// wrapper wraps load of an int key under the name "row".
func wrapper[V any](t *testing.T, cache *readthrough.Cache, load readthrough.Loader[int, V], opts ...readthrough.Option) *readthrough.ReadThrough[int, V] {
	t.Helper()
	rt, err := readthrough.New(cache, "row", load, readthrough.Int, opts...)
	require.NoError(t, err)
	return rt
}

func constant[V any](v V) readthrough.Loader[int, V] {
	return func(context.Context, int) (V, error) { return v, nil }
}

// squares is a batch loader that remembers what it was asked for.
type squares struct {
	mu   sync.Mutex
	keys []int
}

func (s *squares) load(_ context.Context, ids []int) (map[int]int, error) {
	s.mu.Lock()
	s.keys = append(s.keys, ids...)
	s.mu.Unlock()
	m := make(map[int]int, len(ids))
	for _, id := range ids {
		m[id] = id * id
	}
	return m, nil
}

// asked returns all keys that were asked for, sorted.
func (s *squares) asked() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.keys))
}

// wrap wraps s under the name "row". A value of the loader for single keys would show: it is
// negative.
func (s *squares) wrap(t *testing.T, cache *readthrough.Cache) *readthrough.ReadThrough[int, int] {
	t.Helper()
	return wrapper(t, cache, constant(-1), readthrough.WithBatchLoader(s.load))
}

// upTo returns the ids 0, 1, ... n-1.
func upTo(n int) []int {
	ids := make([]int, n)
	for id := range ids {
		ids[id] = id
	}
	return ids
}

func squaresOf(ids []int) []readthrough.Result[int] {
	results := make([]readthrough.Result[int], len(ids))
	for i, id := range ids {
		results[i].Value = id * id
	}
	return results
}

// eventSet is an Observer that remembers which kinds of events there were.
type eventSet struct{ kinds sync.Map }

func (s *eventSet) Observe(_ context.Context, e readthrough.Event) { s.kinds.Store(e.Kind, true) }

func (s *eventSet) saw(kind readthrough.EventKind) bool {
	_, ok := s.kinds.Load(kind)
	return ok
}

// receive returns what comes on ch, and fails the test if nothing does.
func receive[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(soon):
		require.FailNow(t, "nothing came")
	}
	return v
}

// tripHook is a hook for a whole round trip, of one command or a pipeline. Where it fails, so does
// each command.
type tripHook func(cmds []redis.Cmder, send func() error) error

func (h tripHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h tripHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h([]redis.Cmder{cmd}, func() error { return next(ctx, cmd) })
	}
}

func (h tripHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return h(cmds, func() error { return next(ctx, cmds) })
	}
}

func fail(cmds []redis.Cmder, err error) error {
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
	return err
}

// once has a client learn of an outage at its first attempt.
func once(o *redis.Options) { o.MaxRetries, o.DialerRetries = -1, 1 }

// requireNoLeases waits until there is no lease in the Redis of client.
func requireNoLeases(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	require.Eventually(t, func() bool {
		leases, err := client.Keys(t.Context(), "*:lease").Result()
		return err == nil && len(leases) == 0
	}, soon, time.Millisecond)
}
