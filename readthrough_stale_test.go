package readthrough_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestStale_IsServedAtOnceAndRefreshedOnceInFleet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: time.Second}
		fleet := []*rows{b.process(t, db), b.process(t, db)}
		require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
		db.change(func(d *database) { d.version = 2 })

		pass(ttl - time.Millisecond)
		requireValue(t, fleet[1], 1, readthrough.SourceHit)
		pass(time.Millisecond)
		var answers []<-chan answer
		for range 20 {
			answers = append(answers, asking(t.Context(), fleet[0], 1), asking(t.Context(), fleet[1], 1))
		}
		for _, each := range answers {
			got := <-each
			require.NoError(t, got.err)
			require.Equal(t, 1, got.value)
			require.Equal(t, readthrough.SourceStale, got.info.Source)
			require.Zero(t, got.took)
		}
		require.Len(t, db.loads(), 2, "one of them refreshes")
		pass(time.Second)
		for _, rt := range fleet {
			requireValue(t, rt, 2, readthrough.SourceHit)
			require.EqualValues(t, 20, rt.Stats().StaleHits)
		}
		require.Len(t, db.loads(), 2)
	})
}

func TestStale_OutlivesFailedRefreshWhichIsReported(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db, seen := &database{version: 1}, &recorder{kinds: map[readthrough.EventKind]readthrough.Event{}}
		rt := b.process(t, db, readthrough.WithObserver(seen))
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		db.change(func(d *database) { d.err = errDown })

		pass(ttl)
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 2)
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 2, "the next attempt waits")
		stats := rt.Stats()
		require.EqualValues(t, []int64{2, 1, 1, 1}, []int64{stats.StaleHits, stats.LoadErrors, stats.Refreshes, stats.Fills})
		seen.mu.Lock()
		defer seen.mu.Unlock()
		require.Equal(t, readthrough.Event{Wrapper: "row", Key: "row:1", Kind: readthrough.EventLoadError, Err: errDown}, seen.kinds[readthrough.EventLoadError])
	})
}

func TestStale_ForgetsFailuresOnceLoadSucceeds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db)
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		for range 3 {
			db.change(func(d *database) { d.err = errDown })
			pass(ttl)
			requireValue(t, rt, 1, readthrough.SourceStale)
			pass(time.Second) // the first pause, each time
			db.change(func(d *database) { d.err = nil })
			requireValue(t, rt, 1, readthrough.SourceStale)
			synctest.Wait()
			requireValue(t, rt, 1, readthrough.SourceHit)
		}
	})
}

// readEvery reads row 1 from each of the fleet again and again for a time, and hands each answer to
// check.
func readEvery(t *testing.T, step, total time.Duration, fleet []*rows, check func(answer)) {
	t.Helper()
	for until := time.Now().Add(total); time.Now().Before(until); pass(step) {
		for _, rt := range fleet {
			check(ask(t.Context(), rt, 1))
		}
	}
}

func TestStale_DoublesPauseAfterFailedRefreshUpToTTL(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const step = 50 * time.Millisecond
		db := &database{version: 1}
		rt := b.process(t, db)
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		db.change(func(d *database) { d.err = errDown })
		pass(ttl)
		readEvery(t, step, staleFor-step, []*rows{rt}, func(got answer) { require.NoError(t, got.err) })

		failures := db.loads()[1:]
		want := []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, ttl, ttl, ttl, ttl}
		require.Len(t, failures, len(want)+1)
		for i, pause := range want {
			got := failures[i+1].Sub(failures[i])
			require.GreaterOrEqual(t, got, pause)
			require.LessOrEqual(t, got, pause+step, "pause %d", i)
		}
	})
}

func TestStale_AnswersEveryReadThroughLoaderOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const step, outage = 50 * time.Millisecond, time.Minute
		db := &database{version: 1}
		fleet := []*rows{b.process(t, db), b.process(t, db)}
		require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
		db.change(func(d *database) { d.version, d.err = 2, errDown })
		readEvery(t, step, outage, fleet, func(got answer) {
			require.NoError(t, got.err)
			require.Equal(t, 1, got.value)
			require.Zero(t, got.took)
		})
		// 50 seconds of the minute are stale: attempts at 0, 1, 3, 7, 15, 25, 35 and 45 seconds, in
		// each process.
		require.LessOrEqual(t, len(db.loads()), 1+2*8)
		require.GreaterOrEqual(t, len(db.loads()), 1+8)

		db.change(func(d *database) { d.err = nil })
		recovered := time.Now()
		var fresh time.Time
		readEvery(t, step, ttl+step, fleet, func(got answer) {
			require.NoError(t, got.err)
			if got.value == 2 && fresh.IsZero() {
				fresh = time.Now()
			}
		})
		require.False(t, fresh.IsZero(), "fresh within one pause")
		require.LessOrEqual(t, fresh.Sub(recovered), ttl+step)
	})
}

