package faults

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestFleet_KeepsItsPromisesOnOneServer(t *testing.T) {
	t.Parallel()
	testFleet(t, redistest.Start(t).URL())
}

func TestFleet_KeepsItsPromisesOnCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0)
	testFleet(t, cluster.URL())
	t.Run("a thousand keys are invalidated in one call", func(t *testing.T) { invalidateAThousandKeys(t, cluster) })
}

// testFleet holds what four processes promise together, whatever Redis they share.
func testFleet(t *testing.T, url string) {
	for row, promise := range []struct {
		name string
		test func(*testing.T, memberConfig)
	}{
		{"a row is loaded once whenever it is gone", oneLoadWheneverGone},
		{"a row is loaded once at each expiry", oneLoadAtEachExpiry},
		{"a read after Invalidate elsewhere gets no older load", noOlderLoadAfterInvalidate},
		{"Set elsewhere refuses the fill of an older load", noOlderFillAfterSet},
	} {
		t.Run(promise.name, func(t *testing.T) {
			// Nothing here is about the end of a lease, which a process that gets no CPU for a
			// while would see.
			promise.test(t, memberConfig{URL: url, Row: row, LeaseTTL: soon, LeaseWait: 10 * soon})
		})
	}
}

const (
	fleetSize = 4
	callers   = 250 // in each process
)

// everyone has all members do the same.
func (f *processes) everyone(o order) (done []<-chan report) {
	f.t.Helper()
	for _, m := range f.members {
		done = append(done, m.order(o))
	}
	return done
}

// finish waits until all is done, with load answering each load that this leads to. It returns how
// many there were.
func (f *processes) finish(done []<-chan report, load func(*handle)) (reports []report, loads int) {
	f.t.Helper()
	late := time.After(soon)
	for len(reports) < len(done) {
		select {
		case r := <-done[len(reports)]:
			require.Empty(f.t, r.Err)
			reports = append(reports, r)
		case m := <-f.loads:
			loads++
			load(m)
		case <-late:
			require.FailNow(f.t, "members do not come to an end", "after %d loads", loads)
		}
	}
	return reports, loads + len(f.loads)
}

func oneLoadWheneverGone(t *testing.T, conf memberConfig) {
	f := startProcesses(t, slices.Repeat([]memberConfig{conf}, fleetSize)...)
	for round, vanish := range []func() error{
		func() error { return nil }, // it is not there yet
		func() error { return f.redis.Del(t.Context(), conf.key()).Err() },
		func() error { return f.redis.PExpire(t.Context(), conf.key(), time.Millisecond).Err() },
		func() error { return f.redis.PExpire(t.Context(), conf.key(), time.Millisecond).Err() },
	} {
		require.NoError(t, vanish())
		require.Eventually(t, func() bool { return f.redis.Exists(t.Context(), conf.key()).Val() == 0 }, soon, time.Millisecond)

		done := f.everyone(order{Do: "get", Times: callers})
		holder := f.awaitLoad()
		for _, m := range f.members {
			m.awaitMisses(int64(callers * (round + 1)))
		}
		holder.answer(strconv.Itoa(round))
		reports, more := f.finish(done, func(m *handle) { m.answer("loaded again") })

		require.Zero(t, more, "loads besides the first, round %d", round)
		for _, r := range reports {
			require.Equal(t, map[string]int{strconv.Itoa(round): callers}, r.Values)
		}
	}
}

func oneLoadAtEachExpiry(t *testing.T, conf memberConfig) {
	const last = 5
	conf.TTL = 200 * time.Millisecond
	const rounding = 2 * time.Millisecond // an entry counts in whole milliseconds
	f := startProcesses(t, slices.Repeat([]memberConfig{conf}, fleetSize)...)

	done := f.everyone(order{Do: "watch", Times: callers, Value: strconv.Itoa(last)})
	count, answered := 0, time.Time{}
	reports, loads := f.finish(done, func(m *handle) {
		// A second load of the same generation would come while the first one's value is fresh.
		require.GreaterOrEqual(t, time.Since(answered), conf.TTL-rounding, "load %d", count)
		count, answered = count+1, time.Now()
		m.answer(strconv.Itoa(count))
	})

	require.GreaterOrEqual(t, loads, last)
	for _, r := range reports {
		require.Equal(t, map[string]int{strconv.Itoa(last): callers}, r.Values)
	}
}

func noOlderLoadAfterInvalidate(t *testing.T, conf memberConfig) {
	f := startProcesses(t, conf, conf)
	a, b := f.members[0], f.members[1]
	early := a.get(1)
	require.Same(t, a, f.awaitLoad())

	b.do(order{Do: "invalidate"})
	late := a.get(callers)
	a.awaitMisses(1 + callers)
	a.answer("old")

	requireReport(t, "old", 1, early)
	reports, loads := f.finish([]<-chan report{late}, func(m *handle) { m.answer("new") })
	require.Equal(t, map[string]int{"new": callers}, reports[0].Values)
	require.Equal(t, 1, loads)
	require.EqualValues(t, 1, a.stats().RefusedFills)
	requireReport(t, "new", 1, b.get(1))
	require.Empty(t, f.loads)
}

func noOlderFillAfterSet(t *testing.T, conf memberConfig) {
	f := startProcesses(t, conf, conf)
	a, b := f.members[0], f.members[1]
	early := a.get(1)
	require.Same(t, a, f.awaitLoad())
	late := a.get(callers)
	a.awaitMisses(1 + callers)

	b.do(order{Do: "set", Value: "of b"})
	requireReport(t, "of b", callers, a.get(callers)) // while the load is still under way
	a.answer("old")

	requireReport(t, "old", 1, early)
	requireReport(t, "of b", callers, late)
	require.EqualValues(t, 1, a.stats().RefusedFills)
	requireReport(t, "of b", 1, a.get(1))
	requireReport(t, "of b", 1, b.get(1))
	require.Empty(t, f.loads)
}

