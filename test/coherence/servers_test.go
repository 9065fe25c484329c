//go:build linux

package coherence

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// TestServers_KeepThePromises runs the main promises on each server that speaks Redis's language and is installed here.
// .ci/servers fetches more of them.
func TestServers_KeepThePromises(t *testing.T) {
	t.Parallel()
	found, missing := redistest.Binaries()
	if len(found) == 0 {
		redistest.Start(t) // skips, or fails
	}
	t.Logf("tried: %q; skipped, for they are not on PATH: %q", found, missing)
	for _, binary := range found {
		t.Run(binary, func(t *testing.T) { // one after the other: each has the machine's attention
			server := redistest.StartBinary(t, binary)
			t.Log(server.Version())
			for name, promise := range serverPromises {
				t.Run(name, func(t *testing.T) {
					server.FlushAll()
					promise(t, server)
				})
			}
			t.Run("no read is stale under stress", func(t *testing.T) {
				server.FlushAll()
				newStress(t, server, 5_000).run()
			})
		})
	}
}

// serverPromises is what each server is tried with, one after the other, on a server that is empty.
var serverPromises = map[string]func(t *testing.T, server *redistest.Server){
	"a cold key is loaded once": func(t *testing.T, server *redistest.Server) {
		db := newGate(1)
		a, b := db.wrap(t, server), db.wrap(t, server)
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() { db.want(t, a, 1) })
			callers.Go(func() { db.want(t, b, 1) })
		}
		<-db.reading
		close(db.goOn)
		callers.Wait()
		require.EqualValues(t, 1, db.loads.Load())
	},
	"a load that began before an Invalidate is not stored": func(t *testing.T, server *redistest.Server) {
		db := newGate(1)
		a, b := db.wrap(t, server), db.wrap(t, server)
		var caller sync.WaitGroup
		caller.Go(func() { db.want(t, a, 1) })
		<-db.reading
		db.version.Store(2)
		require.NoError(t, b.Invalidate(t.Context(), 1))
		close(db.goOn)
		caller.Wait()
		db.want(t, a, 2)
		db.want(t, b, 2)
		require.EqualValues(t, 1, a.Stats().RefusedFills)
	},
	"what was set is got, until it is deleted": func(t *testing.T, server *redistest.Server) {
		db := newOpenGate(3)
		a, b := db.wrap(t, server), db.wrap(t, server)
		require.NoError(t, a.Set(t.Context(), 1, 2))
		db.want(t, b, 2)
		require.NoError(t, b.Invalidate(t.Context(), 1))
		db.want(t, a, 3)
	},
	"what expired is served once more, and refreshed": func(t *testing.T, server *redistest.Server) {
		db := newOpenGate(1)
		a := db.wrap(t, server, readthrough.WithStale(time.Minute))
		db.want(t, a, 1)
		db.version.Store(2)
		require.NoError(t, a.Expire(t.Context(), 1))
		db.want(t, a, 1)
		require.Eventually(t, func() bool { v, err := a.Peek(t.Context(), 1); return err == nil && v == 2 }, patientRedis, time.Millisecond)
	},
	"not found is remembered, many are got at once": func(t *testing.T, server *redistest.Server) {
		db := newOpenGate(0)
		a := db.wrap(t, server, readthrough.WithNotFound(time.Minute, errNoRow))
		for range 2 {
			results, err := a.GetMany(t.Context(), []int{1, 2, 3})
			require.NoError(t, err)
			for _, r := range results {
				require.ErrorIs(t, r.Err, errNoRow)
			}
		}
		require.EqualValues(t, 3, db.loads.Load())
		require.EqualValues(t, 3, a.Stats().NegativeHits)
	},
	"a lease that nobody gives back ends by itself": func(t *testing.T, server *redistest.Server) {
		db := newOpenGate(1)
		require.NoError(t, server.Client().Set(t.Context(), "{row:1}:lease", "of a dead process", 50*time.Millisecond).Err())
		db.want(t, db.wrap(t, server), 1)
	},
	"a restart is a miss": func(t *testing.T, server *redistest.Server) {
		db := newOpenGate(1)
		a := db.wrap(t, server)
		db.want(t, a, 1)
		server.Restart()
		require.Eventually(t, func() bool { db.want(t, a, 1); return a.Stats().Fills == 2 }, patientRedis, time.Millisecond)
		db.want(t, a, 1)
		require.Positive(t, a.Stats().Hits)
	},
}

// gate is a database of one version in all rows, whose first load waits until it may go on. Version 0 is no row.
type gate struct {
	version       atomic.Int64
	loads         atomic.Int64
	reading, goOn chan struct{}
}

func newGate(version int64) *gate {
	g := &gate{reading: make(chan struct{}), goOn: make(chan struct{})}
	g.version.Store(version)
	return g
}

// newOpenGate returns a gate at which nobody waits.
func newOpenGate(version int64) *gate {
	g := newGate(version)
	close(g.goOn)
	return g
}

func (g *gate) load(context.Context, int) (int64, error) {
	v := g.version.Load()
	if g.loads.Add(1) == 1 {
		close(g.reading)
		<-g.goOn
	}
	if v == 0 {
		return 0, errNoRow
	}
	return v, nil
}

// wrap returns g in a Cache of its own.
func (g *gate) wrap(t *testing.T, server *redistest.Server, opts ...readthrough.Option) *readthrough.ReadThrough[int, int64] {
	t.Helper()
	return g.wrapClient(t, server.Client(func(o *redis.Options) { o.DialerRetries = 1 }), opts...)
}

// wrapClient returns g in a Cache of its own, with that client.
func (g *gate) wrapClient(t *testing.T, client *redis.Client, opts ...readthrough.Option) *readthrough.ReadThrough[int, int64] {
	t.Helper()
	cache, err := readthrough.NewCache(client, readthrough.WithRedisTimeout(patientRedis))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	rt, err := readthrough.New(cache, "row", g.load, readthrough.Int, opts...)
	require.NoError(t, err)
	return rt
}

// want fails the test unless row 1 is of that version. It may be called on any goroutine.
func (g *gate) want(t *testing.T, rt *readthrough.ReadThrough[int, int64], version int64) {
	t.Helper()
	if v, err := rt.Get(t.Context(), 1); err != nil || v != version {
		t.Errorf("got version %d, %v, want %d", v, err, version)
	}
}
