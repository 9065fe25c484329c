package readthrough_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// squares is a batch loader that remembers what it was asked for. With a gate, each call says that
// it has begun, and waits to be let on.
type squares struct {
	mu    sync.Mutex
	calls [][]int
	began chan []int
	goOn  chan struct{}
}

func (s *squares) load(ctx context.Context, ids []int) (map[int]int, error) {
	s.mu.Lock()
	s.calls = append(s.calls, slices.Clone(ids))
	s.mu.Unlock()
	if s.began != nil {
		s.began <- ids
		select {
		case <-s.goOn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m := make(map[int]int, len(ids))
	for _, id := range ids {
		m[id] = id * id
	}
	return m, nil
}

// wrap wraps s under the name "row", with a loader for single keys that must not be called.
func (s *squares) wrap(t *testing.T, cache *readthrough.Cache, opts ...readthrough.Option) *readthrough.ReadThrough[int, int] {
	t.Helper()
	return wrapper(t, cache, func(_ context.Context, id int) (int, error) {
		return 0, fmt.Errorf("the single loader was called for %d", id)
	}, append(opts, readthrough.WithBatchLoader(s.load))...)
}

// sizes returns how many keys each call was given.
func (s *squares) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sizes := make([]int, len(s.calls))
	for i, ids := range s.calls {
		sizes[i] = len(ids)
	}
	return sizes
}

// asked returns all keys that the calls were given, sorted.
func (s *squares) asked() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(slices.Concat(s.calls...)))
}

func gatedSquares() *squares {
	return &squares{began: make(chan []int, 100), goOn: make(chan struct{})}
}

// upTo returns the ids from, from+1, ... to-1.
func upTo(from, to int) []int {
	ids := make([]int, 0, to-from)
	for id := from; id < to; id++ {
		ids = append(ids, id)
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

// entriesIn returns the keys of the entries that server holds.
func entriesIn(server *miniredis.Miniredis) []string {
	return slices.DeleteFunc(server.Keys(), func(key string) bool { return strings.Contains(key, "{") })
}

// leasesIn returns the keys of the leases that server holds.
func leasesIn(server *miniredis.Miniredis) []string {
	return slices.DeleteFunc(server.Keys(), func(key string) bool { return !strings.HasSuffix(key, ":lease") })
}

func requireNoLeases(t *testing.T, server *miniredis.Miniredis) {
	t.Helper()
	require.Eventually(t, func() bool { return len(leasesIn(server)) == 0 }, 10*time.Second, time.Millisecond, "a lease was not given back")
}

// peak counts how many queries run, and remembers the highest number at a time.
type peak struct{ in, highest atomic.Int64 }

// visit runs a query that takes a millisecond.
func (p *peak) visit() {
	n := p.in.Add(1)
	defer p.in.Add(-1)
	for h := p.highest.Load(); n > h && !p.highest.CompareAndSwap(h, n); h = p.highest.Load() {
	}
	time.Sleep(time.Millisecond)
}

// requireLeases waits until there are n leases in the Redis of client.
func requireLeases(t *testing.T, client redis.UniversalClient, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		leases, err := client.Keys(t.Context(), "*:lease").Result()
		return err == nil && len(leases) == n
	}, 10*time.Second, time.Millisecond)
}

// pipelineCounter counts pipelines only: a cluster client asks for the slots on its own.
type pipelineCounter struct{ redistest.TripCounter }

func (c *pipelineCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
