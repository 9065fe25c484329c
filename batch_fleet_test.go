package readthrough_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
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

// requireLeases waits until there are n leases in the Redis of client.
func requireLeases(t *testing.T, client redis.UniversalClient, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		leases, err := client.Keys(t.Context(), "*:lease").Result()
		return err == nil && len(leases) == n
	}, 10*time.Second, time.Millisecond)
}

// TestLeasesAreTakenWithoutWaiting has two processes that each lead what the other
// waits for, and loaders that go on only when told to.
func TestLeasesAreTakenWithoutWaiting(t *testing.T) {
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

// TestAKeyThatAnotherProcessLeadsDoesNotWaitForTheBatch: the key came with the
// very call whose other key is slow.
func TestAKeyThatAnotherProcessLeadsDoesNotWaitForTheBatch(t *testing.T) {
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

func TestALongBatchKeepsAllItsLeases(t *testing.T) {
	const keys = 50
	server := redistest.Start(t)
	client := server.Client()
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() })[0]
	loader := gatedSquares()
	rows := loader.wrap(t, cache, readthrough.WithLeaseTTL(600*time.Millisecond))
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

func TestAnotherProcessesWriteRefusesItsFillAlone(t *testing.T) {
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

// TestThoseWhoStartOverDoItTogether: who has joined a batch load too late for its
// result is no reason to load each key for itself.
func TestThoseWhoStartOverDoItTogether(t *testing.T) {
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

// askInParallel has goroutines ask for overlapping sets of 100 of 500 keys.
func askInParallel(rows *readthrough.ReadThrough[int, int], goroutines int) error {
	var wg sync.WaitGroup
	failed := make(chan error, goroutines)
	for range goroutines {
		wg.Go(func() {
			ids := rand.Perm(500)[:100]
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			results, err := rows.GetMany(ctx, ids)
			if err != nil || !slices.Equal(results, squaresOf(ids)) {
				failed <- fmt.Errorf("got %v, %w", results, err)
			}
		})
	}
	wg.Wait()
	close(failed)
	return errors.Join(slices.Collect(func(yield func(error) bool) {
		for err := range failed {
			if !yield(err) {
				return
			}
		}
	})...)
}

// requireEachOnce fails the test if a key was loaded twice.
func requireEachOnce(t *testing.T, asked []int) {
	t.Helper()
	slices.Sort(asked)
	require.Equal(t, slices.Compact(slices.Clone(asked)), asked, "each at most once")
	require.Greater(t, len(asked), 400)
}

func TestOverlappingGetManysLoadEachKeyOnceInTheFleet(t *testing.T) {
	server := redistest.Start(t)
	loader := &squares{}
	var wg sync.WaitGroup
	for _, cache := range fleet(t, 4, func() redis.UniversalClient { return server.Client() }) {
		rows := loader.wrap(t, cache)
		wg.Go(func() {
			if err := askInParallel(rows, 16); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	requireEachOnce(t, loader.asked())
	requireLeases(t, server.Client(), 0)
}

const batchMember = "member that asks for many"

func init() { redistest.Register(batchMember, runBatchMember) }

// runBatchMember is one process of the fleet: it waits for its input to end, asks,
// and writes what it has loaded.
func runBatchMember() int {
	client := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDR")})
	cache := readthrough.Must(readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second)))
	loader := &squares{}
	rows := readthrough.Must(readthrough.New(cache, "row", constant(-1), readthrough.Int, readthrough.WithBatchLoader(loader.load)))
	fmt.Println("ready")
	_, _ = io.ReadAll(os.Stdin)
	err := errors.Join(askInParallel(rows, 16), cache.Close(), client.Close())
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(loader.asked())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestOverlappingGetManysLoadEachKeyOnceInFourProcesses(t *testing.T) {
	server := redistest.Start(t)
	members := make([]*redistest.Proc, 4)
	for i := range members {
		members[i] = redistest.Process(t, batchMember, "REDIS_ADDR="+server.Addr())
		line, err := members[i].ReadLine(30 * time.Second)
		require.NoError(t, err)
		require.Equal(t, "ready", line)
	}
	for _, m := range members {
		require.NoError(t, m.Stdin.Close())
	}
	var asked []int
	for _, m := range members {
		line, err := m.ReadLine(60 * time.Second)
		require.NoError(t, err)
		var loaded []int
		require.NoError(t, json.Unmarshal([]byte(line), &loaded))
		asked = append(asked, loaded...)
		require.NoError(t, m.Wait())
	}
	requireEachOnce(t, asked)
	requireLeases(t, server.Client(), 0)
}

// TestManyKeysOnACluster counts the pipelines of each node: one for each chunk of
// 1000 keys, a lookup's of 500, and for the first fill one more, which teaches the node the script.
func TestManyKeysOnACluster(t *testing.T) {
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
	require.LessOrEqual(t, trips(), int64(chunks+1))
	get(negative)
	trips()
	require.NoError(t, rows.Invalidate(t.Context(), ids...))
	require.LessOrEqual(t, trips(), int64(chunks))
	require.Zero(t, dbSize())
	require.Zero(t, rows.Stats().RedisErrors)
}

// pipelineCounter counts pipelines only: a cluster client asks for the slots on its own.
type pipelineCounter struct{ redistest.TripCounter }

func (c *pipelineCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func TestRedisDownMeansTheBatchLoaderAnswers(t *testing.T) {
	cache, server := newCache(t)
	loader := &squares{}
	rows := loader.wrap(t, cache)
	ids := upTo(0, 100)
	server.Close()
	for range 3 {
		results, err := rows.GetMany(t.Context(), ids)
		require.NoError(t, err)
		require.Equal(t, squaresOf(ids), results)
	}
	require.Equal(t, []int{100, 100, 100}, loader.sizes())
	require.ErrorContains(t, rows.SetMany(t.Context(), maps.All(map[int]int{7: 1})), "set row:7")
	require.ErrorContains(t, rows.Invalidate(t.Context(), 8, 9), "invalidate row:8, row:9")
	require.EqualValues(t, 3, cache.Stats().PendingInvalidations)
	require.NoError(t, server.Start())
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 5*time.Millisecond)
}
