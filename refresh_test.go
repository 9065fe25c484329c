package readthrough_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestAnEarlyRefreshIsOneInTheFleetAndInTheBackground(t *testing.T) {
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

func TestAHitThatFailsToRefreshEarlyIsStillAHit(t *testing.T) {
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

// staleRows fills rows 1 to n of rt and lets them become stale.
func staleRows(t *testing.T, rt *rows, n int) (ks []int) {
	t.Helper()
	for k := 1; k <= n; k++ {
		require.NoError(t, ask(t.Context(), rt, k).err)
		ks = append(ks, k)
	}
	pass(ttl)
	return ks
}

func TestRefreshesBeyondTheirNumberAreSkippedAndCounted(t *testing.T) {
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

func TestTheRefreshesOfOneGetManyTakeOnePlace(t *testing.T) {
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

func TestARefreshHasTheValuesOfItsReaderButNotItsEnd(t *testing.T) {
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

// closing is a Cache whose refresh is under way for a minute.
func closing(t *testing.T, b *bubble, deaf bool) (*readthrough.Cache, *database) {
	t.Helper()
	db := &database{version: 1, deaf: deaf}
	cache := b.cache(t)
	rt := wrapper(t, cache, db.load, readthrough.WithLoadTimeout(time.Hour))
	staleRows(t, rt, 1)
	db.change(func(d *database) { d.takes = time.Minute })
	requireValue(t, rt, 1, readthrough.SourceStale)
	require.Len(t, db.loads(), 2)
	return cache, db
}

func TestCloseCancelsRefreshesAndWaitsForThem(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, db := closing(t, b, false)
		began := time.Now()
		require.NoError(t, cache.Close())
		require.Zero(t, time.Since(began))
		require.Zero(t, db.running)
		require.False(t, b.redis.Exists("{row:1}:lease"), "given back")
		require.Zero(t, cache.Stats().LoadErrors, "no fault of the loader's")
	})
}

func TestCloseDoesNotWaitForeverForALoaderThatIsDeaf(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, db := closing(t, b, true)
		began := time.Now()
		require.ErrorIs(t, cache.Close(), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		pass(time.Minute)
		require.Zero(t, db.running)
	})
}

func TestShutdownWaitsAsLongAsItsCallerDoes(t *testing.T) {
	for name, limit := range map[string]time.Duration{"less than Close": 2 * time.Second, "longer than Close": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				cache, _ := closing(t, b, true)
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				began := time.Now()
				err := cache.Shutdown(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "still under way")
				require.Equal(t, limit, time.Since(began))
				pass(time.Minute)
			})
		})
	}
	t.Run("long enough", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			cache, db := closing(t, b, true)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			began := time.Now()
			require.NoError(t, cache.Shutdown(ctx))
			require.Equal(t, time.Minute, time.Since(began))
			require.Zero(t, db.running)
		})
	})
}

func TestLoadLimitIsNeverExceeded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const limit, callers = 3, 20
		db := &database{version: 1, takes: time.Second}
		rt := b.process(t, db, readthrough.WithLoadLimit(limit))
		var answers []<-chan answer
		for k := range callers / 2 {
			answers = append(answers, asking(t.Context(), rt, k))
		}
		var many []int
		for k := callers / 2; k < callers; k++ {
			many = append(many, k)
		}
		results, err := rt.GetMany(t.Context(), many)
		require.NoError(t, err)
		for _, result := range results {
			require.Equal(t, readthrough.Result[int]{Value: 1}, result)
		}
		for _, each := range answers {
			got := <-each
			require.NoError(t, got.err)
		}
		began := db.loads()
		require.Len(t, began, callers)
		require.Equal(t, limit, db.most)
		require.Equal(t, (callers-1)/limit*time.Second, began[callers-1].Sub(began[0]), "no turn is lost")
	})
}

func TestLoadLimitHoldsForALoaderThatIsDeafToItsTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: 10 * time.Second, deaf: true}
		rt := b.process(t, db, readthrough.WithLoadLimit(1), readthrough.WithLoadTimeout(time.Second))
		got := ask(t.Context(), rt, 1)
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.Equal(t, time.Second, got.took)

		db.change(func(d *database) { d.takes = 0 })
		got = ask(t.Context(), rt, 2)
		require.NoError(t, got.err)
		require.Equal(t, 9*time.Second, got.took, "the turn ends with the loader")
		require.Equal(t, 1, db.most)
	})
}

