package faults

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// rowCount is how many rows there are: on a cluster, each node has some.
const rowCount = 60

// rollback is a Redis that forgets what it was told last.
type rollback struct {
	client func() redis.UniversalClient
	keep   func() // Redis will come back with what it has now, and lease and entry are there
	lose   func() // and comes back
}

// restartFromSnapshot is a server that is killed, and starts from its snapshot.
func restartFromSnapshot(t *testing.T) rollback {
	server := redistest.Start(t)
	return rollback{
		client: func() redis.UniversalClient { return server.Client() },
		keep:   func() { require.NoError(t, server.Client().Save(t.Context()).Err()) },
		lose:   server.Restart,
	}
}

// sentinelFailover is a master whose replica is promoted.
func sentinelFailover(t *testing.T) rollback {
	s := redistest.StartSentinel(t)
	master, replica := s.Servers()[0], s.Servers()[1]
	return rollback{
		client: func() redis.UniversalClient { return s.Client() },
		keep:   func() { detach(t, master, replica) },
		lose: func() {
			promote(master, replica)
			require.Eventually(t, func() bool { return s.Master() == replica && isPrimary(t, replica) }, soon, 10*time.Millisecond)
		},
	}
}

// clusterFailover is a cluster of which the first master's replica is promoted.
func clusterFailover(t *testing.T) rollback {
	c := redistest.StartCluster(t, 3, 1)
	master, replica := c.Masters()[0], c.Nodes()[3]
	return rollback{
		client: func() redis.UniversalClient {
			return redis.UniversalClient(readthrough.Must(readthrough.Open(c.URL()))) // looks for the new master each 5 s
		},
		keep: func() { detach(t, master, replica) },
		lose: func() {
			promote(master, replica)
			require.Eventually(t, func() bool { return isPrimary(t, replica) }, soon, 10*time.Millisecond)
		},
	}
}

// detach returns when the replica has all that the master has, and will not get any more.
func detach(t *testing.T, master, replica *redistest.Server) {
	t.Helper()
	client := master.Client()
	n, err := client.Wait(t.Context(), 1, soon).Result()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	replica.Pause()
	require.NoError(t, client.ClientKillByFilter(t.Context(), "type", "replica").Err())
}

// promote kills the master, and has the replica go on.
func promote(master, replica *redistest.Server) {
	master.Kill()
	replica.Resume()
}

func isPrimary(t *testing.T, server *redistest.Server) bool {
	t.Helper()
	info, err := server.Client().Info(t.Context(), "replication").Result()
	return err == nil && strings.Contains(info, "role:master")
}

var rollbacks = map[string]func(*testing.T) rollback{
	"restart from a snapshot": restartFromSnapshot, "failover by sentinels": sentinelFailover, "failover in a cluster": clusterFailover,
}

// ledger is a table whose rows all have its version.
type ledger struct{ version, loads atomic.Int64 }

func (l *ledger) load(context.Context, int) (int64, error) {
	l.loads.Add(1)
	return l.version.Load(), nil
}

func TestFailoverSafety_ServesNothingThatWasInvalidatedBefore(t *testing.T) {
	t.Parallel()
	for name, start := range rollbacks {
		for _, safe := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, %t", name, safe), func(t *testing.T) {
				t.Parallel()
				redisOf := start(t)
				opts := []readthrough.CacheOption{readthrough.WithTTL(time.Hour), readthrough.WithStale(time.Hour)}
				if safe {
					opts = append(opts, readthrough.WithFailoverSafety())
				}
				caches := fleet(t, 2, func() redis.UniversalClient {
					client := redisOf.client()
					t.Cleanup(func() { _ = client.Close() }) // again, for those that are closed with the test
					return client
				}, opts...)
				db := &ledger{}
				writer, reader := wrapper(t, caches[0], db.load), wrapper(t, caches[1], db.load)
				ids := upTo(rowCount)
				requireVersions(t, writer, ids, 0)
				requireVersions(t, reader, ids, 0)
				require.EqualValues(t, rowCount, db.loads.Load(), "all are hits of the other's")

				redisOf.keep()
				db.version.Add(1)
				require.NoError(t, writer.Invalidate(t.Context(), ids...))
				redisOf.lose()
				awaitStored(t, caches)

				old := 0
				for _, rows := range []*readthrough.ReadThrough[int, int64]{writer, reader} {
					for _, r := range readthrough.Must(rows.GetMany(t.Context(), ids)) {
						require.NoError(t, r.Err)
						if r.Value == 0 {
							old++
						}
					}
				}
				if !safe {
					require.NotZero(t, old, "without the option, invalidated entries come back: else this tests nothing")
					return
				}
				require.Zero(t, old)
				before := db.loads.Load()
				requireVersions(t, reader, ids, 1)
				requireVersions(t, writer, ids, 1)
				require.Equal(t, before, db.loads.Load(), "and the new primary's entries are hits")
			})
		}
	}
}

// requireVersions asks for the rows of ids one by one.
func requireVersions(t *testing.T, rows *readthrough.ReadThrough[int, int64], ids []int, version int64) {
	t.Helper()
	for _, id := range ids {
		v, err := rows.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, version, v)
	}
}

// awaitStored returns when all caches store, on all nodes, again.
func awaitStored(t *testing.T, caches []*readthrough.Cache) {
	t.Helper()
	for _, cache := range caches {
		for id := range rowCount {
			key := fmt.Sprintf("probe:%d", id)
			require.Eventually(t, func() bool {
				if readthrough.Set(t.Context(), cache, key, id, time.Hour) != nil {
					return false
				}
				_, err := readthrough.Get[int](t.Context(), cache, key)
				return err == nil
			}, soon, 10*time.Millisecond)
		}
	}
}

// BenchmarkHit_WithFailoverSafety is what WithFailoverSafety costs a hit, by the number of goroutines.
func BenchmarkHit_WithFailoverSafety(b *testing.B) {
	for _, goroutines := range []int{1, 128} {
		for _, safe := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/%t", goroutines, safe), func(b *testing.B) {
				var opts []readthrough.CacheOption
				if safe {
					opts = append(opts, readthrough.WithFailoverSafety())
				}
				client := redistest.Start(b).Client()
				cache := readthrough.Must(readthrough.NewCache(client, opts...))
				defer cache.Close()
				rows := readthrough.Must(readthrough.New(cache, "row", constant(strings.Repeat("x", 200)), readthrough.Int))
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				for id := range rowCount {
					_, err := rows.Get(ctx, id)
					require.NoError(b, err)
				}
				b.ReportAllocs()
				b.ResetTimer()
				var callers sync.WaitGroup
				for g := range goroutines {
					callers.Go(func() { // ends with its share
						for i := g; i < b.N; i += goroutines {
							_, _ = rows.Get(ctx, i%rowCount)
						}
					})
				}
				callers.Wait()
				require.EqualValues(b, rowCount, rows.Stats().Loads)
			})
		}
	}
}
