package readthrough_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

func TestInvalidate_RefusesFillOfOlderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
	row := newRow("old")
	reader := readthrough.Must(readthrough.New(caches[0], "row", row.load, readthrough.Int))
	writer := readthrough.Must(readthrough.New(caches[1], "row", func(context.Context, int) (string, error) {
		return row.Load().(string), nil
	}, readthrough.Int))

	early := make(chan string)
	go func() { v, _ := reader.Get(context.Background(), 1); early <- v }()
	<-row.reading
	row.Store("new")
	require.NoError(t, writer.Invalidate(t.Context(), 1))
	late := make(chan string)
	go func() { v, _ := reader.Get(context.Background(), 1); late <- v }()
	require.Eventually(t, func() bool { return reader.Stats().Misses == 2 }, 5*time.Second, time.Millisecond)
	close(row.goOn)

	require.Equal(t, "old", <-early, "it began before the invalidation")
	require.Equal(t, "new", <-late, "it joined the older load, in the same process")
	require.EqualValues(t, 1, reader.Stats().RefusedFills)
	v, err := writer.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

func TestSetMany_CostsTwoRoundTripsForEach1000(t *testing.T) {
	t.Parallel()
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
	require.EqualValues(t, 2*3, trips.Load()-before)
	results, err := rows.GetMany(t.Context(), upTo(0, 2500))
	require.NoError(t, err)
	require.Equal(t, squaresOf(upTo(0, 2500)), results)
	require.Empty(t, loader.sizes())
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{})))
}

func TestSetMany_NamesWhatItDoesNotStoreAndStoresTheRest(t *testing.T) {
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

func TestSetMany_InvalidatesWhatIsNotToBeKept(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant(0), readthrough.WithTTLFor(func(v int) time.Duration { return time.Duration(v) * time.Second }))
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{1: 60, 2: 60})))
	require.NoError(t, rows.SetMany(t.Context(), maps.All(map[int]int{1: 0, 2: 70, 3: -1})))
	require.Equal(t, []string{"row:2"}, server.Keys())
	v, err := rows.Peek(t.Context(), 2)
	require.NoError(t, err)
	require.Equal(t, 70, v)
}

// TestSetMany_StoresLastPairOfKey: pairs are set in their order.
func TestSetMany_StoresLastPairOfKey(t *testing.T) {
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

func TestExpire_LeavesValueToBeServedDuringOneRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: time.Second}
		fleet := []*rows{b.process(t, db), b.process(t, db)}
		require.Equal(t, 1, ask(t.Context(), fleet[0], 1).value)
		db.change(func(d *database) { d.version = 2 })
		require.NoError(t, fleet[0].Expire(t.Context(), 1))
		for range 5 {
			requireValue(t, fleet[0], 1, readthrough.SourceStale)
			requireValue(t, fleet[1], 1, readthrough.SourceStale)
		}
		require.Len(t, db.loads(), 2)
		pass(time.Second)
		requireValue(t, fleet[0], 2, readthrough.SourceHit)
		requireValue(t, fleet[1], 2, readthrough.SourceHit)
		require.EqualValues(t, 1, fleet[0].Stats().Invalidations)
	})
}

func TestExpire_KeepsValueNoLongerThanStaleWindow(t *testing.T) {
	for name, row := range map[string]struct {
		ttl, age, keep time.Duration
	}{
		"fresh":           {time.Hour, time.Minute, staleFor},
		"never to expire": {readthrough.NoExpiry, time.Minute, staleFor},
		"stale already":   {time.Minute, time.Minute + 45*time.Second, staleFor - 45*time.Second},
		"short":           {time.Second, 0, staleFor},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				rt := b.process(t, &database{version: 1}, readthrough.WithTTL(row.ttl))
				require.Equal(t, 1, ask(t.Context(), rt, 1).value)
				pass(row.age)
				require.NoError(t, rt.Expire(t.Context(), 1, 2))
				require.Equal(t, row.keep, b.redis.TTL("row:1"))
				require.False(t, b.redis.Exists("row:2"), "there was nothing")

				pass(row.keep - time.Millisecond)
				v, err := rt.Peek(t.Context(), 1)
				require.NoError(t, err)
				require.Equal(t, 1, v)
				pass(time.Millisecond)
				_, err = rt.Peek(t.Context(), 1)
				require.ErrorIs(t, err, readthrough.ErrMiss)
			})
		})
	}
}

func TestExpire_InvalidatesWithoutStaleWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db, readthrough.WithStale(0))
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		db.change(func(d *database) { d.version = 2 })
		require.NoError(t, rt.Expire(t.Context(), 1))
		require.Empty(t, b.redis.Keys())
		requireValue(t, rt, 2, readthrough.SourceLoaded)
	})
}

func TestExpire_RefusesFillOfOlderLoad(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db)
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		pass(ttl)
		db.change(func(d *database) { d.version, d.takes = 2, 2*time.Second })
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 2, "the refresh reads version 2")
		db.change(func(d *database) { d.version, d.takes = 3, 3*time.Second })
		require.NoError(t, rt.Expire(t.Context(), 1))
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 3, "the next read does not rely on the older load")

		pass(2 * time.Second)
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.EqualValues(t, []int64{1, 1}, []int64{rt.Stats().Fills, rt.Stats().RefusedFills})
		pass(time.Second)
		requireValue(t, rt, 3, readthrough.SourceHit)
	})
}

func TestExpire_TakesNegativeEntryLikeAnyOther(t *testing.T) {
	errNone := errors.New("none")
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{err: errNone}
		rt := b.process(t, db, readthrough.WithNotFound(time.Hour, errNone))
		require.Equal(t, errNone, ask(t.Context(), rt, 1).err)
		db.change(func(d *database) { d.version, d.err, d.takes = 2, nil, time.Second })
		require.NoError(t, rt.Expire(t.Context(), 1))
		require.Equal(t, staleFor, b.redis.TTL("row:1"))
		got := ask(t.Context(), rt, 1)
		require.Equal(t, errNone, got.err)
		require.Equal(t, readthrough.SourceStale, got.info.Source)
		pass(time.Second)
		requireValue(t, rt, 2, readthrough.SourceHit)
	})
}

func TestExpire_EndsPauseAfterFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db)
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		pass(ttl)
		db.change(func(d *database) { d.err = errDown })
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 2)
		db.change(func(d *database) { d.version, d.err = 2, nil })
		require.NoError(t, rt.Expire(t.Context(), 1))
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Len(t, db.loads(), 3)
		requireValue(t, rt, 2, readthrough.SourceHit)
	})
}

func TestExpire_NamesKeysThatFailedAndInvalidatesThemLater(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		cache := b.cache(t)
		rt := wrapper(t, cache, db.load)
		for k := range 3 {
			require.NoError(t, ask(t.Context(), rt, k).err)
		}
		b.redis.SetError("LOADING Redis is loading the dataset in memory")
		err := rt.Expire(t.Context(), 1, 2)
		require.ErrorContains(t, err, "expire row:1, row:2: LOADING")
		require.EqualValues(t, 2, cache.Stats().PendingInvalidations)
		b.redis.SetError("")
		pass(2 * time.Second)
		require.Zero(t, cache.Stats().PendingInvalidations)
		require.Equal(t, []string{"row:0"}, b.redis.Keys())
	})
}

