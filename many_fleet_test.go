package readthrough_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// many is what GetMany returned.
type many struct {
	results []readthrough.Result[int]
	err     error
}

// askMany has rows asked for ids on a goroutine of its own.
func askMany(rows *readthrough.ReadThrough[int, int], ids []int) <-chan many {
	got := make(chan many, 1)
	go func() {
		results, err := rows.GetMany(context.Background(), ids)
		got <- many{results, err}
	}()
	return got
}

// TestGetMany_TakesLeasesWithoutWaiting has two processes that each lead what the other waits for,
// and loaders that go on only when told to.
func TestGetMany_TakesLeasesWithoutWaiting(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
	one, two := gatedSquares(), gatedSquares()
	first, second := one.wrap(t, caches[0]), two.wrap(t, caches[1])
	up := upTo(0, 60)     // 0..59
	down := upTo(40, 100) // 99..40
	slices.Reverse(down)

	gotUp := askMany(first, up)
	require.Len(t, <-one.began, 60)
	gotDown := askMany(second, down)
	require.Len(t, <-two.began, 40, "60 to 99; 40 to 59 are led by the first")
	requireLeases(t, client, 100)
	alsoDown := askMany(first, down) // so each waits for the other
	single := make(chan int)
	go func() { v, _ := first.Get(context.Background(), 99); single <- v }()
	require.Eventually(t, func() bool { return first.Stats().Misses == 60+60+1 }, 10*time.Second, time.Millisecond)

	close(two.goOn)
	require.Equal(t, 99*99, <-single, "the batch of its own process, still blocked, does not hold it up")
	close(one.goOn)
	require.Equal(t, many{squaresOf(up), nil}, <-gotUp)
	require.Equal(t, many{squaresOf(down), nil}, <-gotDown)
	require.Equal(t, many{squaresOf(down), nil}, <-alsoDown)
	require.Equal(t, []int{60}, one.sizes())
	require.Equal(t, []int{40}, two.sizes())
	requireLeases(t, client, 0)
}

// TestGetMany_AnswersKeyOfOtherProcessBeforeItsBatch: the key came with the very call whose other
// key is slow.
func TestGetMany_AnswersKeyOfOtherProcessBeforeItsBatch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
	slow, other := gatedSquares(), gatedSquares()
	rows, others := slow.wrap(t, caches[0]), other.wrap(t, caches[1])
	gotOther := askMany(others, []int{1, 3})
	<-other.began
	got := askMany(rows, []int{1, 2, 3})
	require.Equal(t, []int{2}, <-slow.began)
	joined := make(chan int)
	go func() { v, _ := rows.Get(context.Background(), 1); joined <- v }()
	require.Eventually(t, func() bool { return rows.Stats().Misses == 4 }, 10*time.Second, time.Millisecond)
	close(other.goOn)
	require.Equal(t, 1, <-joined)
	close(slow.goOn)
	require.Equal(t, many{squaresOf([]int{1, 2, 3}), nil}, <-got)
	require.Equal(t, many{squaresOf([]int{1, 3}), nil}, <-gotOther)
}

func TestGetMany_KeepsLeasesOfLongBatch(t *testing.T) {
	t.Parallel()
	const keys = 50
	server := redistest.Start(t)
	client := server.Client()
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() })[0]
	loader := gatedSquares()
	rows := loader.wrap(t, cache, readthrough.WithLeaseTTL(1500*time.Millisecond))
	got := askMany(rows, upTo(0, keys))
	<-loader.began
	// Four renewals take longer than a lease lasts.
	require.Eventually(t, func() bool { return server.CommandStats()["pexpire"] >= 4*keys }, 20*time.Second, 10*time.Millisecond)
	requireLeases(t, client, keys)
	close(loader.goOn)
	require.Equal(t, many{squaresOf(upTo(0, keys)), nil}, <-got)
	require.EqualValues(t, keys, rows.Stats().Fills)
	require.Zero(t, rows.Stats().RefusedFills)
	requireLeases(t, client, 0)
}

func TestGetMany_LosesOnlyFillsOfKeysWrittenByOtherProcess(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
	loader := gatedSquares()
	rows := loader.wrap(t, caches[0])
	writer := (&squares{}).wrap(t, caches[1])
	ids := upTo(0, 10)
	early := askMany(rows, ids)
	<-loader.began
	require.NoError(t, writer.Invalidate(t.Context(), 1))
	require.NoError(t, writer.Set(t.Context(), 2, -2))
	close(loader.goOn)
	require.Equal(t, many{squaresOf(ids), nil}, <-early)
	require.EqualValues(t, []int64{8, 2}, []int64{rows.Stats().Fills, rows.Stats().RefusedFills})
	_, err := writer.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrMiss)
	v, err := writer.Peek(t.Context(), 2)
	require.NoError(t, err)
	require.Equal(t, -2, v)
	requireLeases(t, server.Client(), 0)
}

