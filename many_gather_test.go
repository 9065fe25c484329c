package readthrough_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// gathering returns a batch window that only its size ends.
func gathering(size int) readthrough.Option { return readthrough.WithGather(time.Hour, size) }

// getAll calls get for each of ids at the same time, and returns when it has got the square of
// each.
func getAll(t *testing.T, ids []int, get func(context.Context, int) (int, error)) {
	t.Helper()
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if v, err := get(t.Context(), id); err != nil || v != id*id {
				t.Errorf("%d: got %d, %v", id, v, err)
			}
		})
	}
	wg.Wait()
}

func TestGather_LoadsSingleGetsInOneBatch(t *testing.T) {
	for name, opts := range map[string][]readthrough.Option{
		"lease":      nil,
		"load limit": {readthrough.WithLoadLimit(1)},
	} {
		t.Run(name, func(t *testing.T) {
			cache, server := newCache(t)
			loader := &squares{}
			rows := loader.wrap(t, cache, append(opts, gathering(100))...)
			ids := upTo(0, 100)
			getAll(t, ids, rows.Get)
			require.Equal(t, []int{100}, loader.sizes(), "the size ends the window")
			require.Equal(t, ids, loader.asked())
			requireNoLeases(t, server)
			require.Len(t, server.Keys(), 100)
		})
	}
}

// TestGather_EndsWithWindow runs in fake time, and so without Redis: a dead one is no reason not to
// gather.
func TestGather_EndsWithWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := redis.NewClient(&redis.Options{
			MaxRetries: -1, DialerRetries: 1,
			Dialer:                   func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") },
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}, // else it looks names up
		})
		cache := readthrough.Must(readthrough.NewCache(client))
		loader := &squares{}
		rows := loader.wrap(t, cache, readthrough.WithGather(time.Minute, 1000))
		ids := upTo(0, 100)
		for range 2 {
			began := time.Now()
			getAll(t, append(ids, ids...), rows.Get) // those that come twice count once
			require.Equal(t, time.Minute, time.Since(began))
		}
		require.Equal(t, []int{100, 100}, loader.sizes())
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	})
}

func TestGather_IsOffWithoutWindow(t *testing.T) {
	cache, _ := newCache(t)
	rows := wrapper(t, cache, func(_ context.Context, id int) (int, error) { return id * id, nil },
		readthrough.WithBatchLoader(func(context.Context, []int) (map[int]int, error) {
			return nil, errors.New("the batch loader was called")
		}),
		readthrough.WithGather(0, 100))
	getAll(t, upTo(0, 10), rows.Get)
	require.EqualValues(t, 10, rows.Stats().Loads)
}

func TestGather_LetsCallerLeaveAtOnceWithoutHarm(t *testing.T) {
	for _, leaves := range []int{0, 1} { // the first, which waits for the window, and another
		inBubble(t, func(t *testing.T, b *bubble) {
			loader := &squares{}
			rows := loader.wrap(t, b.cache(t), gathering(4))
			ctx, cancel := context.WithCancel(t.Context())
			gone, stays := make(chan error), make(chan int)
			ask := []func(){
				func() { _, err := rows.Get(ctx, 1); gone <- err },
				func() { v, _ := rows.Get(context.Background(), 2); stays <- v },
			}
			go ask[leaves]()
			synctest.Wait()
			go ask[1-leaves]()
			synctest.Wait()
			cancel()
			require.ErrorIs(t, <-gone, context.Canceled)
			require.Empty(t, loader.sizes(), "the window is still open")
			getAll(t, []int{3, 4}, rows.Get)
			require.Equal(t, 4, <-stays)
			require.Len(t, loader.sizes(), 1)
			requireNoLeases(t, b.redis)
		})
	}
}

func TestGather_CancelsLoadWhenAllLeave(t *testing.T) {
	cache, server := newCache(t)
	loader := gatedSquares()
	rows := loader.wrap(t, cache, gathering(2))
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	for _, id := range []int{1, 2} {
		go func() { _, err := rows.Get(ctx, id); errs <- err }()
	}
	<-loader.began
	cancel()
	require.ErrorIs(t, <-errs, context.Canceled)
	require.ErrorIs(t, <-errs, context.Canceled)
	requireNoLeases(t, server)
	require.Empty(t, server.Keys())
	require.Zero(t, rows.Stats().LoadErrors)
}