func invalidateAThousandKeys(t *testing.T, cluster *redistest.Cluster) {
	cache := fleet(t, 1, func() redis.UniversalClient { return cluster.Client() }, readthrough.WithRedisTimeout(soon))[0]
	rows := wrapper(t, cache, constant(1))
	ids := make([]int, 1000)
	for i := range ids {
		ids[i] = 1000 + i
		require.NoError(t, rows.Set(t.Context(), ids[i], i))
	}
	for _, master := range cluster.Masters() {
		master.ResetStats()
	}

	require.NoError(t, rows.Invalidate(t.Context(), ids...))

	require.EqualValues(t, 2*len(ids), rows.Stats().Invalidations, "a Set counts too")
	var unlinked int64
	for _, master := range cluster.Masters() {
		n := master.CommandStats()["unlink"]
		require.Positive(t, n, "no key in a slot of this master")
		unlinked += n
	}
	require.EqualValues(t, 2*len(ids), unlinked, "each lease, and each entry")
	for _, id := range ids {
		_, err := rows.Peek(t.Context(), id)
		require.ErrorIs(t, err, readthrough.ErrMiss)
	}
}

func TestLease_OutlastsSlowLoadWhileOthersWait(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	conf := memberConfig{URL: server.URL(), LeaseTTL: 3 * time.Second, LeaseWait: soon}
	f := startProcesses(t, conf, conf)
	a, b := f.members[0], f.members[1]
	slow := a.get(1)
	require.Same(t, a, f.awaitLoad())
	token := f.redis.Get(t.Context(), conf.lease()).Val()

	others := b.get(callers)
	// Only a renewal calls PEXPIRE; there is one each third of the lease's TTL.
	require.Eventually(t, func() bool { return server.CommandStats()["pexpire"] >= 4 }, soon, 10*time.Millisecond)
	require.Equal(t, token, f.redis.Get(t.Context(), conf.lease()).Val())
	a.answer("slow")

	requireReport(t, "slow", 1, slow)
	requireReport(t, "slow", callers, others)
	require.Empty(t, f.loads)
	require.EqualValues(t, 1, a.stats().Fills)
}

func TestLease_OfKilledHolderBlocksOthersForOneTTL(t *testing.T) {
	t.Parallel()
	conf := memberConfig{URL: redistest.Start(t).URL(), LeaseTTL: 2 * time.Second, LeaseWait: soon}
	f := startProcesses(t, conf, conf, conf)
	holder, others := f.members[0], f.members[1:]
	holder.get(1)
	require.Same(t, holder, f.awaitLoad())
	token := f.redis.Get(t.Context(), conf.lease()).Val()
	require.NotEmpty(t, token)
	var done []<-chan report
	for _, m := range others {
		done = append(done, m.get(callers))
		m.awaitMisses(callers)
	}

	holder.kill()

	require.LessOrEqual(t, f.redis.PTTL(t.Context(), conf.lease()).Val(), conf.LeaseTTL)
	reports, loads := f.finish(done, func(m *handle) {
		require.NotEqual(t, token, f.redis.Get(t.Context(), conf.lease()).Val(), "the lease of the dead has not ended yet")
		m.answer("of the living")
	})
	require.Equal(t, 1, loads)
	for _, r := range reports {
		require.Equal(t, map[string]int{"of the living": callers}, r.Values)
	}
}

func TestLease_RefusesFillOfPausedHolder(t *testing.T) {
	t.Parallel()
	conf := memberConfig{URL: redistest.Start(t).URL(), LeaseTTL: soon, LeaseWait: soon}
	brief := conf
	brief.LeaseTTL = 500 * time.Millisecond
	f := startProcesses(t, brief, conf)
	a, b := f.members[0], f.members[1]
	early := a.get(1)
	require.Same(t, a, f.awaitLoad())
	late := a.get(callers)
	a.awaitMisses(1 + callers)

	a.Pause()
	others := b.get(callers)
	require.Same(t, b, f.awaitLoad())
	b.answer("new")
	requireReport(t, "new", callers, others)
	a.Resume()
	a.answer("old")

	requireReport(t, "old", 1, early)
	requireReport(t, "new", callers, late)
	require.EqualValues(t, 1, a.stats().RefusedFills)
	requireReport(t, "new", 1, a.get(1))
	require.Empty(t, f.loads)
}

func TestLease_LetsCallerLoadForItselfAfterLeaseWait(t *testing.T) {
	t.Parallel()
	conf := memberConfig{URL: redistest.Start(t).URL(), LeaseTTL: soon}
	impatient := conf
	impatient.LeaseWait = 20 * time.Millisecond
	f := startProcesses(t, conf, impatient)
	a, b := f.members[0], f.members[1]
	slow := a.get(1)
	require.Same(t, a, f.awaitLoad())
	token := f.redis.Get(t.Context(), conf.lease()).Val()

	own := b.get(1)
	require.Same(t, b, f.awaitLoad())
	b.answer("own")

	requireReport(t, "own", 1, own)
	require.Zero(t, f.redis.Exists(t.Context(), conf.key()).Val(), "stored without a lease")
	require.Equal(t, token, f.redis.Get(t.Context(), conf.lease()).Val())
	a.answer("slow")
	requireReport(t, "slow", 1, slow)
	requireReport(t, "slow", 1, b.get(1))
	require.Empty(t, f.loads)
}
