package readthrough_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestGetMany_AnswersEachKeyAsGetWould(t *testing.T) {
	cache, server := newCache(t)
	errNone := errors.New("none")
	var asked []string
	joinable := make(chan struct{})
	load := func(_ context.Context, k string) (user, error) {
		if k == "joined" {
			<-joinable
		}
		return user{k, []string{k}}, nil
	}
	rows := readthrough.Must(readthrough.New(cache, "row", load, readthrough.String, readthrough.WithStale(time.Hour),
		readthrough.WithNotFound(time.Hour, errNone),
		readthrough.WithBatchLoader(func(_ context.Context, ks []string) (map[string]user, error) {
			asked = ks
			return map[string]user{"cold": {"cold", []string{"cold"}}, "corrupt": {"corrupt", []string{"corrupt"}}}, nil
		})))
	for _, k := range []string{"hit", "stale"} {
		require.NoError(t, rows.Set(t.Context(), k, user{"old " + k, []string{k}}))
	}
	require.NoError(t, rows.Expire(t.Context(), "stale"))
	_, err := rows.GetMany(t.Context(), []string{"negative"})
	require.NoError(t, err)
	require.NoError(t, server.Set("row:corrupt", "no entry"))
	single := make(chan user)
	go func() { u, _ := rows.Get(context.Background(), "joined"); single <- u }()
	require.Eventually(t, func() bool { return server.Exists("{row:joined}:lease") }, 5*time.Second, time.Millisecond)
	before := rows.Stats()
	go func() { // the three that are cold, each twice
		for rows.Stats().Misses < before.Misses+6 {
			runtime.Gosched()
		}
		close(joinable)
	}()

	ks := []string{"cold", "", "hit", "negative", "joined", "stale", "corrupt"}
	results, err := rows.GetMany(t.Context(), append(ks, ks...))

	require.NoError(t, err)
	require.Len(t, results, 2*len(ks))
	for i, k := range append(ks, ks...) {
		switch k {
		case "":
			require.Equal(t, readthrough.Result[user]{Err: readthrough.ErrEmptyKey}, results[i])
		case "negative":
			require.Equal(t, readthrough.Result[user]{Err: errNone}, results[i])
		case "hit", "stale":
			require.Equal(t, readthrough.Result[user]{Value: user{"old " + k, []string{k}}}, results[i])
		default:
			require.Equal(t, readthrough.Result[user]{Value: user{k, []string{k}}}, results[i])
		}
		if k != "" && k != "negative" {
			results[i].Value.Tags[0] = "mine" // nobody else may see it
		}
	}
	require.Equal(t, user{"joined", []string{"joined"}}, <-single)
	require.ElementsMatch(t, []string{"cold", "corrupt"}, asked)
	s := rows.Stats()
	require.EqualValues(t, []int64{2, 2, 2, 6}, []int64{s.Hits - before.Hits, s.NegativeHits - before.NegativeHits, s.StaleHits, s.Misses - before.Misses})
	require.EqualValues(t, 1, s.Corrupt)
	requireNoLeases(t, server)
}

func TestGetMany_LoadsMissesInOneBatch(t *testing.T) {
	cache, _ := newCache(t)
	var batches atomic.Int64
	rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int, error) {
		return 0, errors.New("not called")
	}, readthrough.Int, readthrough.WithBatchLoader(func(_ context.Context, ids []int) (map[int]int, error) {
		batches.Add(1)
		m := map[int]int{}
		for _, id := range ids {
			if id != 3 {
				m[id] = id * id
			}
		}
		return m, nil
	})))
	rs, err := rows.GetMany(t.Context(), []int{1, 2, 3})
	require.NoError(t, err)
	require.Equal(t, []readthrough.Result[int]{{Value: 1}, {Value: 4}, {Err: readthrough.ErrNotFound}}, rs)
	require.LessOrEqual(t, batches.Load(), int64(3))
}

func TestGetMany_EndsWithItsContext(t *testing.T) {
	cache, server := newCache(t)
	loader := gatedSquares()
	rows := loader.wrap(t, cache)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-loader.began; cancel() }()
	results, err := rows.GetMany(ctx, upTo(0, 10))
	require.Nil(t, results)
	require.ErrorIs(t, err, context.Canceled)
	requireNoLeases(t, server)
	require.Empty(t, server.Keys())
	require.Zero(t, rows.Stats().LoadErrors, "a caller who leaves is no failure of the loader's")

	_, err = rows.GetMany(ctx, upTo(0, 10))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []int{10}, loader.sizes(), "the second call loads nothing")

	results, err = rows.GetMany(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, results)
}

func TestGetMany_LeavesLoadToThoseWhoJoinedIt(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		loader := gatedSquares()
		rows := loader.wrap(t, b.cache(t))
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() { _, err := rows.GetMany(ctx, upTo(0, 10)); gone <- err }()
		<-loader.began
		stays := make(chan int)
		go func() { v, _ := rows.Get(context.Background(), 7); stays <- v }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		close(loader.goOn)
		require.Equal(t, 49, <-stays)
		require.Equal(t, []int{10}, loader.sizes())
		requireNoLeases(t, b.redis)
	})
}