func TestGather_GivesEachKeyItsError(t *testing.T) {
	failure := errors.New("database down")
	for name, row := range map[string]struct {
		load func(map[int]int) (map[int]int, error)
		want map[int]error
	}{
		"one is missing": {func(m map[int]int) (map[int]int, error) { delete(m, 2); return m, nil },
			map[int]error{1: nil, 2: readthrough.ErrNotFound, 3: nil}},
		"all fail": {func(map[int]int) (map[int]int, error) { return nil, failure }, map[int]error{1: failure, 2: failure, 3: failure}},
		"a panic":  {func(map[int]int) (map[int]int, error) { panic(failure) }, map[int]error{1: failure, 2: failure, 3: failure}},
	} {
		t.Run(name, func(t *testing.T) {
			cache, server := newCache(t)
			rows := wrapper(t, cache, constant(-1), gathering(3), readthrough.WithBatchLoader(func(_ context.Context, ids []int) (map[int]int, error) {
				m := map[int]int{}
				for _, id := range ids {
					m[id] = id * id
				}
				return row.load(m)
			}))
			var wg sync.WaitGroup
			for id, want := range row.want {
				wg.Go(func() {
					v, err := 0, error(nil)
					func() {
						defer func() {
							if p := recover(); p != nil {
								err = p.(*readthrough.PanicError)
							}
						}()
						v, err = rows.Get(t.Context(), id)
					}()
					if !errors.Is(err, want) || err == nil && v != id*id {
						t.Errorf("%d: got %d, %v", id, v, err)
					}
				})
			}
			wg.Wait()
			requireNoLeases(t, server)
			stored := 0
			for _, want := range row.want {
				if want == nil {
					stored++
				}
			}
			require.Len(t, server.Keys(), stored)
		})
	}
}

func TestGather_TakesRefreshes(t *testing.T) {
	cache, server := newCache(t)
	loader := &squares{}
	rows := loader.wrap(t, cache, gathering(10))
	ids := upTo(0, 10)
	for _, id := range ids {
		require.NoError(t, rows.Set(t.Context(), id, -1))
	}
	getAll(t, ids, rows.Refresh)
	require.Equal(t, []int{10}, loader.sizes())
	getAll(t, ids, rows.Peek)
	requireNoLeases(t, server)
}

func TestGather_TakesRefreshesOfStaleValues(t *testing.T) {
	cache, server := newCache(t)
	loader := &squares{}
	rows := loader.wrap(t, cache, gathering(10), readthrough.WithStale(time.Hour))
	ids := upTo(0, 10)
	for _, id := range ids {
		require.NoError(t, rows.Set(t.Context(), id, id*id))
	}
	require.NoError(t, rows.Expire(t.Context(), ids...))
	getAll(t, ids, rows.Get)
	require.EqualValues(t, 10, rows.Stats().StaleHits, "nobody waits")
	require.Eventually(t, func() bool { return rows.Stats().Fills == 10 }, 5*time.Second, time.Millisecond)
	require.Equal(t, []int{10}, loader.sizes())
	requireNoLeases(t, server)
}

func TestGetMany_RefreshesItsStaleKeysTogether(t *testing.T) {
	cache, server := newCache(t, readthrough.WithMaxRefreshes(1))
	loader := &squares{}
	rows := loader.wrap(t, cache, readthrough.WithStale(time.Hour))
	ids := upTo(0, 10)
	for range 2 {
		require.NoError(t, rows.SetMany(t.Context(), func(yield func(int, int) bool) {
			for _, id := range ids {
				if !yield(id, id*id) {
					return
				}
			}
		}))
		before := rows.Stats().Fills
		require.NoError(t, rows.Expire(t.Context(), ids...))
		results, err := rows.GetMany(t.Context(), append(ids, ids...))
		require.NoError(t, err)
		require.Equal(t, append(squaresOf(ids), squaresOf(ids)...), results)
		require.Eventually(t, func() bool { return rows.Stats().Fills == before+10 }, 5*time.Second, time.Millisecond)
		requireNoLeases(t, server)
	}
	require.Equal(t, []int{10, 10}, loader.sizes())
	require.Zero(t, rows.Stats().SkippedRefreshes, "a refresh of many is one, and gives its place back")
}

// TestGather_LoadsBatchesOfLargeGroupSideBySide fails by its deadline if the second batch waits for
// the first, whose callers have nothing to do with it.
func TestGather_LoadsBatchesOfLargeGroupSideBySide(t *testing.T) {
	cache, _ := newCache(t)
	loader := gatedSquares()
	rows := loader.wrap(t, cache, gathering(2), readthrough.WithBatchSize(1))
	done := make(chan struct{})
	go func() { getAll(t, []int{1, 2}, rows.Get); close(done) }()
	<-loader.began
	select {
	case <-loader.began:
	case <-time.After(5 * time.Second):
		t.Error("the second batch waits for the first")
	}
	close(loader.goOn)
	<-done
	require.Equal(t, []int{1, 2}, loader.asked())
}

func TestGather_StartsAnewAfterInvalidation(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, loader := b.cache(t), gatedSquares()
		rows := loader.wrap(t, cache, gathering(2))
		done := make(chan struct{}, 2)
		get := func() { getAll(t, []int{1, 2}, rows.Get); done <- struct{}{} }
		go get()
		<-loader.began
		require.NoError(t, cache.Delete(t.Context(), "row:1", "row:2"))
		go get() // joins the load that is under way
		synctest.Wait()
		close(loader.goOn)
		<-done
		<-done
		require.Equal(t, slices.Repeat([]int{2}, 2), loader.sizes())
		require.EqualValues(t, 2, rows.Stats().RefusedFills)
		requireNoLeases(t, b.redis)
	})
}
