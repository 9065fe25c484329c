package readthrough_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

const (
	// tooLong is more than a caller waits on the busiest machine, and less than go-redis's own timeouts: 3 s for a
	// read and 5 s for a dial, each several times over.
	tooLong = 2 * time.Second
	// hitsBack is twice what hits take to be back once Redis is: up to a second until the pool of go-redis dials
	// again, and another until the breaker lets a probe through.
	hitsBack = 4 * time.Second
	// openFor is WithBreaker's default: how often an open breaker lets a probe through.
	openFor = time.Second
	// pauseFor is longer than what happens during a fault takes.
	pauseFor = 4 * time.Second
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

func kill(_ *testing.T, s *redistest.Server)    { s.Kill() }
func restart(_ *testing.T, s *redistest.Server) { s.Restart() }
func pause(_ *testing.T, s *redistest.Server)   { s.Pause() }
func resume(_ *testing.T, s *redistest.Server)  { s.Resume() }
func nothing(*testing.T, *redistest.Server)     {}

func pauseClients(t *testing.T, s *redistest.Server) {
	require.NoError(t, s.Client().Do(t.Context(), "client", "pause", pauseFor.Milliseconds(), "all").Err())
}

// awaitAnswer returns when the server answers. A pause of all clients holds up what would end it, too.
func awaitAnswer(t *testing.T, s *redistest.Server) {
	patient := s.Client(func(o *redis.Options) { o.ReadTimeout = time.Minute })
	require.NoError(t, patient.Ping(t.Context()).Err())
}

func setMaxMemory(limit string) func(*testing.T, *redistest.Server) {
	return func(t *testing.T, s *redistest.Server) {
		require.NoError(t, s.Client().ConfigSet(t.Context(), "maxmemory", limit).Err())
	}
}

// loadSlowly restarts the server with its data, and with so much more that it says LOADING until loadFast.
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

// TestCallersAreServedThroughEveryFault has each fault happen to the users of a client of go-redis's defaults, and of
// one from Open.
func TestCallersAreServedThroughEveryFault(t *testing.T) {
	noNewGoroutines := goleak.IgnoreCurrent()
	t.Run("fault", func(t *testing.T) {
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

// opened makes clients with Open.
func opened(t *testing.T, url string) func() redis.UniversalClient {
	return func() redis.UniversalClient {
		client, err := readthrough.Open(url)
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
}

// TestCallersAreServedThroughFailover has the master killed that holds all the rows, and its replica take over. One of
// the two processes has a client of go-redis's defaults, the other one from Open.
func TestCallersAreServedThroughFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("elections take seconds")
	}
	noNewGoroutines := goleak.IgnoreCurrent()
	t.Run("failover", func(t *testing.T) {
		t.Run("cluster", func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t, 3, 1)
			client := func() redis.UniversalClient { return cluster.Client() }
			ids := ofFirstMaster(t, client())
			failover := fault{down: true, breaks: kill, mend: func(t *testing.T, s *redistest.Server) {
				awaitWrites(t, client, fmt.Sprintf("{row:%d}", ids[0]))
				// Nothing but the killed node, now a replica, tells go-redis before a minute has passed.
				s.Restart()
				awaitReplica(t, s)
			}}
			failover.strike(t, cluster.Masters()[0], ids, inTurn(client, opened(t, cluster.URL())))
		})
		t.Run("sentinel", func(t *testing.T) {
			t.Parallel()
			sentinel := redistest.StartSentinel(t)
			client := func() redis.UniversalClient { return sentinel.Client() }
			failover := fault{down: true, breaks: kill, mend: func(t *testing.T, _ *redistest.Server) { awaitWrites(t, client, "k") }}
			failover.strike(t, sentinel.Master(), eight, inTurn(client, opened(t, sentinel.URL())))
		})
	})
	goleak.VerifyNone(t, noNewGoroutines, goleak.IgnoreAnyFunction(redistest.Redialer))
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

// scene is two processes that share a table and the Redis before it.
type scene struct {
	fault
	ids   []int
	table *table
	cache *readthrough.Cache
	rows  *readthrough.ReadThrough[int, int64]
	other *readthrough.ReadThrough[int, int64] // of the other process
	asks  *askCounter
	seen  *recorder
}

// strike tells the story of a fault: what callers see before it, while it lasts and after it. The ids are of rows that
// are cached on the server.
func (f fault) strike(t *testing.T, server *redistest.Server, ids []int, client func() redis.UniversalClient) {
	t.Helper()
	s := &scene{fault: f, ids: ids[1:], table: newTable(ids[0]), asks: &askCounter{}}
	s.seen = &recorder{kinds: map[readthrough.EventKind]readthrough.Event{}}
	mine := client()
	mine.AddHook(s.asks)
	s.cache = readthrough.Must(readthrough.NewCache(mine, readthrough.WithObserver(s.seen)))
	others := readthrough.Must(readthrough.NewCache(client()))
	s.rows, s.other = wrapper(t, s.cache, s.table.load), wrapper(t, others, s.table.load)
	if f.cold {
		f.breaks(t, server)
	} else {
		s.awaitHits(t, s.rows)
		s.awaitHits(t, s.other)
	}

	s.breakMidLoad(t, server)
	s.crowdIsServed(t)
	if f.down {
		s.breakerOpens(t)
	}
	s.write(t)
	s.crowdIsServed(t)
	f.mend(t, server)
	back := time.Now()
	s.awaitHits(t, s.rows)
	t.Logf("hits were back after %s", time.Since(back).Round(time.Millisecond))
	s.nothingIsStale(t)
	require.NoError(t, others.Close())
	require.NoError(t, s.cache.Close())
}

// awaitHits returns when one Get after the other is served from Redis.
func (s *scene) awaitHits(t *testing.T, rows *readthrough.ReadThrough[int, int64]) {
	t.Helper()
	require.Eventually(t, func() bool {
		before := rows.Stats().Hits
		for _, id := range s.ids {
			if _, err := rows.Get(t.Context(), id); err != nil {
				t.Errorf("row %d: %v", id, err)
			}
		}
		return rows.Stats().Hits == before+int64(len(s.ids))
	}, hitsBack, time.Millisecond)
}

// breakMidLoad has the fault happen while a loader is at work.
func (s *scene) breakMidLoad(t *testing.T, server *redistest.Server) {
	got := make(chan error, 1)
	go func() {
		v, err := s.rows.Get(context.Background(), s.table.held)
		if err == nil && v != s.table.row(s.table.held) {
			err = fmt.Errorf("got %d", v)
		}
		got <- err
	}()
	goOn := <-s.table.loading
	s.breaks(t, server)
	close(goOn)
	require.NoError(t, within(t, got))
}

// within returns what a caller got, unless that waits for too long.
func within(t *testing.T, got <-chan error) error {
	t.Helper()
	select {
	case err := <-got:
		return err
	case <-time.After(tooLong):
		t.Fatal("the caller still waits for Redis")
		return nil
	}
}

// crowdIsServed has 32 callers at a time ask for all rows. Each gets what is in the table, and soon.
func (s *scene) crowdIsServed(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	var longest atomic.Int64
	for i := range 32 {
		wg.Go(func() {
			for j := range s.ids {
				id := s.ids[(i+j)%len(s.ids)]
				began := time.Now()
				v, err := s.rows.Get(t.Context(), id)
				took := time.Since(began)
				if err != nil || v != s.table.row(id) || took > tooLong {
					t.Errorf("row %d: got %d, %v after %s", id, v, err, took)
				}
				for l := longest.Load(); int64(took) > l && !longest.CompareAndSwap(l, int64(took)); l = longest.Load() {
				}
			}
		})
	}
	wg.Wait()
	t.Logf("the longest Get took %s", time.Duration(longest.Load()).Round(time.Millisecond))
	require.False(t, t.Failed())
}

// breakerOpens has callers find out that Redis is down, and then be spared it.
func (s *scene) breakerOpens(t *testing.T) {
	t.Helper()
	for range 10 {
		if s.seen.saw(readthrough.EventBreakerOpen) {
			break
		}
		s.crowdIsServed(t)
	}
	require.True(t, s.seen.saw(readthrough.EventBreakerOpen))
	before, began := s.asks.Load(), time.Now()
	for range 5 {
		s.crowdIsServed(t)
	}
	require.LessOrEqual(t, s.asks.Load()-before, 1+int64(time.Since(began)/openFor), "only probes are sent")
}

// write changes three rows, and says so in each of the three ways. Who does learns that Redis does not know yet.
func (s *scene) write(t *testing.T) {
	t.Helper()
	began := time.Now()
	s.table.change(s.ids[0])
	invalidated := s.rows.Invalidate(t.Context(), s.ids[0])
	s.table.change(s.ids[1])
	set := s.rows.Set(t.Context(), s.ids[1], s.table.row(s.ids[1]))
	s.table.change(s.ids[2])
	key, err := s.rows.RedisKey(s.ids[2])
	require.NoError(t, err)
	deleted := s.cache.Delete(t.Context(), key)
	require.Less(t, time.Since(began), tooLong)
	require.Equal(t, s.down, invalidated != nil, "%v", invalidated)
	require.Equal(t, s.down || s.full, set != nil, "%v", set)
	require.Equal(t, s.down, deleted != nil, "%v", deleted)
	if s.down {
		require.EqualValues(t, 3, s.cache.Stats().PendingInvalidations)
		return
	}
	s.awaitInvalidations(t) // of what could not be set
}

func (s *scene) awaitInvalidations(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return s.cache.Stats().PendingInvalidations == 0 }, 10*time.Second, time.Millisecond)
}

