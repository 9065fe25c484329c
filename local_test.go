package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// localLease is long enough for a busy machine, and no longer than one waits for it.
const localLease = 500 * time.Millisecond

// localFleet is Caches that keep copies, on one Redis.
type localFleet struct {
	server *miniredis.Miniredis
	caches []*readthrough.Cache
}

func newLocalFleet(t *testing.T, n int, opts ...readthrough.CacheOption) *localFleet {
	t.Helper()
	f := &localFleet{server: miniredis.RunT(t)}
	opts = append([]readthrough.CacheOption{
		readthrough.WithPrefix("p"), readthrough.WithLocal(1 << 20), readthrough.WithLocalLease(localLease),
	}, opts...)
	f.caches = fleet(t, n, func() redis.UniversalClient {
		client := redis.NewClient(&redis.Options{Addr: f.server.Addr(), MaxRetries: -1, DialerRetries: 1})
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		return client
	}, opts...)
	return f
}

// age waits until the table is not new any more, so that no write waits for leases that it does not know of.
func (f *localFleet) age(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return f.server.Exists("p:{p:local}:table") && f.server.HGet("p:{p:local}:state", "young") == ""
	}, 10*time.Second, time.Millisecond)
}

// requireLocal reads row k until it comes from a copy, and wants that to be v.
func requireLocal[V any](t *testing.T, rt *readthrough.ReadThrough[int, V], k int, want V) {
	t.Helper()
	require.Eventually(t, func() bool {
		v, info, err := rt.GetInfo(t.Context(), k)
		require.NoError(t, err)
		require.Equal(t, want, v)
		return info.Source == readthrough.SourceLocal
	}, 10*time.Second, time.Millisecond)
}

// versions is a database of one version in all rows.
type versions struct{ atomic.Int64 }

func (v *versions) load(context.Context, int) (int64, error) { return v.Load(), nil }

func TestLocal_WritesAreSeenByAllProcesses(t *testing.T) {
	t.Parallel()
	type rows = readthrough.ReadThrough[int, int64]
	for name, write := range map[string]func(ctx context.Context, c *readthrough.Cache, rt *rows, v int64) error{
		"Invalidate": func(ctx context.Context, _ *readthrough.Cache, rt *rows, _ int64) error { return rt.Invalidate(ctx, 1) },
		"Set":        func(ctx context.Context, _ *readthrough.Cache, rt *rows, v int64) error { return rt.Set(ctx, 1, v) },
		"SetMany": func(ctx context.Context, _ *readthrough.Cache, rt *rows, v int64) error {
			return rt.SetMany(ctx, maps.All(map[int]int64{1: v, 2: v}))
		},
		"Expire": func(ctx context.Context, _ *readthrough.Cache, rt *rows, _ int64) error { return rt.Expire(ctx, 1) },
		"Delete": func(ctx context.Context, c *readthrough.Cache, _ *rows, _ int64) error {
			return c.Delete(ctx, "p:row:1")
		},
		"raw Set": func(ctx context.Context, c *readthrough.Cache, _ *rows, v int64) error {
			return readthrough.Set(ctx, c, "p:row:1", v, time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newLocalFleet(t, 3)
			db := new(versions)
			db.Store(1)
			var all []*rows
			for _, c := range f.caches {
				all = append(all, wrapper(t, c, db.load))
			}
			f.age(t)
			for _, rt := range all {
				requireLocal(t, rt, 1, 1)
			}
			db.Store(2)
			require.NoError(t, write(t.Context(), f.caches[0], all[0], 2))
			for _, rt := range all {
				v, info, err := rt.GetInfo(t.Context(), 1)
				require.NoError(t, err)
				require.EqualValues(t, 2, v)
				require.NotEqual(t, readthrough.SourceLocal, info.Source)
			}
			stats := f.caches[0].Stats()
			require.EqualValues(t, 1, stats.Fences)
			require.EqualValues(t, 2, stats.LocalMembers)
			for _, rt := range all {
				requireLocal(t, rt, 1, 2)
			}
		})
	}
}

func TestLocal_RefreshReachesOthersSoon(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 2)
	db := new(versions)
	a, b := wrapper(t, f.caches[0], db.load), wrapper(t, f.caches[1], db.load)
	requireLocal(t, a, 1, 0)
	requireLocal(t, b, 1, 0)
	db.Store(1)
	_, err := a.Refresh(t.Context(), 1)
	require.NoError(t, err)
	v, err := a.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v)
	require.Eventually(t, func() bool { v, err := b.Get(t.Context(), 1); return err == nil && v == 1 }, 10*time.Second, time.Millisecond)
}