func TestStale_IsNotServedPastItsWindow(t *testing.T) {
	for name, patience := range map[string]time.Duration{"at once": 0, "with patience": time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				db := &database{version: 1}
				rt := b.process(t, db, readthrough.WithPatience(patience))
				require.Equal(t, 1, ask(t.Context(), rt, 1).value)
				db.change(func(d *database) { d.err = errDown })
				pass(ttl + staleFor - time.Millisecond)
				requireValue(t, rt, 1, readthrough.SourceStale)
				pass(time.Millisecond)
				got := ask(t.Context(), rt, 1)
				require.ErrorIs(t, got.err, errDown)
				require.Equal(t, readthrough.Info{}, got.info)
			})
		})
	}
}

func TestStale_IsServedWithinReadersOwnWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		lenient, strict := b.process(t, db), b.process(t, db, readthrough.WithStale(staleFor/2))
		require.Equal(t, 1, ask(t.Context(), lenient, 1).value)
		db.change(func(d *database) { d.err = errDown })
		pass(ttl + staleFor/2 - time.Millisecond)
		requireValue(t, strict, 1, readthrough.SourceStale)
		pass(time.Millisecond)
		require.ErrorIs(t, ask(t.Context(), strict, 1).err, errDown)
		requireValue(t, lenient, 1, readthrough.SourceStale)
	})
}

func TestStale_IsReplacedByNotFound(t *testing.T) {
	errNone := errors.New("none")
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db, readthrough.WithNotFound(ttl, errNone))
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		db.change(func(d *database) { d.err = errNone })

		pass(ttl)
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 2)
		got := ask(t.Context(), rt, 1)
		require.Equal(t, errNone, got.err)
		require.Equal(t, readthrough.SourceNegative, got.info.Source)
		require.Zero(t, rt.Stats().LoadErrors)

		db.change(func(d *database) { d.version, d.err = 2, nil })
		pass(ttl)
		got = ask(t.Context(), rt, 1)
		require.Equal(t, errNone, got.err, "a negative entry is served stale too")
		require.Equal(t, readthrough.SourceStale, got.info.Source)
		require.Len(t, db.loads(), 3)
		requireValue(t, rt, 2, readthrough.SourceHit)
	})
}

const patience = 200 * time.Millisecond

// aged returns a wrapper with patience, whose row 1 is stale in version 1, of a database in version
// 2.
func aged(t *testing.T, b *bubble) (*database, *rows) {
	t.Helper()
	db := &database{version: 1}
	rt := b.process(t, db, readthrough.WithPatience(patience))
	require.Equal(t, 1, ask(t.Context(), rt, 1).value)
	db.change(func(d *database) { d.version = 2 })
	pass(ttl)
	return db, rt
}

func TestPatience_WaitsForFastLoad(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db, rt := aged(t, b)
		db.change(func(d *database) { d.takes = patience - time.Millisecond })
		got := ask(t.Context(), rt, 1)
		require.NoError(t, got.err)
		require.Equal(t, 2, got.value)
		require.Equal(t, readthrough.SourceLoaded, got.info.Source)
		require.Equal(t, patience-time.Millisecond, got.took)
		require.Zero(t, rt.Stats().StaleHits)
	})
}

func TestPatience_EndsWithStaleValueWhileLoadGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db, rt := aged(t, b)
		db.change(func(d *database) { d.takes = time.Second })
		early := asking(t.Context(), rt, 1)
		pass(patience / 2)
		late := asking(t.Context(), rt, 1)
		for _, each := range []<-chan answer{early, late} {
			got := <-each
			require.NoError(t, got.err)
			require.Equal(t, 1, got.value)
			require.Equal(t, readthrough.SourceStale, got.info.Source)
			require.Equal(t, patience, got.took, "each has patience of his own")
		}
		require.EqualValues(t, 2, rt.Stats().StaleHits)
		pass(time.Second - patience*3/2)
		requireValue(t, rt, 2, readthrough.SourceHit)
		require.Len(t, db.loads(), 2)
		require.EqualValues(t, 2, rt.Stats().Fills)
	})
}

