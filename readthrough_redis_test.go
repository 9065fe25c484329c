package readthrough_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestGet_LoadsColdKeyOnceInFleet(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func() func() redis.UniversalClient{
		"standalone": func() func() redis.UniversalClient {
			server := redistest.Start(t)
			return func() redis.UniversalClient { return server.Client() }
		},
		"cluster": func() func() redis.UniversalClient {
			cluster := redistest.StartCluster(t, 3, 0)
			return func() redis.UniversalClient { return cluster.Client() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			var loads atomic.Int64
			var wg sync.WaitGroup
			for _, cache := range fleet(t, 4, start()) {
				rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int, error) {
					return int(loads.Add(1)), nil
				}, readthrough.Int))
				for range 250 {
					wg.Go(func() {
						if v, err := rows.Get(t.Context(), 1); err != nil || v != 1 {
							t.Errorf("got %d, %v", v, err)
						}
					})
				}
			}
			wg.Wait()
			require.EqualValues(t, 1, loads.Load())
		})
	}
}

func TestGet_KeepsLeaseOfLongLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() })[0]
	row := newRow("old")
	rows := wrapper(t, cache, row.load, readthrough.WithLeaseTTL(1500*time.Millisecond))
	got := make(chan error)
	go func() { _, err := rows.Get(context.Background(), 1); got <- err }()
	<-row.reading
	token := client.Get(t.Context(), "{row:1}:lease").Val()
	require.NotEmpty(t, token)
	// Only a renewal calls PEXPIRE. Four of them take longer than a lease lasts.
	require.Eventually(t, func() bool { return server.CommandStats()["pexpire"] >= 4 }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, token, client.Get(t.Context(), "{row:1}:lease").Val())
	close(row.goOn)
	require.NoError(t, <-got)
	require.EqualValues(t, 1, rows.Stats().Fills)
}

func TestGet_LoadsUnstoredWhenLeaseOfDeadProcessOutlastsLeaseWait(t *testing.T) {
	cache, server := newCache(t)
	require.NoError(t, server.Set("{row:1}:lease", "of a process that died"))
	rows := wrapper(t, cache, constant(1), readthrough.WithLeaseWait(time.Millisecond))
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, 1, v)
	require.False(t, server.Exists("row:1"), "loaded without a lease: not stored")
	server.Del("{row:1}:lease")
	_, err = rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.True(t, server.Exists("row:1"))
}

func TestGet_CostsOneRoundTripForHitAndThreeForMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	var trips atomic.Int64
	client.AddHook(&redistest.TripCounter{Trips: &trips})
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	rows := readthrough.Must(readthrough.New(cache, "row", func(_ context.Context, id int) (int, error) { return id, nil }, readthrough.Int))
	_, err := rows.Get(t.Context(), 1) // also teaches Redis the script
	require.NoError(t, err)
	for name, want := range map[int]int64{2: 3, 1: 1} { // a miss, a hit
		before := trips.Load()
		_, err = rows.Get(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, trips.Load()-before, "key %d", name)
	}
}

// commandsSince returns how often each command was sent to the server since its last ResetStats,
// apart from what opens a connection or is sent once in the background.
func commandsSince(server *redistest.Server) map[string]int64 {
	calls := server.CommandStats()
	for _, name := range []string{"hello", "client|setinfo", "client|maint_notifications", "config|resetstat", "info", "role"} {
		delete(calls, name)
	}
	return calls
}

// tripsAndCommands returns a wrapper, its own server, and a function that says what a call costs
// there. Negative ids are not found, and from 1,000,000 on the database is down.
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

func TestCalls_CostTheseRoundTrips(t *testing.T) {
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
		"set":                    {func(int) { _ = rows.Set(ctx, 102, 1) }, 1, commands{"set": 1, "unlink": 1}},
		"refresh":                {func(int) { _, _ = rows.Refresh(ctx, 103) }, 2, commands{"set": 1 + 1, "evalsha": 1, "get": 1, "del": 1}},
		"invalidation of three":  {func(int) { _ = rows.Invalidate(ctx, 1, 2, 3) }, 1, commands{"unlink": 3 + 3}},
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

// TestGet_TeachesRedisScriptWithFirstFill holds that the first fill of a process costs nothing
// more. The one exception is a server that has forgotten its scripts: it is sent them in a fourth
// round trip.
func TestGet_TeachesRedisScriptWithFirstFill(t *testing.T) {
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