func TestLocal_EventualWritesDoNotWait(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 2, readthrough.WithLocalMode(readthrough.LocalEventual), readthrough.WithLocalLease(10*time.Second))
	db := new(versions)
	a, b := wrapper(t, f.caches[0], db.load), wrapper(t, f.caches[1], db.load)
	requireLocal(t, a, 1, 0)
	requireLocal(t, b, 1, 0)
	db.Store(1)
	began := time.Now()
	require.NoError(t, a.Invalidate(t.Context(), 1)) // while the table is young
	require.Less(t, time.Since(began), 5*time.Second)
	v, err := a.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v, "its own copy is gone")
	require.Eventually(t, func() bool { v, err := b.Get(t.Context(), 1); return err == nil && v == 1 }, 10*time.Second, time.Millisecond)
}

func TestLocal_ServesEveryRead(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 1)
	errGone := errors.New("no such row")
	rt := wrapper(t, f.caches[0], func(_ context.Context, k int) (int, error) {
		if k == 3 {
			return 0, fmt.Errorf("row %d: %w", k, errGone)
		}
		return 10 * k, nil
	}, readthrough.WithNotFound(time.Minute, errGone))
	requireLocal(t, rt, 1, 10)
	requireLocal(t, rt, 2, 20)
	require.Eventually(t, func() bool {
		_, info, err := rt.GetInfo(t.Context(), 3)
		require.ErrorIs(t, err, errGone)
		return info.Source == readthrough.SourceLocal
	}, 10*time.Second, time.Millisecond)

	before := rt.Stats()
	v, err := rt.Peek(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, 10, v)
	results, err := rt.GetMany(t.Context(), []int{2, 4, 1, 3, 2})
	require.NoError(t, err)
	require.Equal(t, []readthrough.Result[int]{{Value: 20}, {Value: 40}, {Value: 10}, {Err: errGone}, {Value: 20}}, results)
	for k, r := range rt.Each(t.Context(), slices.Values([]int{1})) {
		require.Equal(t, 10*k, r.Value)
	}
	after := rt.Stats()
	require.EqualValues(t, 6, after.LocalHits-before.LocalHits)
	require.EqualValues(t, 1, after.Misses-before.Misses)
	require.Zero(t, after.Hits-before.Hits)
	requireLocal(t, rt, 4, 40) // GetMany has kept what it loaded

	warmed, err := rt.Warm(t.Context(), slices.Values([]int{1, 5}))
	require.NoError(t, err)
	require.Equal(t, readthrough.Warmed{Loaded: 1, Present: 1}, warmed)
	f.server.Del("p:row:1")
	warmed, err = rt.Warm(t.Context(), slices.Values([]int{1}))
	require.NoError(t, err)
	require.Equal(t, readthrough.Warmed{Loaded: 1}, warmed, "it is Redis that is warmed")
	_, info, err := rt.GetInfo(t.Context(), 5)
	require.NoError(t, err)
	require.Equal(t, readthrough.SourceHit, info.Source, "and this process is not")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = rt.Get(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
}

func TestLocal_GivesEachCallerItsOwnValueUnlessShared(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 1)
	load := func(context.Context, int) (*user, error) { return &user{Name: "ann", Tags: []string{"a"}}, nil }
	own := wrapper(t, f.caches[0], load)
	shared, err := readthrough.New(f.caches[0], "shared", load, readthrough.Int, readthrough.WithSharedValues())
	require.NoError(t, err)
	want := &user{Name: "ann", Tags: []string{"a"}}
	requireLocal(t, own, 1, want)
	requireLocal(t, shared, 1, want)
	one, err := own.Get(t.Context(), 1)
	require.NoError(t, err)
	one.Tags[0] = "changed"
	requireLocal(t, own, 1, want)
	one, err = shared.Get(t.Context(), 1)
	require.NoError(t, err)
	two, err := shared.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Same(t, one, two)
}

func TestLocal_CopiesExpire(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 1)
	db := new(versions)
	short := wrapper(t, f.caches[0], db.load, readthrough.WithLocalTTL(50*time.Millisecond))
	fresh, err := readthrough.New(f.caches[0], "fresh", db.load, readthrough.Int,
		readthrough.WithTTL(50*time.Millisecond), readthrough.WithStale(time.Minute), readthrough.WithEarlyRefresh(1))
	require.NoError(t, err)
	requireLocal(t, short, 1, 0)
	requireLocal(t, fresh, 1, 0)
	db.Store(1)
	require.Eventually(t, func() bool { v, err := fresh.Get(t.Context(), 1); return err == nil && v == 1 }, 10*time.Second, time.Millisecond)
	f.server.Del("p:row:1") // as one does who knows nothing of copies
	require.Eventually(t, func() bool { v, err := short.Get(t.Context(), 1); return err == nil && v == 1 }, 10*time.Second, time.Millisecond)
}

