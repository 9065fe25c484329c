package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// findings is an Observer that passes on what is found of Redis.
type findings chan error

func (f findings) Observe(_ context.Context, e readthrough.Event) {
	if e.Kind == readthrough.EventFinding {
		f <- e.Err
	}
}

// punctual has a client keep deadlines: that it does not is a finding too.
func punctual(o *redis.Options) { o.ContextTimeoutEnabled = true }

// requireOne waits for a finding that says what, and wants no other.
func (f findings) requireOne(t *testing.T, cache *readthrough.Cache, what string) {
	t.Helper()
	require.ErrorContains(t, receive(t, f), what)
	require.NoError(t, cache.Close()) // which waits for what could find more
	require.Empty(t, f)
	require.EqualValues(t, 1, cache.Stats().Findings)
}

// replicaOf starts a replica, and returns when it has what its primary has.
func replicaOf(t *testing.T, primary *redistest.Server, args ...string) *redistest.Server {
	t.Helper()
	var host, port string
	_, err := fmt.Sscanf(primary.Addr(), "%9s:%s", &host, &port)
	require.NoError(t, err)
	replica := redistest.Start(t, append([]string{"--replicaof", host + " " + port}, args...)...)
	client := primary.Client()
	require.Eventually(t, func() bool {
		n, err := client.Wait(t.Context(), 1, time.Second).Result()
		return err == nil && n == 1
	}, soon, time.Millisecond)
	return replica
}

func TestCache_SaysThatItTalksToReplica(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args []string // of the replica
		use  func(ctx context.Context, rows *readthrough.ReadThrough[int, int]) error
	}{
		"a miss": {use: func(ctx context.Context, rows *readthrough.ReadThrough[int, int]) error {
			_, err := rows.Get(ctx, 2)
			return err
		}},
		"only hits": {use: func(ctx context.Context, rows *readthrough.ReadThrough[int, int]) error {
			_, err := rows.Peek(ctx, 1)
			return err
		}},
		"only hits of many": {use: func(ctx context.Context, rows *readthrough.ReadThrough[int, int]) error {
			_, err := rows.GetMany(ctx, []int{1})
			return err
		}},
		"a replica that takes writes": {args: []string{"--replica-read-only", "no"}, use: func(ctx context.Context, rows *readthrough.ReadThrough[int, int]) error {
			_, err := rows.Get(ctx, 2)
			return err
		}},
		"only writes": {use: func(ctx context.Context, rows *readthrough.ReadThrough[int, int]) error {
			if err := rows.Invalidate(ctx, 1); err == nil {
				return fmt.Errorf("a replica has invalidated")
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := redistest.Start(t)
			writer := fleet(t, 1, func() redis.UniversalClient { return primary.Client() })[0]
			_, err := wrapper(t, writer, constant(1)).Get(t.Context(), 1)
			require.NoError(t, err)
			replica := replicaOf(t, primary, row.args...)

			found := make(findings, 10)
			cache := readthrough.Must(readthrough.NewCache(replica.Client(once, punctual), readthrough.WithObserver(found), readthrough.WithRedisTimeout(5*time.Second)))
			require.NoError(t, row.use(t.Context(), wrapper(t, cache, constant(1))))
			require.ErrorContains(t, receive(t, found), "replica")
			_ = cache.Close() // the invalidation that was refused is still pending
			require.Empty(t, found)
			require.EqualValues(t, 1, cache.Stats().Findings)
		})
	}
}

func TestCache_SaysThatClientOfSentinelReadsReplicas(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	found := make(findings, 10)
	client := s.Client(func(o *redis.FailoverOptions) { o.ReplicaOnly, o.ContextTimeoutEnabled = true, true })
	cache := readthrough.Must(readthrough.NewCache(client, readthrough.WithObserver(found)))
	rows := wrapper(t, cache, constant(1))
	require.Eventually(t, func() bool { // a busy machine may take longer to answer than the cache waits
		_, err := rows.Get(t.Context(), 1)
		return err == nil && len(found) > 0
	}, soon, 10*time.Millisecond)
	found.requireOne(t, cache, "replica")
}

func TestCache_FindsNothingOfPrimary(t *testing.T) {
	t.Parallel()
	found := make(findings, 10)
	cache := fleet(t, 1, func() redis.UniversalClient { return redistest.Start(t).Client(punctual) }, readthrough.WithObserver(found))[0]
	rows := wrapper(t, cache, constant(1))
	for id := range 100 {
		_, err := rows.Get(t.Context(), id)
		require.NoError(t, err)
		require.NoError(t, rows.Set(t.Context(), id, 2))
	}
	require.NoError(t, cache.Close())
	require.Empty(t, found)
}
