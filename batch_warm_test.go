package readthrough_test

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// counted gives from, from+1, ... for ever, and counts how many were taken.
func counted(from int, taken *int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for id := from; ; id++ {
			*taken++
			if !yield(id) {
				return
			}
		}
	}
}

// realCache is a cache on a server that is quick enough for thousands of keys.
func realCache(t *testing.T) (*readthrough.Cache, *redis.Client) {
	t.Helper()
	client := redistest.Start(t).Client()
	return fleet(t, 1, func() redis.UniversalClient { return client })[0], client
}

func TestWarmCountsWhatItDid(t *testing.T) {
	cache, client := realCache(t)
	var loader squares
	taken, furthest := 0, 0
	lacking := func(ctx context.Context, ids []int) (map[int]int, error) {
		furthest = max(furthest, taken-1000*len(loader.sizes()))
		m, err := loader.load(ctx, ids)
		maps.DeleteFunc(m, func(id, _ int) bool { return id < 10 })
		return m, err
	}
	rows := readthrough.Must(readthrough.New(cache, "row", constant(-1), func(id int) string {
		if id == 3499 {
			return "" // no key
		}
		return strconv.Itoa(id)
	}, readthrough.WithBatchLoader(lacking)))
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{100: 1, 1200: 1, 3400: 1})))
	seq := func(yield func(int) bool) {
		for id := range counted(0, &taken) {
			if id == 3500 || !yield(id) {
				return
			}
		}
	}

	warmed, err := rows.Warm(t.Context(), seq)

	require.NoError(t, err)
	require.Equal(t, readthrough.Warmed{Loaded: 3500 - 10 - 3 - 1, Present: 3, Failed: 10 + 1}, warmed)
	require.LessOrEqual(t, furthest, 1000, "no more than a chunk is in memory")
	require.EqualValues(t, 3500-10-1, client.DBSize(t.Context()).Val())
	require.Len(t, loader.sizes(), 4)
	warmed, err = rows.Warm(t.Context(), slices.Values([]int{10, 10, 3500, 3500}))
	require.NoError(t, err)
	require.Equal(t, readthrough.Warmed{Loaded: 1, Present: 3}, warmed, "a key that comes twice is loaded once")
}

func TestWarmCountsNotFoundsAsLoaded(t *testing.T) {
	cache, _ := newCache(t)
	rows := wrapper(t, cache, constant(-1), readthrough.WithNotFound(time.Minute, redis.Nil),
		readthrough.WithBatchLoader(func(context.Context, []int) (map[int]int, error) { return nil, nil }))
	for _, want := range []readthrough.Warmed{{Loaded: 5}, {Present: 5}} {
		warmed, err := rows.Warm(t.Context(), slices.Values(upTo(0, 5)))
		require.NoError(t, err)
		require.Equal(t, want, warmed)
	}
}

func TestWarmEndsWithItsContext(t *testing.T) {
	cache, client := realCache(t)
	loader := gatedSquares()
	rows := loader.wrap(t, cache)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-loader.began
		loader.goOn <- struct{}{}
		<-loader.began
		cancel()
	}()
	taken := 0
	warmed, err := rows.Warm(ctx, counted(0, &taken))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, readthrough.Warmed{Loaded: 1000}, warmed)
	require.Equal(t, 2000, taken)
	requireLeases(t, client, 0)
}

func TestEachGoesThroughAnyNumberInOrder(t *testing.T) {
	cache, _ := realCache(t)
	loader := &squares{}
	rows := loader.wrap(t, cache)
	taken, next := 0, 0
	each := rows.Each(t.Context(), counted(0, &taken))
	require.Zero(t, taken, "nothing is taken before it is asked for")
	for id, result := range each {
		require.Equal(t, next, id)
		require.Equal(t, readthrough.Result[int]{Value: id * id}, result)
		if next++; next == 1500 {
			break
		}
	}
	require.Equal(t, 1500, next)
	require.Equal(t, 2000, taken)
	require.Equal(t, []int{1000, 1000}, loader.sizes())
	for range rows.Each(t.Context(), slices.Values([]int(nil))) {
		t.Error("nothing was asked for")
	}
}

func TestEachEndsWithItsContext(t *testing.T) {
	cache, _ := realCache(t)
	loader := &squares{}
	rows := loader.wrap(t, cache)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	taken, seen := 0, 0
	for id, result := range rows.Each(ctx, counted(0, &taken)) {
		require.Equal(t, seen, id)
		if seen++; seen == 1000 {
			cancel()
		}
		if seen <= 1000 {
			require.Equal(t, readthrough.Result[int]{Value: id * id}, result)
		} else {
			require.Equal(t, readthrough.Result[int]{Err: context.Canceled}, result)
		}
	}
	require.Equal(t, []int{2000, 2000}, []int{seen, taken}, "the keys at hand are told, the rest is not asked for")
	require.Equal(t, []int{1000}, loader.sizes())
}

