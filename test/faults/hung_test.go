package faults

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestGet_ReturnsToLeavingCallerWhileRedisHangs(t *testing.T) {
	t.Parallel()
	server, asks := redistest.Start(t), &askCounter{}
	client := server.Client()
	client.AddHook(tripHook(asks.note))
	cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(time.Hour))[0]
	rows := wrapper(t, cache, constant(1))
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := rows.Get(ctx, 1); gone <- err }()
	require.Eventually(t, func() bool { return asks.Load() == 1 }, 5*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, within(t, gone), context.Canceled)
}

// TestGet_WaitsNoLongerThanBudgetForHungRedis has callers queue behind those whom Redis does not
// answer.
func TestGet_WaitsNoLongerThanBudgetForHungRedis(t *testing.T) {
	t.Parallel()
	const budget = 2 * time.Second // half of it is what a busy machine may add
	server := redistest.Start(t)
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() }, readthrough.WithRedisTimeout(budget))[0]
	rows := wrapper(t, cache, constant(1))
	server.Pause()
	defer server.Resume()
	var wg sync.WaitGroup
	for id := range 32 {
		wg.Go(func() {
			began := time.Now()
			_, err := rows.Get(t.Context(), id)
			if took := time.Since(began); err != nil || took > budget*3/2 {
				t.Errorf("%v after %s", err, took)
			}
		})
	}
	wg.Wait()
}

func TestGet_AnswersWhileRedisIsFull(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() })[0]
	rows := readthrough.Must(readthrough.New(cache, "row", func(_ context.Context, id int) (int, error) { return id, nil }, readthrough.Int))
	v, err := rows.Get(t.Context(), 3)
	require.NoError(t, err)
	require.Equal(t, 3, v)
	require.EqualValues(t, 1, rows.Stats().RedisErrors)
}

// TestCalls_WaitOneBudgetForHungRedis counts the round trips that calls for several chunks wait
// for: once Redis has not answered, there is nothing to wait for again. GetMany has two of them
// under way at a time.
func TestCalls_WaitOneBudgetForHungRedis(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(*testing.T, *readthrough.ReadThrough[int, int]){
		"GetMany": func(t *testing.T, rows *readthrough.ReadThrough[int, int]) {
			ids := upTo(4000)
			results, err := rows.GetMany(t.Context(), ids)
			require.NoError(t, err)
			require.Equal(t, squaresOf(ids), results)
		},
		"SetMany": func(t *testing.T, rows *readthrough.ReadThrough[int, int]) {
			require.ErrorContains(t, rows.SetMany(t.Context(), slices.All(make([]int, 4000))), "row:0, row:1, ")
		},
		"Invalidate": func(t *testing.T, rows *readthrough.ReadThrough[int, int]) {
			require.ErrorContains(t, rows.Invalidate(t.Context(), upTo(4000)...), "row:0, row:1, ")
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			client := server.Client(once)
			sent := &chunkLog{first: make(map[string]bool)}
			client.AddHook(tripHook(sent.note))
			cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(200*time.Millisecond))[0]
			rows := (&squares{}).wrap(t, cache)
			server.Pause()
			call(t, rows)
			chunks := sent.chunks()
			server.Resume()
			want := []string{"row:0"}
			if name == "GetMany" {
				want = append(want, "row:500")
			}
			require.ElementsMatch(t, want, chunks, "the chunks that were sent, by their first keys")
			require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 5*time.Millisecond)
		})
	}
}

// chunkLog remembers the pipelines about many keys by the first of them, so that a chunk that is
// sent again in the background counts once.
type chunkLog struct {
	mu    sync.Mutex
	first map[string]bool
}

var rowKey = regexp.MustCompile(`row:\d+`)

// note notes a round trip: it is a tripHook.
func (l *chunkLog) note(cmds []redis.Cmder, send func() error) error {
	l.mu.Lock()
	if len(cmds) > 100 {
		l.first[rowKey.FindString(fmt.Sprintln(cmds[0].Args()...))] = true
	}
	l.mu.Unlock()
	return send()
}

func (l *chunkLog) chunks() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.first))
}

func TestInvalidate_NamesKeysOfNodeThatIsDown(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0)
	cache := fleet(t, 1, func() redis.UniversalClient {
		return cluster.Client(func(o *redis.ClusterOptions) { o.MaxRedirects = -1; o.MaxRetries = -1; o.DialerRetries = 1 })
	}, readthrough.WithBreaker(1000, time.Second))[0]
	rows := (&squares{}).wrap(t, cache)
	ids := upTo(9) // as many as an error names
	_, err := rows.GetMany(t.Context(), ids)
	require.NoError(t, err)
	there, err := cluster.Masters()[0].Client().Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.NotEmpty(t, there)
	cluster.Masters()[0].Kill()

	before := rows.Stats()
	results, err := rows.GetMany(t.Context(), ids)
	require.NoError(t, err)
	require.Equal(t, squaresOf(ids), results, "whatever Redis answers")
	require.EqualValues(t, len(ids)-len(there), rows.Stats().Hits-before.Hits, "the other nodes' keys are hits")
	require.EqualValues(t, len(there), rows.Stats().Loads-before.Loads)
	err = rows.Invalidate(t.Context(), ids...)
	for _, key := range there {
		require.ErrorContains(t, err, key)
	}
	cluster.Masters()[0].Restart()
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 5*time.Millisecond)
}
