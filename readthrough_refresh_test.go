package readthrough_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestEarlyRefresh_RunsOnceInFleet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db, early := &database{version: 1, takes: time.Second}, readthrough.WithEarlyRefresh(1e9) // each hit refreshes
		fleet := []*rows{b.process(t, db, early), b.process(t, db, early)}
		require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
		db.change(func(d *database) { d.version = 2 })
		pass(ttl / 2)
		for range 20 {
			requireValue(t, fleet[0], 1, readthrough.SourceHit)
			requireValue(t, fleet[1], 1, readthrough.SourceHit)
		}
		require.Len(t, db.loads(), 2, "under one lease")
		pass(time.Second)
		requireValue(t, fleet[1], 2, readthrough.SourceHit)
	})
}

func TestEarlyRefresh_RunsInBackground(t *testing.T) {
	cache, _ := newCache(t)
	var loads atomic.Int64
	rows := wrapper(t, cache, func(context.Context, int) (int64, error) {
		began := time.Now()
		for time.Since(began) < 2*time.Millisecond { // a load time that the entry can hold
			runtime.Gosched()
		}
		return loads.Add(1), nil
	}, readthrough.WithEarlyRefresh(1e12))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v, "the hit does not wait")
	require.Eventually(t, func() bool { return loads.Load() > 1 }, 5*time.Second, time.Millisecond)
}

func TestEarlyRefresh_LeavesHitWhenItFails(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: time.Second}
		rt := b.process(t, db, readthrough.WithEarlyRefresh(1e9))
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		db.change(func(d *database) { d.err, d.takes = errDown, 0 })
		for range 3 {
			requireValue(t, rt, 1, readthrough.SourceHit)
			require.Len(t, db.loads(), 2, "the next attempt waits")
		}
		pass(time.Second)
		requireValue(t, rt, 1, readthrough.SourceHit)
		require.Len(t, db.loads(), 3)
	})
}

func TestMaxRefreshes_SkipsAndCountsTheRest(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db, seen := &database{version: 1}, &recorder{kinds: map[readthrough.EventKind]readthrough.Event{}}
		rt := b.process(t, db, readthrough.WithMaxRefreshes(2), readthrough.WithObserver(seen))
		ks := staleRows(t, rt, 5)
		db.change(func(d *database) { d.version, d.takes = 2, time.Second })
		for _, k := range ks {
			got := ask(t.Context(), rt, k)
			require.Equal(t, answer{1, got.info, nil, 0}, got)
		}
		require.Len(t, db.loads(), 5+2)
		require.EqualValues(t, []int64{2, 3}, []int64{rt.Stats().Refreshes, rt.Stats().SkippedRefreshes})
		seen.mu.Lock()
		require.Equal(t, readthrough.Event{Wrapper: "row", Key: "row:5", Kind: readthrough.EventSkipped}, seen.kinds[readthrough.EventSkipped])
		seen.mu.Unlock()

		pass(time.Second) // the two have ended, and given their places to others
		for _, k := range ks {
			ask(t.Context(), rt, k)
		}
		require.Len(t, db.loads(), 5+2+2)
		require.EqualValues(t, []int64{4, 4}, []int64{rt.Stats().Refreshes, rt.Stats().SkippedRefreshes})
	})
}

func TestMaxRefreshes_CountsGetManyAsOne(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db, readthrough.WithMaxRefreshes(1))
		ks := staleRows(t, rt, 5)
		db.change(func(d *database) { d.version = 2 })
		for range 3 { // a place that is not given back shows in the second round
			results, err := rt.GetMany(t.Context(), ks)
			require.NoError(t, err)
			for _, result := range results {
				require.NoError(t, result.Err)
			}
			synctest.Wait()
			results, err = rt.GetMany(t.Context(), ks)
			require.NoError(t, err)
			for _, result := range results {
				require.Equal(t, readthrough.Result[int]{Value: 2}, result)
			}
			pass(ttl)
		}
		require.EqualValues(t, []int64{15, 0}, []int64{rt.Stats().Refreshes, rt.Stats().SkippedRefreshes})
	})
}

// ctxKey is the key of a value in a context.
type ctxKey struct{}

func TestBackgroundRefresh_HasContextValuesOfReaderButNotItsDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		version, seen := 1, make(chan context.Context, 1)
		rt := wrapper(t, b.cache(t), func(ctx context.Context, _ int) (int, error) {
			time.Sleep(time.Second)
			seen <- ctx
			return version, ctx.Err()
		})
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		<-seen
		version = 2
		pass(ttl)
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "trace"), time.Millisecond)
		defer cancel()
		require.Equal(t, 1, ask(ctx, rt, 1).value)
		cancel()
		pass(time.Second)
		loading := <-seen
		require.Equal(t, "trace", loading.Value(ctxKey{}))
		deadline, ok := loading.Deadline()
		require.True(t, ok)
		require.Greater(t, time.Until(deadline), 28*time.Second, "the load timeout")
		requireValue(t, rt, 2, readthrough.SourceHit)
	})
}
