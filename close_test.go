package readthrough_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

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

// closing returns a Cache whose refresh is under way for a minute.
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

func TestClose_CancelsRefreshesAndWaitsForThem(t *testing.T) {
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

func TestClose_GivesUpOnLoaderThatIgnoresContext(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, db := closing(t, b, true)
		began := time.Now()
		require.ErrorIs(t, cache.Close(), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		pass(time.Minute)
		require.Zero(t, db.running)
	})
}

func TestShutdown_WaitsAsLongAsItsCaller(t *testing.T) {
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

// hook delays commands and pipelines of a client, and has those fail that it is told to.
type hook struct {
	delay atomic.Int64 // in nanoseconds
	fails atomic.Bool
}

func (h *hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		time.Sleep(time.Duration(h.delay.Load()))
		if h.fails.Load() {
			cmd.SetErr(errDown)
			return errDown
		}
		return next(ctx, cmd)
	}
}

func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		time.Sleep(time.Duration(h.delay.Load()))
		if !h.fails.Load() {
			return next(ctx, cmds)
		}
		for _, cmd := range cmds {
			cmd.SetErr(errDown)
		}
		return errDown
	}
}

// hooked returns a Cache whose client obeys a hook.
func (b *bubble) hooked(t *testing.T) (*readthrough.Cache, *hook) {
	t.Helper()
	client, h := b.client(t), new(hook)
	client.AddHook(h)
	return readthrough.Must(readthrough.NewCache(client)), h
}

// going runs call, which is under way once going returns: it waits for time to pass.
func going(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }() // ends with call
	synctest.Wait()
	return done
}

// TestClose_WaitsForCallsUnderWay has calls wait for each thing that a call can wait for.
func TestClose_WaitsForCallsUnderWay(t *testing.T) {
	each := func(_ context.Context, id int) (int, error) { time.Sleep(time.Second); return id * id, nil }
	get := func(rt *rows, id int) error {
		if v, err := rt.Get(context.Background(), id); v != id*id {
			return cmp.Or(err, errors.New("wrong value"))
		}
		return nil
	}
	getMany := func(rt *rows, ids []int) error {
		results, err := rt.GetMany(context.Background(), ids)
		for i, r := range results {
			if r.Err != nil || r.Value != ids[i]*ids[i] {
				return cmp.Or(r.Err, errors.New("wrong value"))
			}
		}
		return err
	}
	for name, row := range map[string]struct {
		opts  []readthrough.Option
		calls func(b *bubble, rt *rows) []<-chan error
		takes time.Duration // Close, which comes at once
	}{
		"load": {nil, func(_ *bubble, rt *rows) []<-chan error {
			return []<-chan error{going(func() error { return get(rt, 1) })}
		}, time.Second},
		"slot": {[]readthrough.Option{readthrough.WithLoadLimit(1)}, func(_ *bubble, rt *rows) (calls []<-chan error) {
			for id := range 3 {
				calls = append(calls, going(func() error { return get(rt, id) }))
			}
			return calls
		}, 3 * time.Second},
		"window": {[]readthrough.Option{readthrough.WithGather(2*time.Second, 10),
			readthrough.WithBatchLoader((&squares{}).load)}, func(_ *bubble, rt *rows) []<-chan error {
			return []<-chan error{going(func() error { return get(rt, 1) }), going(func() error { return get(rt, 2) })}
		}, 2 * time.Second},
		"lease": {nil, func(b *bubble, rt *rows) []<-chan error {
			_ = b.redis.Set("{row:1}:lease", "another process's")
			time.AfterFunc(1500*time.Millisecond, func() { b.redis.Del("{row:1}:lease") })
			return []<-chan error{going(func() error { return get(rt, 1) })}
		}, 2500 * time.Millisecond},
		"groups of GetMany": {nil, func(_ *bubble, rt *rows) []<-chan error {
			return []<-chan error{going(func() error { return getMany(rt, upTo(0, 40)) })}
		}, 3 * time.Second},
		"batches of GetMany": {[]readthrough.Option{readthrough.WithBatchSize(1), readthrough.WithBatchLoader(func(_ context.Context, ids []int) (map[int]int, error) {
			time.Sleep(time.Second)
			return map[int]int{ids[0]: ids[0] * ids[0]}, nil
		})}, func(_ *bubble, rt *rows) []<-chan error {
			return []<-chan error{going(func() error { return getMany(rt, upTo(0, 10)) })}
		}, 3 * time.Second},
		"refresh": {nil, func(_ *bubble, rt *rows) []<-chan error {
			return []<-chan error{going(func() error { _, err := rt.Refresh(context.Background(), 1); return err })}
		}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				cache := b.cache(t)
				rt := wrapper(t, cache, each, row.opts...)
				calls := row.calls(b, rt)
				began := time.Now()
				require.NoError(t, cache.Close())
				require.InDelta(t, row.takes, time.Since(began), float64(100*time.Millisecond), "another process's lease is looked for now and then")
				for _, call := range calls {
					require.NoError(t, <-call)
				}
				require.Empty(t, leasesIn(b.redis))
				require.NotEmpty(t, b.redis.Keys(), "what was loaded is stored")
			})
		})
	}
}