func TestGetMany_CostsFewRoundTrips(t *testing.T) {
	t.Parallel()
	var trips atomic.Int64
	client := redistest.Start(t).Client()
	client.AddHook(&pipelineCounter{redistest.TripCounter{Trips: &trips}})
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	loader := &squares{}
	rows := loader.wrap(t, cache)
	ids := upTo(0, 1000)
	for _, most := range []int64{4, 2} { // cold, and warm
		before := trips.Load()
		results, err := rows.GetMany(t.Context(), ids)
		require.NoError(t, err)
		require.Equal(t, squaresOf(ids), results)
		require.LessOrEqual(t, trips.Load()-before, most)
	}
	require.Equal(t, []int{1000}, loader.sizes())
	require.EqualValues(t, 1000, rows.Stats().Fills)
}

func TestGetMany_GivesEachCallAtMostBatchSize(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	loader := &squares{}
	rows := loader.wrap(t, cache, readthrough.WithBatchSize(1000))
	ids := upTo(0, 2500)
	results, err := rows.GetMany(t.Context(), append(ids, ids...))
	require.NoError(t, err)
	require.Equal(t, append(squaresOf(ids), squaresOf(ids)...), results)
	require.ElementsMatch(t, []int{1000, 1000, 500}, loader.sizes())
	require.Equal(t, ids, loader.asked(), "each once")
	require.EqualValues(t, 2500, client.DBSize(t.Context()).Val(), "and no lease is left")
}

func TestGetMany_CallsLoader16TimesAtOnceAtMost(t *testing.T) {
	for name, row := range map[string]struct {
		keys int
		opts []readthrough.Option
	}{
		"one chunk":      {200, nil},
		"several chunks": {200, []readthrough.Option{readthrough.WithBatchSize(40)}},
	} {
		t.Run(name, func(t *testing.T) {
			cache, server := newCache(t)
			var p peak
			var loads sync.Map
			rows := wrapper(t, cache, func(_ context.Context, id int) (int, error) {
				p.visit()
				if _, again := loads.LoadOrStore(id, true); again {
					return 0, errors.New("loaded twice")
				}
				return id * id, nil
			}, row.opts...)
			ids := upTo(0, row.keys)
			results, err := rows.GetMany(t.Context(), append(ids, ids...))
			require.NoError(t, err)
			require.Equal(t, append(squaresOf(ids), squaresOf(ids)...), results)
			require.Len(t, server.Keys(), row.keys)
			require.LessOrEqual(t, p.highest.Load(), int64(16))
			require.Greater(t, p.highest.Load(), int64(1))
		})
	}
}

func TestGetMany_CountsBatchAsOneLoadOfLoadLimit(t *testing.T) {
	cache, _ := newCache(t)
	var p peak
	loader := &squares{}
	rows := wrapper(t, cache, constant(0), readthrough.WithLoadLimit(1), readthrough.WithBatchSize(10),
		readthrough.WithBatchLoader(func(ctx context.Context, ids []int) (map[int]int, error) {
			p.visit()
			return loader.load(ctx, ids)
		}))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			ids := upTo(100*i, 100*i+30)
			if results, err := rows.GetMany(t.Context(), ids); err != nil || !slices.Equal(results, squaresOf(ids)) {
				t.Errorf("got %v, %v", results, err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, p.highest.Load())
	require.Equal(t, slices.Repeat([]int{10}, 12), loader.sizes())
}

// TestGetMany_AnswersWhateverBatchLoaderDoesWrong has GetMany load keys 1 and 2, and a Get join 2.
func TestGetMany_AnswersWhateverBatchLoaderDoesWrong(t *testing.T) {
	failure, errNone := errors.New("database down"), errors.New("none")
	lacks2 := func(context.Context) (map[int]int, error) { return map[int]int{1: 1}, nil }
	notFound := readthrough.WithNotFound(time.Minute, errNone, errors.New("gone"))
	for name, row := range map[string]struct {
		load   func(context.Context) (map[int]int, error)
		opt    readthrough.Option
		want   []readthrough.Result[int] // nil: a panic
		err    error                     // of both, if want is nil and nothing panics
		stored []string
	}{
		"error":     {load: func(context.Context) (map[int]int, error) { return map[int]int{1: 1}, failure }, err: failure},
		"nothing":   {load: func(context.Context) (map[int]int, error) { return nil, nil }, err: readthrough.ErrNotFound},
		"not found": {load: func(context.Context) (map[int]int, error) { return nil, errNone }, opt: notFound, err: errNone, stored: []string{"row:1", "row:2"}},
		"too few":   {load: lacks2, want: []readthrough.Result[int]{{Value: 1}, {Err: readthrough.ErrNotFound}}, stored: []string{"row:1"}},
		"too few, with not-found": {load: lacks2, opt: notFound, want: []readthrough.Result[int]{{Value: 1}, {Err: errNone}},
			stored: []string{"row:1", "row:2"}},
		"foreign": {load: func(context.Context) (map[int]int, error) { return map[int]int{0: 5, 1: 1, 2: 4, 3: 7}, nil },
			want: []readthrough.Result[int]{{Value: 1}, {Value: 4}}, stored: []string{"row:1", "row:2"}},
		"timeout": {load: func(ctx context.Context) (map[int]int, error) { <-ctx.Done(); return nil, ctx.Err() },
			opt: readthrough.WithLoadTimeout(time.Second), err: context.DeadlineExceeded},
		"panic": {load: func(context.Context) (map[int]int, error) { panic(failure) }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				began, goOn := make(chan struct{}), make(chan struct{})
				opts := []readthrough.Option{readthrough.WithBatchLoader(func(ctx context.Context, _ []int) (map[int]int, error) {
					close(began)
					<-goOn
					return row.load(ctx)
				})}
				if row.opt != nil {
					opts = append(opts, row.opt)
				}
				rows := wrapper(t, b.cache(t), constant(-1), opts...)
				many := asResults(2, func() ([]readthrough.Result[int], error) { return rows.GetMany(context.Background(), []int{1, 2}) })
				<-began
				joined := asResults(1, func() ([]readthrough.Result[int], error) {
					v, err := rows.Get(context.Background(), 2)
					return []readthrough.Result[int]{{Value: v, Err: err}}, nil
				})
				synctest.Wait()
				close(goOn)
				got := append(<-many, <-joined...)
				switch {
				case row.want != nil:
					require.Equal(t, append(row.want, row.want[1]), got)
				case row.err != nil:
					require.Len(t, got, 3)
					for _, r := range got {
						require.ErrorIs(t, r.Err, row.err)
					}
				default:
					require.Len(t, got, 2, "a panic of each call")
					for _, r := range got {
						require.IsType(t, &readthrough.PanicError{}, r.Err)
						require.ErrorIs(t, r.Err, failure)
					}
				}
				requireNoLeases(t, b.redis)
				require.ElementsMatch(t, row.stored, entriesIn(b.redis))
			})
		})
	}
}