func TestWhoWaitsForATurnCanLeave(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: 10 * time.Second}
		rt := b.process(t, db, readthrough.WithLoadLimit(1))
		first := asking(t.Context(), rt, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := ask(ctx, rt, 2)
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.Equal(t, time.Second, got.took)
		require.NoError(t, (<-first).err)
		require.Len(t, db.loads(), 1, "who has left takes no turn")
		require.Zero(t, rt.Stats().LoadErrors)
		require.False(t, b.redis.Exists("{row:2}:lease"), "given back")
	})
}

func TestWhoHasAStaleValueWaitsForNoTurn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db, readthrough.WithLoadLimit(1), readthrough.WithPatience(time.Second))
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		pass(ttl)
		db.change(func(d *database) { d.version, d.takes = 2, 10*time.Second })
		first := asking(t.Context(), rt, 2)
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Equal(t, 10*time.Second, (<-first).took)
		pass(10 * time.Second)
		require.Len(t, db.loads(), 3, "its refresh has waited")
		requireValue(t, rt, 2, readthrough.SourceHit)
	})
}

func TestTheLeaseIsKeptWhileItsHolderWaitsForATurn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const lease = 300 * time.Millisecond
		db := &database{version: 1, takes: 3 * time.Second} // both are less than the other waits
		opts := []readthrough.CacheOption{readthrough.WithLoadLimit(1), readthrough.WithLeaseTTL(lease)}
		busy, idle := b.process(t, db, opts...), b.process(t, db, opts...)
		first := asking(t.Context(), busy, 1)
		second := asking(t.Context(), busy, 2)
		token, err := b.redis.Get("{row:2}:lease")
		require.NoError(t, err)
		other := asking(t.Context(), idle, 2)
		for range 20 {
			pass(100 * time.Millisecond)
			held, err := b.redis.Get("{row:2}:lease")
			require.NoError(t, err)
			require.Equal(t, token, held)
		}
		require.NoError(t, (<-first).err)
		require.NoError(t, (<-second).err)
		got := <-other
		require.NoError(t, got.err)
		require.Equal(t, readthrough.SourceShared, got.info.Source)
		require.Len(t, db.loads(), 2)
	})
}

func TestNumbersOutOfRangeAreNamed(t *testing.T) {
	batch := readthrough.WithBatchLoader(func(context.Context, []int) (map[int]int, error) { return nil, nil })
	for name, row := range map[string]struct {
		good, bad []readthrough.CacheOption
	}{
		"WithLoadLimit": {
			good: []readthrough.CacheOption{readthrough.WithLoadLimit(0), readthrough.WithLoadLimit(1)},
			bad:  []readthrough.CacheOption{readthrough.WithLoadLimit(-1)},
		},
		"WithMaxRefreshes": {
			good: []readthrough.CacheOption{readthrough.WithMaxRefreshes(1)},
			bad:  []readthrough.CacheOption{readthrough.WithMaxRefreshes(0), readthrough.WithMaxRefreshes(-1)},
		},
		"WithBatchSize": {
			good: []readthrough.CacheOption{readthrough.WithBatchSize(1)},
			bad:  []readthrough.CacheOption{readthrough.WithBatchSize(0), readthrough.WithBatchSize(-1)},
		},
		"WithGather": {
			good: []readthrough.CacheOption{readthrough.WithGather(0, 1), readthrough.WithGather(time.Millisecond, 1)},
			bad: []readthrough.CacheOption{
				readthrough.WithGather(-1, 1), readthrough.WithGather(time.Millisecond, 0), readthrough.WithGather(0, -1),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				for _, opt := range row.good {
					wrapper(t, b.cache(t, opt), constant(1), batch)
				}
				client := b.client(t)
				for _, opt := range row.bad {
					_, err := readthrough.NewCache(client, opt)
					require.ErrorContains(t, err, name)
					if opt, ok := opt.(readthrough.Option); ok {
						_, err = readthrough.New(b.cache(t), "row", constant(1), readthrough.Int, batch, opt)
						require.ErrorContains(t, err, name)
					}
				}
			})
		})
	}
}

func TestGatherNeedsABatchLoader(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		gather := readthrough.WithGather(time.Millisecond, 10)
		_, err := readthrough.New(b.cache(t), "row", constant(1), readthrough.Int, gather)
		require.ErrorContains(t, err, "WithGather")
		require.ErrorContains(t, err, "WithBatchLoader")
		_, err = readthrough.New(b.cache(t, gather), "row", constant(1), readthrough.Int)
		require.ErrorContains(t, err, "WithGather")
		wrapper(t, b.cache(t), constant(1), readthrough.WithGather(0, 10)) // which is off
	})
}