// nothingIsStale checks that what was written during the fault has reached Redis, for this process and the other.
func (s *scene) nothingIsStale(t *testing.T) {
	t.Helper()
	s.awaitInvalidations(t)
	s.awaitHits(t, s.rows)
	s.awaitHits(t, s.other)
	for _, rows := range []*readthrough.ReadThrough[int, int64]{s.rows, s.other} {
		before := rows.Stats().Hits
		for _, id := range s.ids {
			v, err := rows.Get(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, s.table.row(id), v, "row %d", id)
		}
		require.EqualValues(t, len(s.ids), rows.Stats().Hits-before)
	}
	require.Equal(t, s.down, s.seen.saw(readthrough.EventBreakerOpen))
	require.Equal(t, s.down, s.seen.saw(readthrough.EventBreakerClosed))
}

// saw reports whether there was an event of the kind.
func (r *recorder) saw(kind readthrough.EventKind) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.kinds[kind]
	return ok
}

// table is a table of a database. A load of its held row says how it is told to go on, and waits for that.
type table struct {
	versions [100]atomic.Int64
	held     int
	loading  chan chan<- struct{}
}

func newTable(held int) *table { return &table{held: held, loading: make(chan chan<- struct{})} }

func (tb *table) change(id int) { tb.versions[id].Add(1) }

