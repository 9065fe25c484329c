package readthroughtest_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

func TestFastForward_EndsTTL(t *testing.T) {
	t.Parallel()
	fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
	users := wrap(t, fake.Cache, db.find, readthrough.WithTTL(time.Hour), readthrough.WithNotFound(time.Minute, sql.ErrNoRows))
	requireGet(t, users, "Ada", readthrough.SourceLoaded)
	_, err := users.Get(t.Context(), 2)
	require.ErrorIs(t, err, sql.ErrNoRows)

	fake.FastForward(30 * time.Second)
	readthroughtest.RequireCached(t, users, 2)
	fake.FastForward(30 * time.Second)
	readthroughtest.RequireNotCached(t, users, 2)

	fake.FastForward(time.Hour - 2*time.Minute)
	requireGet(t, users, "Ada", readthrough.SourceHit)
	_, info, err := users.GetInfo(t.Context(), 1)
	require.NoError(t, err)
	require.InDelta(t, 59*time.Minute, info.Age, float64(time.Minute/2))
	require.InDelta(t, time.Minute, info.TTL, float64(time.Minute/2))

	fake.FastForward(time.Minute)
	require.Zero(t, fake.Client.Exists(t.Context(), "user:1").Val(), "Redis has forgotten it, too")
	requireGet(t, users, "Ada", readthrough.SourceLoaded)
}

// TestFastForward_MovesRawEntriesAndExpire holds that what is written directly has the same clock.
func TestFastForward_MovesRawEntriesAndExpire(t *testing.T) {
	t.Parallel()
	fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
	users := wrap(t, fake.Cache, db.find, readthrough.WithStale(time.Hour))
	fake.FastForward(24 * time.Hour)

	require.NoError(t, readthrough.Set(t.Context(), fake.Cache, "raw", 7, time.Minute))
	require.NoError(t, users.Set(t.Context(), 1, "Ada"))
	requireGet(t, users, "Ada", readthrough.SourceHit)
	require.NoError(t, users.Expire(t.Context(), 1))
	_, err := readthrough.Get[string](t.Context(), fake.Cache, "user:1")
	require.ErrorIs(t, err, readthrough.ErrMiss, "a stale value is none")
	requireGet(t, users, "Ada", readthrough.SourceStale) // and is refreshed in the background
	_, err = readthrough.Get[int](t.Context(), fake.Cache, "raw")
	require.NoError(t, err)

	fake.FastForward(time.Minute)
	_, err = readthrough.Get[int](t.Context(), fake.Cache, "raw")
	require.ErrorIs(t, err, readthrough.ErrMiss)
}

// TestFastForward_MovesStaleWindowAndBackOff holds that a failed load is not tried again for the
// second after it, and then is.
func TestFastForward_MovesStaleWindowAndBackOff(t *testing.T) {
	t.Parallel()
	fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
	users := wrap(t, fake.Cache, db.find, readthrough.WithTTL(time.Minute), readthrough.WithStale(time.Hour),
		readthrough.WithPatience(time.Minute))
	requireGet(t, users, "Ada", readthrough.SourceLoaded)
	fake.FastForward(2 * time.Minute)
	db.fail(errDown)
	for range 3 {
		requireGet(t, users, "Ada", readthrough.SourceStale)
	}
	require.EqualValues(t, 2, db.loads.Load(), "one has failed, and is not tried again")
	fake.FastForward(100 * time.Millisecond)
	requireGet(t, users, "Ada", readthrough.SourceStale)
	require.EqualValues(t, 2, db.loads.Load())

	fake.FastForward(time.Second)
	requireGet(t, users, "Ada", readthrough.SourceStale)
	require.EqualValues(t, 3, db.loads.Load())

	fake.FastForward(time.Hour)
	_, err := users.Get(t.Context(), 1)
	require.ErrorIs(t, err, errDown)
}

// TestFastForward_TakesLeaseFromSlowLoad holds that the other process, a second Cache on the same
// Redis, need not wait for it.
func TestFastForward_TakesLeaseFromSlowLoad(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	loading, finish := make(chan struct{}), make(chan struct{})
	slow := wrap(t, fake.Cache, func(context.Context, int) (string, error) {
		close(loading)
		<-finish
		return "old", nil
	})
	other, err := readthrough.NewCache(fake.Client)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	quick := wrap(t, other, newTable(map[int]string{1: "new"}).find)

	ended := make(chan string)
	go func() { // ends with the slow load
		v, _ := slow.Get(context.Background(), 1)
		ended <- v
	}()
	<-loading
	fake.FastForward(3 * time.Second) // WithLeaseTTL
	v, err := quick.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "new", v)
	close(finish)
	require.Equal(t, "old", <-ended)
	require.EqualValues(t, 1, fake.Cache.Stats().RefusedFills)
	v, err = slow.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

// TestFastForward_MovesEarlyRefresh holds that XFetch has the clock of the entries: with this beta it
// refreshes some three weeks ahead, and the end of the TTL is an hour away, not a year.
func TestFastForward_MovesEarlyRefresh(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	fake.FastForward(365 * 24 * time.Hour)
	users := wrap(t, fake.Cache, func(context.Context, int) (string, error) {
		time.Sleep(2 * time.Millisecond) // the time that XFetch multiplies
		return "Ada", nil
	}, readthrough.WithTTL(time.Hour), readthrough.WithEarlyRefresh(1e9))
	requireGet(t, users, "Ada", readthrough.SourceLoaded)
	for range 10 {
		requireGet(t, users, "Ada", readthrough.SourceHit)
	}
	// It is counted on the goroutine that refreshes.
	require.Eventually(t, func() bool { return users.Stats().Refreshes > 0 }, 5*time.Second, time.Millisecond)
}