// An empty key keeps the others from nothing.
func TestWrites_NameEmptyKeyAndDoTheRest(t *testing.T) {
	for name, write := range map[string]func(context.Context, *readthrough.Cache, *readthrough.ReadThrough[string, int]) error{
		"invalidate": func(ctx context.Context, _ *readthrough.Cache, rt *readthrough.ReadThrough[string, int]) error {
			return rt.Invalidate(ctx, "a", "", "b")
		},
		"expire": func(ctx context.Context, _ *readthrough.Cache, rt *readthrough.ReadThrough[string, int]) error {
			return rt.Expire(ctx, "a", "", "b")
		},
		"delete": func(ctx context.Context, cache *readthrough.Cache, _ *readthrough.ReadThrough[string, int]) error {
			keys := []string{"s:a", "", "s:b"}
			defer require.Equal(t, []string{"s:a", "", "s:b"}, keys, "the caller's own")
			return cache.Delete(ctx, keys...)
		},
		"set": func(ctx context.Context, _ *readthrough.Cache, rt *readthrough.ReadThrough[string, int]) error {
			return rt.SetMany(ctx, func(yield func(string, int) bool) { _ = yield("a", 2) && yield("", 2) && yield("b", 2) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				cache := b.cache(t)
				rt := readthrough.Must(readthrough.New(cache, "s", func(context.Context, string) (int, error) { return 1, nil }, readthrough.String))
				for _, k := range []string{"a", "b"} {
					_, err := rt.Get(t.Context(), k)
					require.NoError(t, err)
				}
				err := write(t.Context(), cache, rt)
				require.ErrorIs(t, err, readthrough.ErrEmptyKey)
				require.ErrorContains(t, err, "the key is empty")
				for _, k := range []string{"a", "b"} {
					v, info, err := rt.GetInfo(t.Context(), k)
					require.NoError(t, err)
					require.False(t, v == 1 && info.Source == readthrough.SourceHit, "%s is as it was", k)
				}

				b.redis.SetError("LOADING Redis is loading the dataset in memory")
				err = write(t.Context(), cache, rt)
				require.ErrorIs(t, err, readthrough.ErrEmptyKey)
				var failed *readthrough.WriteError
				require.ErrorAs(t, err, &failed)
				require.Equal(t, []string{"s:a", "s:b"}, failed.Keys)
				require.EqualValues(t, 2, cache.Stats().PendingInvalidations)
				b.redis.SetError("")
			})
		})
	}
}

func TestWrites_OfNoKeysDoNothing(t *testing.T) {
	cache, _ := newCache(t)
	rt := readthrough.Must(readthrough.New(cache, "s", func(context.Context, string) (int, error) { return 1, nil }, readthrough.String))
	require.NoError(t, rt.Invalidate(t.Context()))
	require.NoError(t, rt.Expire(t.Context()))
	require.NoError(t, cache.Delete(t.Context()))
	require.ErrorIs(t, rt.Invalidate(t.Context(), ""), readthrough.ErrEmptyKey)
	require.ErrorIs(t, rt.Set(t.Context(), "", 1), readthrough.ErrEmptyKey)
}

// The script is the same program on an imitation of Redis and on the real one only if both run it
// alike.
func TestExpire_DoesTheSameInMiniredisAndRedis(t *testing.T) {
	t.Parallel()
	t.Run("miniredis", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) { requireExpires(t, b.client(t)) })
	})
	t.Run("redis-server", func(t *testing.T) { requireExpires(t, redistest.Start(t).Client()) })
}