// TestClose_WaitsForAllChunksOfCallUnderWay has Close begin during the first chunk of three.
func TestClose_WaitsForAllChunksOfCallUnderWay(t *testing.T) {
	for name, call := range map[string]func(rt *rows, pause func()) error{
		"Warm": func(rt *rows, pause func()) error {
			go pause()
			done, err := rt.Warm(context.Background(), slices.Values(upTo(0, 2500)))
			if done.Loaded != 2500 {
				return cmp.Or(err, errors.New("not all were loaded"))
			}
			return err
		},
		"Each": func(rt *rows, pause func()) error {
			go pause()
			for _, r := range rt.Each(context.Background(), slices.Values(upTo(0, 2500))) {
				if r.Err != nil {
					return r.Err
				}
			}
			return nil
		},
		"SetMany": func(rt *rows, pause func()) error {
			return rt.SetMany(context.Background(), func(yield func(int, int) bool) {
				for id := range 2500 {
					if id == 500 {
						pause()
					}
					if !yield(id, id) {
						return
					}
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			cache, server := newCache(t)
			loader := gatedSquares()
			rt := loader.wrap(t, cache)
			paused, called, closed := make(chan bool), make(chan error, 1), make(chan error, 1)
			go func() {
				called <- call(rt, func() {
					if name != "SetMany" {
						<-loader.began
					}
					close(paused)
					for { // until Close has begun
						if _, err := rt.Peek(context.Background(), -1); errors.Is(err, readthrough.ErrClosed) {
							break
						}
						time.Sleep(time.Millisecond)
					}
					close(loader.goOn)
				})
			}()
			<-paused
			go func() { closed <- cache.Shutdown(context.Background()) }()
			require.NoError(t, <-called)
			require.NoError(t, <-closed)
			require.Len(t, server.Keys(), 2500)
		})
	}
}

func TestClose_WaitsForCallsThatAskRedis(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, h := b.hooked(t)
		rt := wrapper(t, cache, (&database{version: 1}).load)
		h.delay.Store(int64(20 * time.Millisecond))
		var v int
		get := going(func() (err error) { v, err = rt.Get(t.Context(), 1); return err })
		write := going(func() error { return rt.Invalidate(t.Context(), 2) })
		require.NoError(t, cache.Close())
		require.NoError(t, <-get)
		require.Equal(t, 1, v)
		require.NoError(t, <-write)
	})
}