func TestPatience_EndsWithFailedLoad(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db, rt := aged(t, b)
		db.change(func(d *database) { d.err, d.takes = errDown, time.Millisecond })
		got := ask(t.Context(), rt, 1)
		require.NoError(t, got.err)
		require.Equal(t, 1, got.value)
		require.Equal(t, readthrough.SourceStale, got.info.Source)
		require.Equal(t, time.Millisecond, got.took)
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 2, "the loader has just failed, and is spared")
		pass(time.Second)
		db.change(func(d *database) { d.err, d.takes = nil, 0 })
		requireValue(t, rt, 2, readthrough.SourceLoaded)
	})
}

func TestStale_IsNeverServedAfterInvalidate(t *testing.T) {
	for name, opts := range map[string][]readthrough.CacheOption{
		"at once": nil, "with patience": {readthrough.WithPatience(patience)}, "with early refresh": {readthrough.WithEarlyRefresh(1e9)},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				db := &database{version: 1, takes: time.Millisecond}
				fleet := []*rows{b.process(t, db, opts...), b.process(t, db, opts...)}
				require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
				pass(ttl)

				// The loader is down and its pause has begun.
				db.change(func(d *database) { d.err = errDown })
				require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
				pass(time.Millisecond)
				require.EqualValues(t, 1, fleet[0].Stats().LoadErrors)
				require.NoError(t, fleet[1].Invalidate(t.Context(), 1))
				for _, rt := range fleet {
					got := ask(t.Context(), rt, 1)
					require.ErrorIs(t, got.err, errDown)
					require.Equal(t, readthrough.SourceNone, got.info.Source)
				}
				db.change(func(d *database) { d.version, d.err = 2, nil })
				for _, rt := range fleet {
					require.Equal(t, 2, ask(t.Context(), rt, 1).value)
				}
			})
		})
	}
}

func TestStale_RefreshDoesNotBringBackInvalidated(t *testing.T) {
	for name, patience := range map[string]time.Duration{"at once": 0, "with patience": patience} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				db := &database{version: 1}
				opt := readthrough.WithPatience(patience)
				fleet := []*rows{b.process(t, db, opt), b.process(t, db, opt)}
				require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
				pass(ttl)
				db.change(func(d *database) { d.takes = 2 * time.Second })
				require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
				require.Len(t, db.loads(), 2, "the refresh reads version 1")

				db.change(func(d *database) { d.version, d.takes = 2, time.Second })
				require.NoError(t, fleet[1].Invalidate(t.Context(), 1))
				late := asking(t.Context(), fleet[0], 1)
				other := asking(t.Context(), fleet[1], 1)
				require.Equal(t, 2, (<-late).value)
				require.Equal(t, 2, (<-other).value)
				pass(2 * time.Second)
				require.EqualValues(t, 1, fleet[0].Stats().RefusedFills)
				requireValue(t, fleet[0], 2, readthrough.SourceHit)
				requireValue(t, fleet[1], 2, readthrough.SourceHit)
			})
		})
	}
}

func TestStale_IsServedWhileLoadRefreshesAndWhenItFails(t *testing.T) {
	cache, _ := newCache(t)
	var version atomic.Int64
	version.Store(1)
	loaded := make(chan struct{}, 9)
	rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int64, error) {
		defer func() { loaded <- struct{}{} }()
		if v := version.Load(); v > 0 {
			return v, nil
		}
		return 0, errors.New("database down")
	}, readthrough.Int, readthrough.WithTTL(time.Millisecond), readthrough.WithStale(time.Hour)))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	<-loaded
	version.Store(0)
	require.Eventually(t, func() bool {
		v, err := rows.Get(t.Context(), 1)
		return err == nil && v == 1 && rows.Stats().LoadErrors == 1
	}, 5*time.Second, time.Millisecond)
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v)
	require.EqualValues(t, 1, rows.Stats().LoadErrors, "the next attempt waits")
}

func TestPatience_GivesStaleValueWhileLoadBlocks(t *testing.T) {
	cache, _ := newCache(t)
	goOn := make(chan struct{}, 9)
	goOn <- struct{}{}
	var loads atomic.Int64
	rows := wrapper(t, cache, func(context.Context, int) (int64, error) { <-goOn; return loads.Add(1), nil },
		readthrough.WithTTL(5*time.Millisecond), readthrough.WithStale(time.Hour), readthrough.WithPatience(time.Millisecond))
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v)
	require.Eventually(t, func() bool {
		v, err := rows.Get(t.Context(), 1)
		return err == nil && v == 1 && rows.Stats().StaleHits > 0
	}, 5*time.Second, time.Millisecond)
	goOn <- struct{}{}
	require.Eventually(t, func() bool { return rows.Stats().Fills == 2 }, 5*time.Second, time.Millisecond)
}