// row is what the row holds now: no two rows, and no two versions of one, are alike.
func (tb *table) row(id int) int64 { return tb.versions[id].Load()*int64(len(tb.versions)) + int64(id) }

func (tb *table) load(_ context.Context, id int) (int64, error) {
	if id == tb.held {
		goOn := make(chan struct{})
		tb.loading <- goOn
		<-goOn
	}
	return tb.row(id), nil
}

// askCounter counts what callers of Get begin with: the GET of a lookup and the SET of a lease.
type askCounter struct{ atomic.Int64 }

func (c *askCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *askCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.count(cmd)
		return next(ctx, cmd)
	}
}

func (c *askCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.count(cmds[0])
		return next(ctx, cmds)
	}
}

func (c *askCounter) count(cmd redis.Cmder) {
	if name := cmd.Name(); name == "get" || name == "set" {
		c.Add(1)
	}
}

func TestACallerWhoLeavesDoesNotWaitForAHungRedis(t *testing.T) {
	server, asks := redistest.Start(t), &askCounter{}
	client := server.Client()
	client.AddHook(asks)
	cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(time.Hour))[0]
	rows := wrapper(t, cache, constant(1))
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := rows.Get(ctx, 1); gone <- err }()
	require.Eventually(t, func() bool { return asks.Load() == 1 }, 5*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, within(t, gone), context.Canceled)
}

func TestFullRedisStillServes(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() })[0]
	rows := readthrough.Must(readthrough.New(cache, "row", func(_ context.Context, id int) (int, error) { return id, nil }, readthrough.Int))
	v, err := rows.Get(t.Context(), 3)
	require.NoError(t, err)
	require.Equal(t, 3, v)
	require.EqualValues(t, 1, rows.Stats().RedisErrors)
}

// TestNobodyWaitsForAHungRedisLongerThanTheBudget has callers queue behind those whom Redis does not answer.
func TestNobodyWaitsForAHungRedisLongerThanTheBudget(t *testing.T) {
	const budget = time.Second
	server := redistest.Start(t)
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() }, readthrough.WithRedisTimeout(budget))[0]
	rows := wrapper(t, cache, constant(1))
	server.Pause()
	defer server.Resume()
	var wg sync.WaitGroup
	for id := range 32 {
		wg.Go(func() {
			began := time.Now()
			_, err := rows.Get(t.Context(), id)
			if took := time.Since(began); err != nil || took > budget*3/2 {
				t.Errorf("%v after %s", err, took)
			}
		})
	}
	wg.Wait()
}