func TestClose_LetsLoadersUnderWayReadOn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache := b.cache(t)
		inner := readthrough.Must(readthrough.New(cache, "inner", (&database{version: 1}).load, readthrough.Int))
		outer := wrapper(t, cache, func(ctx context.Context, id int) (int, error) {
			time.Sleep(time.Second)
			if _, err := inner.Get(t.Context(), 3); !errors.Is(err, readthrough.ErrClosed) {
				return 0, errors.New("a call that is not the loader's was let in")
			}
			return inner.Get(ctx, id)
		})
		get := going(func() error { _, err := outer.Get(t.Context(), 1); return err })
		require.NoError(t, cache.Close())
		require.NoError(t, <-get)
	})
}

func TestClose_EndsWhileOthersKeepCalling(t *testing.T) {
	cache, _ := newCache(t)
	rt := wrapper(t, cache, constant(1))
	var wg sync.WaitGroup
	for id := range 8 {
		wg.Go(func() {
			for {
				_, err := rt.Get(context.Background(), id)
				if err == nil {
					err = rt.Invalidate(context.Background(), id)
				}
				if err != nil {
					if !errors.Is(err, readthrough.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	require.Eventually(t, func() bool { return rt.Stats().Invalidations > 100 }, 10*time.Second, time.Millisecond)
	require.NoError(t, cache.Close())
	wg.Wait()
}

func TestClose_WaitsForAnotherClose(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, _ := closing(t, b, true) // for a minute
		first := going(cache.Close)
		pass(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorContains(t, cache.Shutdown(ctx), "another Close")
		require.Equal(t, time.Second, time.Since(began))
		err := cache.Close()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 4*time.Second, time.Since(began), "it ends with the first")
		require.Equal(t, err, <-first)
		require.NoError(t, cache.Close(), "it has ended")
		pass(time.Minute)
	})
}

func TestClose_TriesWhatFailsMeanwhileLastTime(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, h := b.hooked(t)
		rt := wrapper(t, cache, (&database{version: 1}).load)
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		h.delay.Store(int64(50 * time.Millisecond))
		h.fails.Store(true)
		write := going(func() error { return rt.Invalidate(t.Context(), 1) })
		time.AfterFunc(51*time.Millisecond, func() { h.fails.Store(false) })
		require.NoError(t, cache.Close())
		require.ErrorIs(t, <-write, errDown)
		require.Empty(t, b.redis.Keys(), "the last attempt has reached Redis")
	})
}

// A write that outlasts Close is not retried, and says so.
func TestClose_LeavesNoInvalidationUnsaid(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, h := b.hooked(t)
		rt := wrapper(t, cache, (&database{version: 1}).load)
		h.delay.Store(int64(50 * time.Millisecond))
		h.fails.Store(true)
		write := going(func() error { return rt.Invalidate(t.Context(), 1) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, cache.Shutdown(ctx), context.DeadlineExceeded)
		for _, err := range []error{<-write, rt.Invalidate(t.Context(), 2), rt.Set(t.Context(), 3, 1), cache.Delete(t.Context(), "row:4")} {
			require.ErrorIs(t, err, readthrough.ErrClosed)
			require.ErrorContains(t, err, "not retried")
			var failed *readthrough.WriteError
			require.ErrorAs(t, err, &failed)
			require.Len(t, failed.Keys, 1)
		}
		require.Zero(t, cache.Stats().PendingInvalidations)
	})
}

func TestClose_RefusesLaterCalls(t *testing.T) {
	cache, _ := newCache(t)
	rows := wrapper(t, cache, constant("v"))
	require.NoError(t, cache.Close())
	_, err := rows.Get(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	_, err = rows.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	_, err = rows.Refresh(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	require.ErrorIs(t, rows.Set(t.Context(), 1, "v"), readthrough.ErrClosed)
	require.ErrorIs(t, rows.Invalidate(t.Context(), 1), readthrough.ErrClosed)
	_, err = readthrough.Get[string](t.Context(), cache, "k")
	require.ErrorIs(t, err, readthrough.ErrClosed)
}
