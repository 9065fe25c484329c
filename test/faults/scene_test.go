package faults

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// scene is two processes that share a table and the Redis before it.
type scene struct {
	fault
	ids   []int
	table *table
	cache *readthrough.Cache
	rows  *readthrough.ReadThrough[int, int64]
	other *readthrough.ReadThrough[int, int64] // of the other process
	asks  *askCounter
	seen  *eventSet
}

// strike tells the story of a fault: what callers see before it, while it lasts and after it. The
// ids are of rows that are cached on the server.
func (f fault) strike(t *testing.T, server *redistest.Server, ids []int, client func() redis.UniversalClient) {
	t.Helper()
	s := &scene{fault: f, ids: ids[1:], table: newTable(ids[0]), asks: &askCounter{}, seen: &eventSet{}}
	mine := client()
	mine.AddHook(tripHook(s.asks.note))
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

// crowdIsServed has 32 callers at a time ask for all rows. Each gets what is in the table, and
// soon.
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

// write changes three rows, and says so in each of the three ways. Who does learns that Redis does
// not know yet.
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

// nothingIsStale checks that what was written during the fault has reached Redis, for this process
// and the other.
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

// table is a table of a database. A load of its held row says how it is told to go on, and waits
// for that.
type table struct {
	versions [100]atomic.Int64
	held     int
	loading  chan chan<- struct{}
}

func (tb *table) change(id int) { tb.versions[id].Add(1) }

// row returns what the row holds now: no two rows, and no two versions of one, are alike.
func (tb *table) row(id int) int64 { return tb.versions[id].Load()*int64(len(tb.versions)) + int64(id) }

func (tb *table) load(_ context.Context, id int) (int64, error) {
	if id == tb.held {
		goOn := make(chan struct{})
		tb.loading <- goOn
		<-goOn
	}
	return tb.row(id), nil
}

func newTable(held int) *table { return &table{held: held, loading: make(chan chan<- struct{})} }

// askCounter counts what callers of Get begin with: the GET of a lookup and the SET of a lease.
type askCounter struct{ atomic.Int64 }

// note counts a round trip: it is a tripHook.
func (c *askCounter) note(cmds []redis.Cmder, send func() error) error {
	if name := cmds[0].Name(); name == "get" || name == "set" {
		c.Add(1)
	}
	return send()
}
