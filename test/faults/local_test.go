package faults

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// localLease is longer than a busy machine keeps a process waiting.
const localLease = 2 * time.Second

// TestLocal_SilentHolderHoldsWritersUpOnce stops and kills a process that holds copies: the fleet's
// writers wait once, for no longer than 1.1 leases, and then go on as before.
func TestLocal_SilentHolderHoldsWritersUpOnce(t *testing.T) {
	t.Parallel()
	for how, silence := range map[string]func(h *handle){
		"SIGSTOP": func(h *handle) { h.Pause() },
		"SIGKILL": func(h *handle) { h.kill() },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			f := startProcesses(t, slices.Repeat([]memberConfig{{URL: server.URL(), LocalLease: localLease}}, fleetSize)...)
			f.invalidateQuickly("first")
			f.hold("old")
			silence(f.members[0])
			began := time.Now()
			done := []<-chan report{f.members[1].order(order{Do: "invalidate"}), f.members[2].order(order{Do: "invalidate"})}
			for _, d := range done {
				require.Empty(t, receive(t, d).Err)
			}
			require.Greater(t, time.Since(began), localLease/2, "the copies of the silent process may be served until then")
			require.Less(t, time.Since(began), localLease*13/10)
			f.requireValue(f.members[1], "new")
			time.Sleep(max(0, localLease*12/10-time.Since(began))) // it is removed after 1.1 leases
			f.invalidateQuickly("again")
			if how == "SIGSTOP" {
				f.members[0].Resume()
				f.requireValue(f.members[0], "again")
			}
		})
	}
}

// TestLocal_SurvivesLossOfConnectionsAndRestart has all processes lose the connections on which they
// hear of fences, and Redis restart without its data.
func TestLocal_SurvivesLossOfConnectionsAndRestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := startProcesses(t, slices.Repeat([]memberConfig{{URL: server.URL(), LocalLease: localLease}}, fleetSize)...)
	for what, happens := range map[string]func(){
		"CLIENT KILL": func() { require.NoError(t, f.redis.Do(t.Context(), "client", "kill", "type", "pubsub").Err()) },
		"restart":     server.Restart,
		"lost table":  server.FlushAll,
	} {
		f.hold(what)
		happens()
		require.Eventually(t, func() bool { return receive(t, f.members[1].order(order{Do: "invalidate"})).Err == "" }, soon, time.Millisecond)
		for _, m := range f.members {
			f.requireValue(m, "after "+what)
		}
	}
}

// hold has all members keep a copy of the row, of value v.
func (f *processes) hold(v string) {
	f.t.Helper()
	require.Empty(f.t, receive(f.t, f.members[0].order(order{Do: "set", Value: v})).Err)
	for _, m := range f.members {
		before := m.stats().LocalHits
		require.Eventually(f.t, func() bool {
			r := receive(f.t, m.get(1))
			require.Equal(f.t, map[string]int{v: 1}, r.Values)
			return m.stats().LocalHits > before
		}, soon, time.Millisecond)
	}
}

// requireValue reads the row, which was invalidated, and wants v of the loader, or of another load of it.
func (f *processes) requireValue(m *handle, v string) {
	f.t.Helper()
	done := m.get(1)
	for {
		select {
		case loading := <-f.loads:
			loading.answer(v)
		case r := <-done:
			require.Empty(f.t, r.Err)
			require.Equal(f.t, map[string]int{v: 1}, r.Values)
			return
		case <-time.After(soon):
			require.FailNow(f.t, "no answer")
		}
	}
}

// invalidateQuickly invalidates the row until that takes no wait for a lease, and has it read as v.
func (f *processes) invalidateQuickly(v string) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		began := time.Now()
		f.members[1].do(order{Do: "invalidate"})
		return time.Since(began) < localLease/10
	}, soon, time.Millisecond)
	f.requireValue(f.members[1], v)
}

// localOptions returns the options of a process that keeps copies.
func (c memberConfig) localOptions() []readthrough.CacheOption {
	if c.LocalLease == 0 {
		return nil
	}
	return []readthrough.CacheOption{readthrough.WithLocal(1 << 20), readthrough.WithLocalLease(c.LocalLease)}
}

// TestLocal_KeepsItsPromiseOnClusterAndSentinel invalidates where keys and table are on different
// nodes, and has another primary take over.
func TestLocal_KeepsItsPromiseOnClusterAndSentinel(t *testing.T) {
	t.Parallel()
	round := func(f *processes, v string) {
		f.t.Helper()
		f.hold("held " + v)
		require.Eventually(f.t, func() bool { return receive(f.t, f.members[1].order(order{Do: "invalidate"})).Err == "" }, soon, time.Millisecond)
		for _, m := range f.members {
			f.requireValue(m, v)
		}
	}
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		conf := memberConfig{URL: redistest.StartCluster(t, 3, 0).URL(), LocalLease: localLease}
		f := startProcesses(t, slices.Repeat([]memberConfig{conf}, fleetSize)...)
		round(f, "first")
		round(f, "second")
	})
	t.Run("sentinel", func(t *testing.T) {
		t.Parallel()
		s := redistest.StartSentinel(t)
		f := startProcesses(t, slices.Repeat([]memberConfig{{URL: s.URL(), LocalLease: localLease}}, fleetSize)...)
		round(f, "before")
		s.Failover()
		round(f, "after")
	})
}
