package readthrough_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestFleetOnOneServer(t *testing.T) {
	t.Parallel()
	testFleet(t, redistest.Start(t).URL())
}

func TestFleetOnCluster(t *testing.T) {
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
			// Nothing here is about the end of a lease, which a process that gets no CPU for a while would see.
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

// finish waits until all is done, with load answering each load that this leads to. It returns how many there were.
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
	require.EqualValues(t, len(ids), unlinked)
	for _, id := range ids {
		_, err := rows.Peek(t.Context(), id)
		require.ErrorIs(t, err, readthrough.ErrMiss)
	}
}

func TestSlowLoadKeepsItsLeaseAndOthersWait(t *testing.T) {
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

func TestKilledHolderBlocksOthersForOneLeaseTTL(t *testing.T) {
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

func TestFillOfPausedHolderIsRefused(t *testing.T) {
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

func TestCallerWhoseLeaseWaitIsOverLoadsForItself(t *testing.T) {
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

// commandsSince is what the server was told since its last ResetStats, apart from what opens a connection.
func commandsSince(server *redistest.Server) map[string]int64 {
	calls := server.CommandStats()
	for _, name := range []string{"hello", "client|setinfo", "client|maint_notifications", "config|resetstat", "info"} {
		delete(calls, name)
	}
	return calls
}

// tripsAndCommands is a wrapper, its own server, and a function that says what a call costs there. Negative ids are
// not found, and from 1,000,000 on the database is down.
func tripsAndCommands(t *testing.T) (*readthrough.ReadThrough[int, int], *redistest.Server, func(call func()) (int64, map[string]int64)) {
	server := redistest.Start(t)
	client := server.Client()
	// Single commands and pipelines have connections of their own, which take round trips to open.
	require.NoError(t, client.Ping(t.Context()).Err())
	_, err := client.Pipelined(t.Context(), func(pipe redis.Pipeliner) error { return pipe.Ping(t.Context()).Err() })
	require.NoError(t, err)
	var trips atomic.Int64
	client.AddHook(&redistest.TripCounter{Trips: &trips})
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	errNone := errors.New("none")
	rows := wrapper(t, cache, func(_ context.Context, id int) (int, error) {
		switch {
		case id < 0:
			return 0, errNone
		case id >= 1_000_000:
			return 0, errors.New("database down")
		}
		return id, nil
	}, readthrough.WithNotFound(time.Minute, errNone))
	return rows, server, func(call func()) (int64, map[string]int64) {
		t.Helper()
		server.ResetStats()
		before := trips.Load()
		call()
		return trips.Load() - before, commandsSince(server)
	}
}

func TestWhatEachCallCostsInRedis(t *testing.T) {
	t.Parallel()
	rows, _, cost := tripsAndCommands(t)
	ctx := t.Context()
	type commands = map[string]int64
	// A miss asks for the entry, then for lease, entry and holder at once, and fills by a script.
	miss := commands{"get": 1 + 2 + 1, "set": 1 + 1, "evalsha": 1, "del": 1}
	for name, row := range map[string]struct {
		call     func(id int)
		trips    int64
		commands commands
	}{
		"miss":                   {func(id int) { _, _ = rows.Get(ctx, id) }, 3, miss},
		"hit":                    {func(int) { _, _ = rows.Get(ctx, 100) }, 1, commands{"get": 1}},
		"not found":              {func(id int) { _, _ = rows.Get(ctx, -id) }, 3, miss},
		"hit of not found":       {func(int) { _, _ = rows.Get(ctx, -100) }, 1, commands{"get": 1}},
		"load that fails":        {func(int) { _, _ = rows.Get(ctx, 1_000_000) }, 3, commands{"get": 1 + 2 + 1, "set": 1, "evalsha": 1, "del": 1}},
		"peek":                   {func(int) { _, _ = rows.Peek(ctx, 101) }, 1, commands{"get": 1}},
		"set":                    {func(int) { _ = rows.Set(ctx, 102, 1) }, 1, commands{"evalsha": 1, "set": 1, "del": 1}},
		"refresh":                {func(int) { _, _ = rows.Refresh(ctx, 103) }, 2, commands{"set": 1 + 1, "evalsha": 1, "get": 1, "del": 1}},
		"invalidation of three":  {func(int) { _ = rows.Invalidate(ctx, 1, 2, 3) }, 1, commands{"unlink": 3}},
		"three hits of GetMany":  {func(int) { _, _ = rows.GetMany(ctx, []int{104, 105, 106}) }, 1, commands{"get": 3}},
		"one key thrice at once": {func(int) { _, _ = rows.GetMany(ctx, []int{107, 107, 107}) }, 1, commands{"get": 1}},
	} {
		row.call(1) // teaches Redis the script, and fills what is to be hit
		trips, told := cost(func() { row.call(2) })
		require.Equal(t, row.trips, trips, name)
		require.Equal(t, row.commands, told, name)
		require.NoError(t, rows.Invalidate(ctx, 1, 2, -1, -2))
	}
}

// TestFirstFillTeachesTheScript holds that the first fill of a process costs nothing more. The one exception is a server
// that has forgotten its scripts: it is sent them in a fourth round trip.
func TestFirstFillTeachesTheScript(t *testing.T) {
	t.Parallel()
	rows, server, cost := tripsAndCommands(t)
	for i, want := range []struct{ trips, eval int64 }{{3, 1}, {3, 0}, {4, 1}, {3, 0}} {
		if i == 2 {
			require.NoError(t, server.Client().ScriptFlush(t.Context()).Err())
		}
		trips, told := cost(func() { _, _ = rows.Get(t.Context(), i) })
		require.Equal(t, want.trips, trips)
		require.Equal(t, want.eval, told["eval"])
	}
}