func requireExpires(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	ctx := t.Context()
	cache, err := readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second), readthrough.WithStale(staleFor), readthrough.WithJitter(0))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	errNone := errors.New("none")
	rt := wrapper(t, cache, func(_ context.Context, k int) (string, error) {
		if k < 0 {
			return "", errNone
		}
		return "Ada", nil
	}, readthrough.WithNotFound(time.Hour, errNone), readthrough.WithTTL(time.Hour))
	forever := readthrough.Must(readthrough.New(cache, "forever", constant("Ada"), readthrough.Int, readthrough.WithTTL(readthrough.NoExpiry)))

	for key, fill := range map[string]func() error{
		"row:1":     func() error { return rt.Set(ctx, 1, "Ada") },
		"row:-1":    func() error { _, err := rt.Get(ctx, -1); return ignore(err, errNone) },
		"forever:1": func() error { return forever.Set(ctx, 1, "Ada") },
	} {
		require.NoError(t, fill())
		require.NoError(t, client.Set(ctx, "{"+key+"}:lease", "somebody's", time.Minute).Err())
		before := client.Get(ctx, key).Val()
		at := time.Now()
		require.NoError(t, errors.Join(rt.Expire(ctx, 1, -1), forever.Expire(ctx, 1)))
		after := client.Get(ctx, key).Val()

		require.Equal(t, before[:entry.FreshUntilOffset], after[:entry.FreshUntilOffset], key)
		require.Equal(t, before[entry.FreshUntilOffset+6:], after[entry.FreshUntilOffset+6:], key)
		e, err := entry.Parse([]byte(after))
		require.NoError(t, err)
		require.False(t, e.Fresh(time.Now()), key)
		require.False(t, e.FreshUntil.Before(at.Truncate(time.Millisecond)), "%s is stale as of now", key)
		left := client.PTTL(ctx, key).Val()
		require.Positive(t, left, key)
		require.LessOrEqual(t, left, staleFor, key)
		require.Zero(t, client.Exists(ctx, "{"+key+"}:lease").Val(), "the lease of %s", key)

		// What is stale already stays as it is, and is not kept any longer.
		require.NoError(t, client.PExpire(ctx, key, staleFor/2).Err())
		require.NoError(t, errors.Join(rt.Expire(ctx, 1, -1), forever.Expire(ctx, 1)))
		require.Equal(t, after, client.Get(ctx, key).Val(), key)
		require.LessOrEqual(t, client.PTTL(ctx, key).Val(), staleFor/2, key)
	}

	good := client.Get(ctx, "row:1").Val()
	for name, foreign := range map[string]func() error{
		"a list":          func() error { return client.LPush(ctx, "row:2", "x").Err() },
		"a hash":          func() error { return client.HSet(ctx, "row:2", "f", "x").Err() },
		"a short string":  func() error { return client.Set(ctx, "row:2", good[:entry.FreshUntilOffset+5], 0).Err() },
		"an empty string": func() error { return client.Set(ctx, "row:2", "", 0).Err() },
		"another magic":   func() error { return client.Set(ctx, "row:2", "x"+good[1:], 0).Err() },
		"nothing":         func() error { return client.Del(ctx, "row:2").Err() },
	} {
		require.NoError(t, foreign())
		require.NoError(t, client.Set(ctx, "{row:2}:lease", "somebody's", time.Minute).Err())
		require.NoError(t, rt.Expire(ctx, 2), name)
		require.Zero(t, client.Exists(ctx, "row:2", "{row:2}:lease").Val(), name)
	}
}

func ignore(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}

func TestInvalidate_DropsOldestOfTooManyThatArePending(t *testing.T) {
	seen := &recorder{kinds: map[readthrough.EventKind]readthrough.Event{}}
	cache, server := newCache(t, readthrough.WithObserver(seen))
	rows := wrapper(t, cache, constant(1), readthrough.WithTTL(readthrough.NoExpiry))
	server.SetError("LOADING Redis is loading the dataset in memory")
	require.Error(t, rows.Invalidate(t.Context(), upTo(0, 100_000)...))
	require.Zero(t, cache.Stats().DroppedInvalidations)
	require.Error(t, rows.Invalidate(t.Context(), -1))
	stats := cache.Stats()
	require.EqualValues(t, []int64{100_000, 1}, []int64{stats.PendingInvalidations, stats.DroppedInvalidations})
	seen.mu.Lock()
	dropped := seen.kinds[readthrough.EventDroppedInvalidation]
	seen.mu.Unlock()
	require.Equal(t, "row:0", dropped.Key)
	require.ErrorContains(t, dropped.Err, "100000 invalidations are pending")
	require.Equal(t, "dropped invalidation", dropped.Kind.String())

	server.SetError("")
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 10*time.Millisecond)
}