func TestNow_MovesWithFastForward(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	require.WithinDuration(t, time.Now(), fake.Now(), time.Minute)
	fake.FastForward(time.Hour)
	require.WithinDuration(t, time.Now().Add(time.Hour), fake.Now(), time.Minute)
}

func TestDown_LeavesReadsToLoaderAndUpMakesUpForWrites(t *testing.T) {
	t.Parallel()
	fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
	users := wrap(t, fake.Cache, db.find)
	requireGet(t, users, "Ada", readthrough.SourceLoaded)
	requireGet(t, users, "Ada", readthrough.SourceHit)

	fake.Down()
	began := time.Now()
	for range 10 {
		requireGet(t, users, "Ada", readthrough.SourceLoaded)
	}
	results, err := users.GetMany(t.Context(), []int{1, 1})
	require.NoError(t, err)
	require.Equal(t, "Ada", results[1].Value)
	_, err = users.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrUnavailable)
	require.Error(t, fake.Client.Ping(t.Context()).Err())
	db.set(1, "Grace")
	var failed *readthrough.WriteError
	require.ErrorAs(t, users.Invalidate(t.Context(), 1), &failed)
	require.ErrorIs(t, failed, readthrough.ErrUnavailable)
	require.Less(t, time.Since(began), 2*time.Second, "nothing waits for a Redis that refuses")

	fake.Up()
	readthroughtest.RequireNotCached(t, users, 1)
	requireGet(t, users, "Grace", readthrough.SourceLoaded)
	requireGet(t, users, "Grace", readthrough.SourceHit)
}

// TestNew_MayEndWhileRedisIsDown holds that it is no failure of the test.
func TestNew_MayEndWhileRedisIsDown(t *testing.T) {
	t.Parallel()
	w := &watched{TB: t}
	t.Run("down", func(t *testing.T) {
		w.TB = t
		fake := readthroughtest.New(w)
		users := wrap(t, fake.Cache, newTable(nil).find)
		fake.Down()
		require.Error(t, users.Invalidate(t.Context(), 1))
	})
	require.Empty(t, w.said())
}

func TestNew_RefusesOptionOutOfRange(t *testing.T) {
	t.Parallel()
	said := failures(t, func(t testing.TB) { readthroughtest.New(t, readthrough.WithTTL(-1)) })
	require.Len(t, said, 1)
	require.Contains(t, said[0], "WithTTL")
}

// TestNew_HoldsLargePipelines holds that the connection does not block when both ends write.
func TestNew_HoldsLargePipelines(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	load := func(_ context.Context, k int) (string, error) { return strings.Repeat("x", 5000+k%2), nil }
	users := wrap(t, fake.Cache, load, readthrough.WithBatchLoader(func(ctx context.Context, ks []int) (map[int]string, error) {
		values := make(map[int]string)
		for _, k := range ks {
			values[k], _ = load(ctx, k)
		}
		return values, nil
	}), readthrough.WithLeaseTTL(time.Minute)) // the machine may be busy
	keys := make([]int, 40)
	for i := range keys {
		keys[i] = i
	}
	for range 2 {
		results, err := users.GetMany(t.Context(), keys)
		require.NoError(t, err)
		for _, result := range results {
			require.NoError(t, result.Err)
		}
	}
	stats := users.Stats()
	require.Zero(t, stats.RedisErrors)
	require.EqualValues(t, len(keys), stats.Hits)
}

// TestNew_WorksInBubble holds that there time.Sleep moves everything, and that Close leaves nothing.
func TestNew_WorksInBubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
		users := wrap(t, fake.Cache, db.find, readthrough.WithTTL(time.Hour), readthrough.WithStale(time.Hour))
		readthroughtest.Audit(users, db.find)
		requireGet(t, users, "Ada", readthrough.SourceLoaded)
		time.Sleep(time.Hour - time.Second)
		requireGet(t, users, "Ada", readthrough.SourceHit)
		db.set(1, "Grace")
		time.Sleep(time.Second)
		requireGet(t, users, "Ada", readthrough.SourceStale)
		synctest.Wait()
		requireGet(t, users, "Grace", readthrough.SourceHit)

		fake.Down()
		require.Error(t, users.Invalidate(t.Context(), 1))
		time.Sleep(time.Minute)
		fake.Up()
		readthroughtest.RequireNotCached(t, users, 1)
		time.Sleep(24 * time.Hour)
	})
}

func TestNew_TakesFailoverSafety(t *testing.T) {
	t.Parallel()
	fake, db := readthroughtest.New(t, readthrough.WithFailoverSafety()), newTable(map[int]string{1: "Ada"})
	users := wrap(t, fake.Cache, db.find)
	requireGet(t, users, "Ada", readthrough.SourceLoaded)
	requireGet(t, users, "Ada", readthrough.SourceHit)
	require.NoError(t, users.Set(t.Context(), 1, "Ida"))
	requireGet(t, users, "Ida", readthrough.SourceHit)
	require.NoError(t, users.Invalidate(t.Context(), 1))
	readthroughtest.RequireNotCached(t, users, 1)
	require.Zero(t, fake.Cache.Stats().RefusedCommands)
}
