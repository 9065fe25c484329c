package local

import (
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// eachRedis runs a test on miniredis and on a redis-server.
func eachRedis(t *testing.T, test func(t *testing.T, client redis.UniversalClient)) {
	t.Run("miniredis", func(t *testing.T) { t.Parallel(); test(t, miniClient(t)) })
	t.Run("redis-server", func(t *testing.T) { t.Parallel(); test(t, redistest.Start(t).Client()) })
	t.Run("RESP2", func(t *testing.T) {
		t.Parallel()
		test(t, redistest.Start(t).Client(func(o *redis.Options) { o.Protocol = 2 }))
	})
}

func TestFence_DropsCopiesInAllProcesses(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		a, b, writer := newProcess(t, client, true), newProcess(t, client, true), newProcess(t, client, false)
		a.awaitReady(t)
		b.awaitReady(t)
		age(t, client)
		for _, p := range []*process{a, b} {
			p.keep(t, "1", "old")
			p.keep(t, "2", "other")
		}
		began := time.Now()
		require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
		for _, p := range []*process{a, b} {
			require.Empty(t, p.get("1"))
			require.Equal(t, "other", p.get("2"))
		}
		require.Less(t, time.Since(began), testLease, "all have acknowledged")
		require.Zero(t, writer.count(Waited))
		require.EqualValues(t, 2, writer.Members())
	})
}

// hang keeps a process from hearing and acknowledging anything, as if it were stopped, until resume.
func (p *process) hang(t *testing.T) (resume func()) {
	p.Tier.mu.Lock()
	resume = sync.OnceFunc(p.Tier.mu.Unlock)
	t.Cleanup(resume)
	return resume
}

func TestFence_WaitsOutLeaseOfSilentMemberOnce(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		silent, writer := newProcess(t, client, true), newProcess(t, client, true)
		silent.awaitReady(t)
		writer.awaitReady(t)
		age(t, client)
		silent.keep(t, "1", "old")
		resume := silent.hang(t)
		began := time.Now()
		require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
		require.Greater(t, time.Since(began), testLease)
		require.Equal(t, 1, writer.count(Waited))
		_, leased := silent.copies.Now()
		require.False(t, leased)
		require.Eventually(t, func() bool { // it is removed 1.1 leases after the first fence
			began := time.Now()
			require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
			return time.Since(began) < testLease/8
		}, 2*testLease, time.Millisecond)
		require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
		require.Zero(t, writer.Members())
		resume()
		silent.awaitReady(t) // it was refused renewals, and has joined anew
		require.Equal(t, 1, silent.count(Lost))
		require.Empty(t, silent.get("1"))
	})
}

func TestTier_FlushesAndRejoinsWhenItsConnectionIsLost(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	p, writer := newProcess(t, client, true), newProcess(t, client, false)
	p.awaitReady(t)
	age(t, client)
	p.keep(t, "1", "old")
	asked := p.copies.Note("2") // and Redis is asked, before a fence is missed
	require.NoError(t, client.Do(t.Context(), "client", "kill", "type", "pubsub").Err())
	require.Eventually(t, func() bool { return p.count(Ready) == 2 }, 10*time.Second, time.Millisecond)
	require.Empty(t, p.get("1"))
	p.copies.Keep("2", asked, time.Minute, "old")
	require.Empty(t, p.get("2"))
	require.Equal(t, 1, p.count(Lost))
	began := time.Now()
	require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
	require.Less(t, time.Since(began), testLease, "its old name is not waited for")
}

func TestTier_FlushesAndRejoinsWhenTableIsLost(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"state", "table"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			client := miniClient(t)
			p, writer := newProcess(t, client, true), newProcess(t, client, false)
			p.awaitReady(t)
			age(t, client)
			p.keep(t, "1", "old")
			resume := p.hang(t)
			require.NoError(t, client.Del(t.Context(), "p:{p:local}:"+key).Err())
			began := time.Now()
			require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
			require.Greater(t, time.Since(began), testLease, "a new table knows nothing of the leases there are")
			resume()
			require.Eventually(t, func() bool { return p.count(Ready) == 2 }, 10*time.Second, time.Millisecond)
			require.Empty(t, p.get("1"))
			age(t, client)
			began = time.Now()
			require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
			require.Less(t, time.Since(began), testLease)
		})
	}
}

func TestTier_LeavesAndRejoinsWhenFenceWasMissed(t *testing.T) {
	t.Parallel()
	client := miniClient(t)
	p := newProcess(t, client, true)
	p.awaitReady(t)
	p.keep(t, "1", "old")
	require.NoError(t, client.HIncrBy(t.Context(), "p:{p:local}:state", "seq", 1).Err()) // a fence that nobody heard of
	require.Eventually(t, func() bool { return p.count(Ready) == 2 }, 10*time.Second, time.Millisecond)
	require.ErrorIs(t, p.last[Lost], errGap)
	require.Empty(t, p.get("1"))
}

func TestTier_RefusesToJoinFleetOfOtherLease(t *testing.T) {
	t.Parallel()
	client := miniClient(t)
	p := newProcess(t, client, true)
	p.awaitReady(t)
	age(t, client)
	other := newProcess(t, client, true, func(c *Config) { c.Lease = testLease / 2 })
	require.Eventually(t, func() bool { return other.count(Lost) == 1 }, 10*time.Second, time.Millisecond)
	require.ErrorContains(t, other.last[Lost], "the lease is 500000us, but the other processes have one of 1000000us")
	resume := p.hang(t)
	began := time.Now()
	require.NoError(t, other.Fence(t.Context(), true, "p:row:1"))
	require.Greater(t, time.Since(began), testLease, "it waits out the lease of the others, not its own")
	resume()
	p.Retire(t.Context())
	other.awaitReady(t)
	require.Equal(t, 1, other.count(Lost))
}

func TestRetire_LeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	client := miniClient(t)
	p, writer := newProcess(t, client, true), newProcess(t, client, true)
	p.awaitReady(t)
	writer.awaitReady(t)
	age(t, client)
	p.keep(t, "1", "old")
	p.Retire(t.Context())
	_, leased := p.copies.Now()
	require.False(t, leased)
	require.NoError(t, writer.Fence(t.Context(), true, "p:row:1"))
	require.Zero(t, writer.Members())
	require.NoError(t, p.Fence(t.Context(), true, "p:row:1"), "it can still write")
}

func TestTier_DoesWithoutWhatRedisRefuses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for user, rule := range map[string]string{"nosub": "-subscribe", "noeval": "-@scripting", "nochannels": "resetchannels"} {
		t.Run(user, func(t *testing.T) {
			admin := server.Client()
			require.NoError(t, admin.Do(t.Context(), "acl", "setuser", user, "on", "nopass", "~*", "&*", "+@all", rule).Err())
			client := server.Client(func(o *redis.Options) { o.Username, o.Password = user, "x" })
			p := newProcess(t, client, true)
			require.Eventually(t, func() bool { return p.count(Refused) == 1 }, 10*time.Second, time.Millisecond)
			require.NoError(t, p.Fence(t.Context(), false, "p:row:1"))
			require.Equal(t, 1, p.count(Refused), "it is told once")
			_, leased := p.copies.Now()
			require.False(t, leased)
		})
	}
}
