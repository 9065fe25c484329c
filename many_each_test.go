package readthrough_test

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
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

func TestEach_GoesThroughAnyNumberInOrder(t *testing.T) {
	t.Parallel()
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

func TestEach_EndsWithItsContext(t *testing.T) {
	t.Parallel()
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

func TestWarm_CountsWhatItDid(t *testing.T) {
	t.Parallel()
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
	require.Len(t, client.Keys(t.Context(), "row:*").Val(), 3500-10-1)
	require.Len(t, loader.sizes(), 4)
	warmed, err = rows.Warm(t.Context(), slices.Values([]int{10, 10, 3500, 3500}))
	require.NoError(t, err)
	require.Equal(t, readthrough.Warmed{Loaded: 1, Present: 3}, warmed, "a key that comes twice is loaded once")
}

func TestWarm_CountsNotFoundAsLoaded(t *testing.T) {
	cache, _ := newCache(t)
	rows := wrapper(t, cache, constant(-1), readthrough.WithNotFound(time.Minute, redis.Nil),
		readthrough.WithBatchLoader(func(context.Context, []int) (map[int]int, error) { return nil, nil }))
	for _, want := range []readthrough.Warmed{{Loaded: 5}, {Present: 5}} {
		warmed, err := rows.Warm(t.Context(), slices.Values(upTo(0, 5)))
		require.NoError(t, err)
		require.Equal(t, want, warmed)
	}
}

func TestWarm_EndsWithItsContext(t *testing.T) {
	t.Parallel()
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