// TestGetMany_StartsOverInOneBatch: who has joined a batch load too late for its result is no
// reason to load each key for itself.
func TestGetMany_StartsOverInOneBatch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
	loader := gatedSquares()
	var singles atomic.Int64
	rows := wrapper(t, caches[0], func(_ context.Context, id int) (int, error) { singles.Add(1); return id * id, nil },
		readthrough.WithBatchLoader(loader.load))
	writer := (&squares{}).wrap(t, caches[1])
	ids := upTo(0, 100)
	early := askMany(rows, ids)
	<-loader.began
	require.NoError(t, writer.Invalidate(t.Context(), ids...))
	late := askMany(rows, ids)
	require.Eventually(t, func() bool { return rows.Stats().Misses == 200 }, 10*time.Second, time.Millisecond)
	close(loader.goOn)
	require.Equal(t, many{squaresOf(ids), nil}, <-early)
	require.Equal(t, many{squaresOf(ids), nil}, <-late)
	require.Zero(t, singles.Load(), "GetMany loads by the batch loader")
}

// TestGetMany_CostsFewPipelinesOfEachNodeOfCluster counts the pipelines of each node: one for each
// chunk of 1000 keys, a lookup's of 500, and for the first fill one more, which teaches the node
// the script.
func TestGetMany_CostsFewPipelinesOfEachNodeOfCluster(t *testing.T) {
	t.Parallel()
	const keys, lookups, chunks, masters = 10_000, 20, 10, 3
	cluster := redistest.StartCluster(t, masters, 0)
	client := cluster.Client()
	nodes := make(map[string]*atomic.Int64)
	var mu sync.Mutex
	client.OnNewNode(func(node *redis.Client) {
		mu.Lock()
		defer mu.Unlock()
		if nodes[node.Options().Addr] == nil {
			nodes[node.Options().Addr] = new(atomic.Int64)
		}
		node.AddHook(&pipelineCounter{redistest.TripCounter{Trips: nodes[node.Options().Addr]}})
	})
	trips := func() int64 {
		mu.Lock()
		defer mu.Unlock()
		var most int64
		for _, n := range nodes {
			most = max(most, n.Swap(0))
		}
		return most
	}
	require.NoError(t, client.Ping(t.Context()).Err())
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	loader := &squares{}
	rows := loader.wrap(t, cache)
	ids := upTo(0, keys)
	dbSize := func() (n int64) {
		for _, master := range cluster.Masters() {
			size, err := master.Client().DBSize(t.Context()).Result()
			require.NoError(t, err)
			n += size
		}
		return n
	}
	get := func(want []readthrough.Result[int]) {
		t.Helper()
		results, err := rows.GetMany(t.Context(), ids)
		require.NoError(t, err)
		require.Equal(t, want, results)
	}

	trips()
	get(squaresOf(ids)) // cold
	require.LessOrEqual(t, trips(), int64(lookups+2*chunks+4), "lookup, acquire, fill")
	require.EqualValues(t, keys, dbSize())
	require.Equal(t, ids, loader.asked())
	get(squaresOf(ids)) // warm
	require.LessOrEqual(t, trips(), int64(lookups))

	other, negative := map[int]int{}, squaresOf(ids)
	for _, id := range ids {
		other[id], negative[id].Value = -id, -id
	}
	require.NoError(t, rows.SetMany(t.Context(), maps.All(other)))
	require.LessOrEqual(t, trips(), int64(2*chunks+1))
	get(negative)
	trips()
	require.NoError(t, rows.Invalidate(t.Context(), ids...))
	require.LessOrEqual(t, trips(), int64(chunks))
	require.Zero(t, dbSize())
	require.Zero(t, rows.Stats().RedisErrors)
}

var errNode = errors.New("node is down")

// refusing is a hook that refuses pipelines without giving their commands an error, as a limiter
// may.
type refusing struct {
	pipelineCounter
	over atomic.Bool
}

func (r *refusing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if r.over.Load() {
			return next(ctx, cmds)
		}
		return errNode
	}
}

func TestGetMany_TakesRefusedPipelineForUnanswered(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	rows := (&squares{}).wrap(t, cache)
	_, err := rows.GetMany(t.Context(), []int{1})
	require.NoError(t, err)
	hook := new(refusing)
	client.AddHook(hook)
	require.ErrorIs(t, rows.Invalidate(t.Context(), 1), errNode)
	results, err := rows.GetMany(t.Context(), []int{1, 2})
	require.NoError(t, err)
	require.Equal(t, squaresOf([]int{1, 2}), results)
	require.Zero(t, rows.Stats().Corrupt)
	hook.over.Store(true)
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 5*time.Millisecond)
}