// asResults makes a call for n keys on a goroutine of its own. Its error comes as that of each key,
// a panic as that of a single one.
func asResults(n int, call func() ([]readthrough.Result[int], error)) <-chan []readthrough.Result[int] {
	got := make(chan []readthrough.Result[int], 1)
	go func() { // ends with its call
		defer func() {
			if p := recover(); p != nil {
				got <- []readthrough.Result[int]{{Err: p.(error)}}
			}
		}()
		results, err := call()
		if err != nil {
			results = slices.Repeat([]readthrough.Result[int]{{Err: err}}, n)
		}
		got <- results
	}()
	return got
}

func TestGetMany_ReturnsErrorOfEachKeyWhenBatchLoaderCallsGoexit(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant(-1), readthrough.WithBatchLoader(func(context.Context, []int) (map[int]int, error) {
		runtime.Goexit()
		return nil, nil
	}))
	results, err := rows.GetMany(t.Context(), []int{1, 2})
	require.NoError(t, err)
	for _, r := range results {
		require.ErrorContains(t, r.Err, "Goexit")
	}
	require.Empty(t, server.Keys())
}

func TestGetMany_LosesOnlyFillsOfKeysWrittenMeanwhile(t *testing.T) {
	cache, server := newCache(t)
	loader := gatedSquares()
	rows := loader.wrap(t, cache)
	got := make(chan []readthrough.Result[int])
	ids := upTo(0, 10)
	go func() { results, _ := rows.GetMany(context.Background(), ids); got <- results }()
	<-loader.began
	require.NoError(t, rows.Invalidate(t.Context(), 1))
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{2: -2, 3: -3})))
	close(loader.goOn)
	require.Equal(t, squaresOf(ids), <-got, "it began before the writes")
	requireNoLeases(t, server)
	require.False(t, server.Exists("row:1"))
	for _, id := range []int{2, 3} {
		v, err := rows.Peek(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, -id, v)
	}
	require.Len(t, server.Keys(), 9)
	require.EqualValues(t, 7, rows.Stats().Fills)
	require.EqualValues(t, 3, rows.Stats().RefusedFills)
}

func TestGetMany_TakesKeysThatCannotBeCompared(t *testing.T) {
	cache, _ := newCache(t)
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(_ context.Context, path []string) (int, error) { return len(path), nil },
		func(path []string) string { return strings.Join(path, "/") }))
	results, err := rows.GetMany(t.Context(), [][]string{{"a"}, {"a", "b"}, {"a"}, nil})
	require.NoError(t, err)
	require.Equal(t, []readthrough.Result[int]{{Value: 1}, {Value: 2}, {Value: 1}, {Err: readthrough.ErrEmptyKey}}, results)
}

func TestGetMany_AnswersFromBatchLoaderWhileRedisIsDown(t *testing.T) {
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
