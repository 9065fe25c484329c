package faults

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

const (
	// tooLong is more than a caller waits on the busiest machine, and less than go-redis's own
	// timeouts: 3 s for a read and 5 s for a dial, each several times over.
	tooLong = 2 * time.Second
	// hitsBack is twice what hits take to be back once Redis is: up to a second until the pool of
	// go-redis dials again, and another until the breaker lets a probe through.
	hitsBack = 4 * time.Second
	// openFor is WithBreaker's default: how often an open breaker lets a probe through.
	openFor = time.Second
	// pauseFor is longer than what happens during a fault takes.
	pauseFor = 6 * time.Second
)

// fault is something that happens to a server.
type fault struct {
	name         string
	args         []string // of the server
	cold         bool     // it has happened before the first call
	down         bool     // nobody gets a useful answer while it lasts
	full         bool     // nothing can be stored while it lasts
	breaks, mend func(t *testing.T, s *redistest.Server)
}

var faults = []fault{
	{name: "refused", cold: true, down: true, breaks: kill, mend: restart},
	{name: "killed", down: true, breaks: kill, mend: restart},
	{name: "restarted", breaks: restart, mend: nothing},
	{name: "hung", down: true, breaks: pause, mend: resume},
	{name: "client pause", down: true, breaks: pauseClients, mend: awaitAnswer},
	{name: "out of memory", full: true, breaks: setMaxMemory("1"), mend: setMaxMemory("0"),
		args: []string{"--maxmemory-policy", "noeviction"}},
	{name: "loading", down: true, breaks: loadSlowly, mend: loadFast,
		args: []string{"--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"}}, // 20 ms a key
}

// eight are the ids of as many rows.
var eight = []int{0, 1, 2, 3, 4, 5, 6, 7}

func kill(_ *testing.T, s *redistest.Server) { s.Kill() }

func restart(_ *testing.T, s *redistest.Server) { s.Restart() }

func pause(_ *testing.T, s *redistest.Server) { s.Pause() }

func resume(_ *testing.T, s *redistest.Server) { s.Resume() }

func nothing(*testing.T, *redistest.Server) {}

func pauseClients(t *testing.T, s *redistest.Server) {
	require.NoError(t, s.Client().Do(t.Context(), "client", "pause", pauseFor.Milliseconds(), "all").Err())
}

// awaitAnswer returns when the server answers. A pause of all clients holds up what would end it,
// too.
func awaitAnswer(t *testing.T, s *redistest.Server) {
	patient := s.Client(func(o *redis.Options) { o.ReadTimeout = time.Minute })
	require.NoError(t, patient.Ping(t.Context()).Err())
}

func setMaxMemory(limit string) func(*testing.T, *redistest.Server) {
	return func(t *testing.T, s *redistest.Server) {
		require.NoError(t, s.Client().ConfigSet(t.Context(), "maxmemory", limit).Err())
	}
}

// loadSlowly restarts the server with its data, and with so much more that it says LOADING until
// loadFast.
func loadSlowly(t *testing.T, s *redistest.Server) {
	noise := make([]byte, 1024)
	_, err := s.Client().Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range 1000 {
			for j := range noise {
				noise[j] = byte(rand.Uint32())
			}
			p.Set(t.Context(), fmt.Sprint("noise:", i), bytes.Clone(noise), 0)
		}
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, s.Client().Save(t.Context()).Err())
	s.Restart()
	require.ErrorContains(t, s.Client().Get(t.Context(), "k").Err(), "LOADING")
}

func loadFast(t *testing.T, s *redistest.Server) {
	c := s.Client()
	require.NoError(t, c.ConfigSet(t.Context(), "key-load-delay", "0").Err())
	require.Eventually(t, func() bool { return c.Ping(t.Context()).Err() == nil }, 20*time.Second, time.Millisecond)
}

// opened makes clients with Open.
func opened(t *testing.T, url string) func() redis.UniversalClient {
	return func() redis.UniversalClient {
		client, err := readthrough.Open(url)
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
}

// TestGet_AnswersThroughEveryFault has each fault happen to the users of a client of go-redis's
// defaults, and of one from Open. When all is over, nothing runs on.
func TestGet_AnswersThroughEveryFault(t *testing.T) {
	noNewGoroutines := goleak.IgnoreCurrent()
	t.Run("fault", func(t *testing.T) {
		if !testing.Short() { // elections take seconds: they begin first
			t.Run("failover of a cluster", failOverCluster)
			t.Run("failover by sentinels", failOverSentinel)
		}
		for _, f := range faults {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t, f.args...)
				f.strike(t, server, eight, func() redis.UniversalClient { return server.Client() })
			})
			t.Run(f.name+", client from Open", func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t, f.args...)
				f.strike(t, server, eight, opened(t, server.URL()))
			})
		}
	})
	goleak.VerifyNone(t, noNewGoroutines, goleak.IgnoreAnyFunction(redistest.Redialer))
}

// failOverCluster has the master killed that holds all the rows, and its replica take over. One of
// the two processes has a client of go-redis's defaults, the other one from Open.
func failOverCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 1)
	client := func() redis.UniversalClient { return cluster.Client() }
	ids := ofFirstMaster(t, client())
	failover := fault{down: true, breaks: kill, mend: func(t *testing.T, s *redistest.Server) {
		cluster.FailOverAfter(2 * time.Second)
		awaitWrites(t, client, fmt.Sprintf("{row:%d}", ids[0]))
		// Nothing but the killed node, now a replica, tells go-redis before a minute has passed.
		s.Restart()
		awaitReplica(t, s)
	}}
	cluster.FailOverAfter(time.Hour) // not before the callers have seen the outage
	failover.strike(t, cluster.Masters()[0], ids, inTurn(client, opened(t, cluster.URL())))
}

// failOverSentinel does the same to a master with sentinels.
func failOverSentinel(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t)
	client := func() redis.UniversalClient { return sentinel.Client() }
	failover := fault{down: true, breaks: kill, mend: func(t *testing.T, _ *redistest.Server) {
		sentinel.FailOverAfter(time.Second)
		awaitWrites(t, client, "k")
	}}
	sentinel.FailOverAfter(time.Hour) // not before the callers have seen the outage
	failover.strike(t, sentinel.Master(), eight, inTurn(client, opened(t, sentinel.URL())))
}

// ofFirstMaster finds eight rows whose slots are of the first of three masters.
func ofFirstMaster(t *testing.T, client redis.UniversalClient) []int {
	var ids []int
	for id := 0; len(ids) < 8; id++ {
		slot, err := client.ClusterKeySlot(t.Context(), "row:"+fmt.Sprint(id)).Result()
		require.NoError(t, err)
		if slot < 16384/3 {
			ids = append(ids, id)
		}
	}
	return ids
}

// inTurn calls the functions in turn.
func inTurn[V any](fs ...func() V) func() V {
	i := -1
	return func() V {
		i++
		return fs[i%len(fs)]()
	}
}

// awaitWrites returns when somebody new can write key, which is when there is a master again.
func awaitWrites(t *testing.T, client func() redis.UniversalClient, key string) {
	t.Helper()
	require.Eventually(t, func() bool {
		c := client()
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return c.Unlink(ctx, key).Err() == nil
	}, 30*time.Second, 50*time.Millisecond)
}

// awaitReplica returns when the server has found out that it is a replica now.
func awaitReplica(t *testing.T, s *redistest.Server) {
	t.Helper()
	c := s.Client()
	require.Eventually(t, func() bool {
		role, err := c.Do(t.Context(), "role").Slice()
		return err == nil && role[0] == "slave"
	}, 30*time.Second, 5*time.Millisecond)
}