func TestLocal_RefusesCopyOfOlderRead(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 1)
	r := newRow("new")
	rt := wrapper(t, f.caches[0], r.load)
	f.age(t)
	requireLocal(t, rt, 2, "new")
	r.Store("old")
	got := make(chan string)
	go func() { // ends with the load
		v, _ := rt.Get(context.Background(), 1)
		got <- v
	}()
	<-r.reading
	r.Store("new")
	require.NoError(t, rt.Invalidate(t.Context(), 1))
	close(r.goOn)
	require.Equal(t, "old", <-got, "it began before")
	v, info, err := rt.GetInfo(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "new", v)
	require.NotEqual(t, readthrough.SourceLocal, info.Source)
}

func TestLocal_WriterWithoutCopiesFences(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 2)
	db := new(versions)
	reader, writer := wrapper(t, f.caches[0], db.load), wrapper(t, f.caches[1], db.load, readthrough.WithLocal(0))
	requireLocal(t, reader, 1, 0)
	f.age(t)
	for want := range int64(20) {
		db.Store(want)
		require.NoError(t, writer.Invalidate(t.Context(), 1))
		requireLocal(t, reader, 1, want)
	}
	_, info, err := writer.GetInfo(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, readthrough.SourceHit, info.Source)
	require.EqualValues(t, 1, f.caches[1].Stats().LocalMembers)
	require.Less(t, f.caches[1].Stats().FencesWaited, int64(20)) // on a busy machine, some may be
}

func TestLocal_FailedInvalidationDropsOwnCopyAndReachesOthersLater(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 2, readthrough.WithLocalLease(20*time.Second), readthrough.WithRedisTimeout(time.Second))
	db := new(versions)
	a, b := wrapper(t, f.caches[0], db.load), wrapper(t, f.caches[1], db.load)
	requireLocal(t, a, 1, 0)
	requireLocal(t, b, 1, 0)
	db.Store(1)
	f.server.SetError("MISCONF try later") // the connections stay
	require.Error(t, a.Invalidate(t.Context(), 1))
	v, err := a.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v)
	f.server.SetError("")
	require.Eventually(t, func() bool { v, err := b.Get(t.Context(), 1); return err == nil && v == 1 }, 10*time.Second, time.Millisecond)
}

func TestLocal_EndsWithClose(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 2)
	db := new(versions)
	a, b := wrapper(t, f.caches[0], db.load), wrapper(t, f.caches[1], db.load)
	requireLocal(t, a, 1, 0)
	requireLocal(t, b, 1, 0)
	f.age(t)
	require.NoError(t, a.Invalidate(t.Context(), 1))
	requireLocal(t, a, 1, 0)
	require.NoError(t, f.caches[0].Close())
	_, err := a.Get(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	require.NoError(t, b.Invalidate(t.Context(), 1))
	require.Zero(t, f.caches[1].Stats().LocalMembers)
}

func TestLocal_KeepsNothingWithoutRedis(t *testing.T) {
	t.Parallel()
	f := newLocalFleet(t, 1)
	db := new(versions)
	rt := wrapper(t, f.caches[0], db.load)
	requireLocal(t, rt, 1, 0)
	f.server.Close()
	db.Store(1)
	require.Eventually(t, func() bool { v, err := rt.Get(t.Context(), 1); return err == nil && v == 1 }, 10*time.Second, time.Millisecond)
	require.EqualValues(t, 1, f.caches[0].Stats().LocalLost)
}

func TestLocal_OptionsAreChecked(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	for text, opt := range map[string]readthrough.CacheOption{
		"WithLocal: -1 is negative":                              readthrough.WithLocal(-1),
		"WithLocalTTL: 0s is less than 1ms":                      readthrough.WithLocalTTL(0),
		"WithLocalLease: 1ms is not from 100ms to 30s":           readthrough.WithLocalLease(time.Millisecond),
		"WithLocalLease: 1m0s is not from 100ms to 30s":          readthrough.WithLocalLease(time.Minute),
		"WithLocalMode: 9 is neither LocalStrict nor LocalEvent": readthrough.WithLocalMode(9),
	} {
		_, err := readthrough.NewCache(client, opt)
		require.ErrorContains(t, err, text)
	}
}