func TestSetManyStoresAllInOneRoundTripForEach1000(t *testing.T) {
	cache, client := realCache(t)
	var trips atomic.Int64
	client.AddHook(&pipelineCounter{redistest.TripCounter{Trips: &trips}})
	loader := &squares{}
	rows := loader.wrap(t, cache)
	pairs := make(map[int]int)
	for _, id := range upTo(0, 2500) {
		pairs[id] = id * id
	}
	require.NoError(t, rows.Set(t.Context(), -1, 1)) // also teaches Redis the script
	before := trips.Load()
	require.NoError(t, rows.SetMany(t.Context(), maps.All(pairs)))
	require.EqualValues(t, 3, trips.Load()-before)
	results, err := rows.GetMany(t.Context(), upTo(0, 2500))
	require.NoError(t, err)
	require.Equal(t, squaresOf(upTo(0, 2500)), results)
	require.Empty(t, loader.sizes())
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{})))
}

func TestSetManyNamesWhatItDoesNotStoreAndStoresTheRest(t *testing.T) {
	cache, server := newCache(t)
	rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, string) (any, error) { return nil, nil }, readthrough.String,
		readthrough.WithMaxEntryBytes(50)))
	err := rows.SetMany(t.Context(), maps.All(map[string]any{
		"a": 1, "b": "two", "func": func() {}, "big": strings.Repeat("x", 100), "": 5,
	}))
	require.ErrorContains(t, err, "set row:func: ")
	require.ErrorContains(t, err, "set row:big: ")
	require.ErrorIs(t, err, readthrough.ErrEmptyKey)
	require.ElementsMatch(t, []string{"row:a", "row:b"}, server.Keys())
}

func TestSetManyInvalidatesWhatIsNotToBeKept(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant(0), readthrough.WithTTLFor(func(v int) time.Duration { return time.Duration(v) * time.Second }))
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{1: 60, 2: 60})))
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{1: 0, 2: 70, 3: -1})))
	require.Equal(t, []string{"row:2"}, server.Keys())
	v, err := rows.Peek(t.Context(), 2)
	require.NoError(t, err)
	require.Equal(t, 70, v)
}

// TestTheLastPairOfAKeyCounts: pairs are set in their order.
func TestTheLastPairOfAKeyCounts(t *testing.T) {
	cache, _ := newCache(t)
	rows := wrapper(t, cache, constant(0), readthrough.WithTTLFor(func(v int) time.Duration { return time.Duration(v) * time.Second }))
	require.NoError(t, rows.SetMany(t.Context(), func(yield func(int, int) bool) {
		_ = yield(1, 60) && yield(1, 0) && yield(2, 0) && yield(2, 60) && yield(3, 50) && yield(3, 60)
	}))
	_, err := rows.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrMiss)
	for _, id := range []int{2, 3} {
		v, err := rows.Peek(t.Context(), id)
		require.NoError(t, err, "key %d", id)
		require.Equal(t, 60, v)
	}
}

func TestABatchLoaderOfOtherTypesIsRefused(t *testing.T) {
	type id int
	batch := readthrough.WithBatchLoader(func(context.Context, []int) (map[int]string, error) { return nil, nil })
	cache, _ := newCache(t, batch) // the default of all wrappers
	_, err := readthrough.New(cache, "key", func(context.Context, string) (string, error) { return "", nil }, readthrough.String)
	require.ErrorContains(t, err, "WithBatchLoader")
	_, err = readthrough.New(cache, "named", func(context.Context, id) (string, error) { return "", nil }, readthrough.Int)
	require.ErrorContains(t, err, "WithBatchLoader")
	_, err = readthrough.New(cache, "value", constant(1), readthrough.Int)
	require.ErrorContains(t, err, "WithBatchLoader")
	_, err = readthrough.New(cache, "row", constant("a"), readthrough.Int)
	require.NoError(t, err)
	for _, size := range []int{0, -1} {
		_, err = readthrough.New(cache, "size", constant("a"), readthrough.Int, readthrough.WithBatchSize(size))
		require.ErrorContains(t, err, "WithBatchSize")
		_, err = readthrough.New(cache, "gather", constant("a"), readthrough.Int, readthrough.WithGather(time.Second, size))
		require.ErrorContains(t, err, "WithGather")
	}
	_, err = readthrough.New(cache, "window", constant("a"), readthrough.Int, readthrough.WithGather(-1, 1))
	require.ErrorContains(t, err, "WithGather")
	bare, _ := newCache(t)
	_, err = readthrough.New(bare, "row", constant(1), readthrough.Int, readthrough.WithGather(time.Second, 1))
	require.ErrorContains(t, err, "WithBatchLoader")
}

func TestKeysThatCannotBeComparedNeedNoBatchLoader(t *testing.T) {
	cache, _ := newCache(t)
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(_ context.Context, path []string) (int, error) { return len(path), nil },
		func(path []string) string { return strings.Join(path, "/") }))
	results, err := rows.GetMany(t.Context(), [][]string{{"a"}, {"a", "b"}, {"a"}, nil})
	require.NoError(t, err)
	require.Equal(t, []readthrough.Result[int]{{Value: 1}, {Value: 2}, {Value: 1}, {Err: readthrough.ErrEmptyKey}}, results)
}
