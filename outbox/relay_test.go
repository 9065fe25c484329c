package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cacheFunc is a cache that does what a test wants.
type cacheFunc func(ctx context.Context, keys ...string) error

func (f cacheFunc) Delete(ctx context.Context, keys ...string) error { return f(ctx, keys...) }

// memory is a table in memory. The real ones are tested in outbox/test.
type memory struct {
	mu    sync.Mutex
	rows  []memoryRow
	added int64
	looks int   // calls of next
	err   error // of everything, if not nil
}

type memoryRow struct {
	row
	due time.Time
}

func (m *memory) add(keys ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		m.added++
		m.rows = append(m.rows, memoryRow{row: row{id: m.added, key: key}})
	}
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memory) next(context.Context) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	wait := never
	for _, r := range m.rows {
		wait = min(wait, max(time.Until(r.due), 0))
	}
	return wait, m.err
}

func (m *memory) batch(ctx context.Context, limit int, decide judge) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	slices.SortStableFunc(m.rows, func(a, b memoryRow) int { return a.due.Compare(b.due) })
	var rows []row
	for _, r := range m.rows {
		if len(rows) < limit && !r.due.After(time.Now()) {
			rows = append(rows, r.row)
		}
	}
	if len(rows) == 0 {
		return 0, nil
	}
	v := decide(ctx, rows)
	m.rows = slices.DeleteFunc(m.rows, func(r memoryRow) bool { return slices.Contains(v.done, r.id) })
	for i, r := range m.rows {
		if slices.Contains(v.failed, r.id) {
			m.rows[i].due, m.rows[i].attempts = time.Now().Add(v.wait), r.attempts+1
		}
	}
	return len(rows), nil
}

func (m *memory) pending(context.Context) (int64, time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.rows)), 0, m.err
}

// rig is a relay of a table in memory that runs in a bubble of its own time, polls each hour, and
// waits for 1 s to 1 min after failures.
type rig struct {
	*Relay
	table *memory
	stop  context.CancelFunc
	ended chan error // what Run has returned
	start time.Time

	mu       sync.Mutex // Sleep orders nothing for the race detector
	answer   func(ctx context.Context, keys []string) error
	allCalls []call // of the cache
	allNotes []Event
}

// call is what the cache was told, and when.
type call struct {
	at   time.Duration
	keys []string
}

func inBubble(t *testing.T, f func(t *testing.T, r *rig), opts ...Option) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{table: &memory{}, ended: make(chan error, 1), start: time.Now()}
		cache := cacheFunc(func(ctx context.Context, keys ...string) error {
			r.mu.Lock()
			r.allCalls = append(r.allCalls, call{time.Since(r.start), keys})
			answer := r.answer
			r.mu.Unlock()
			if answer == nil {
				return nil
			}
			return answer(ctx, keys)
		})
		s, err := newSettings(append([]Option{
			WithPollInterval(time.Hour), WithBackoff(time.Second, time.Minute),
			WithOnEvent(func(e Event) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.allNotes = append(r.allNotes, e)
			}),
		}, opts...))
		require.NoError(t, err)
		r.Relay = newRelay(r.table, cache, s)
		var ctx context.Context
		ctx, r.stop = context.WithCancel(context.Background())
		defer r.stop()
		go func() { r.ended <- r.Run(ctx) }() // ends by stop
		synctest.Wait()
		f(t, r)
		r.stop()
		synctest.Wait()
	})
}

// commit adds rows and has the relay look.
func (r *rig) commit(keys ...string) {
	r.table.add(keys...)
	r.Notify()
	synctest.Wait()
}

// elapse lets time pass.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// rows returns how many rows are left.
func (r *rig) rows() int {
	n, _, _ := r.table.pending(context.Background())
	return int(n)
}

// looks returns how often the relay has looked at the table.
func (r *rig) looks() int {
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	return r.table.looks
}

// answers sets what the cache does; nil: it succeeds.
func (r *rig) answers(f func(ctx context.Context, keys []string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// events returns what the hook was told.
func (r *rig) events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.allNotes)
}

// calls returns the calls of the cache.
func (r *rig) calls() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.allCalls)
}

// keys returns the keys of each call.
func (r *rig) keys() (all [][]string) {
	for _, c := range r.calls() {
		all = append(all, c.keys)
	}
	return all
}

func TestRun_DrainsInBatchesByID(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.commit("a", "b", "a", "c", "d")
		assert.Equal(t, [][]string{{"a", "b"}, {"a", "c"}, {"d"}}, r.keys())
		assert.Equal(t, Stats{Relayed: 5}, r.Stats())
		assert.Zero(t, r.calls()[2].at)
		assert.Equal(t, Event{Kind: EventRelayed, Rows: 2, Keys: []string{"a", "b"}}, r.events()[0])
	}, WithBatchSize(2))
}

func TestRun_TellsCacheOfEachKeyOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.commit("a", "b", "a", "a")
		assert.Equal(t, [][]string{{"a", "b"}}, r.keys())
		assert.Equal(t, Event{Kind: EventRelayed, Rows: 4, Keys: []string{"a", "b"}}, r.events()[0])
		assert.Zero(t, r.rows())
	})
}

func TestRun_LooksAtEachPollByItself(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for range 50 {
			r.table.add("k")
			elapse(time.Hour)
			assert.Zero(t, r.rows())
		}
		assert.InDelta(t, 67, r.looks()-50, 10) // a pause is 45 min on average; each batch looks once more
	})
}

func TestRun_BacksOffWhileAllFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.answers(func(context.Context, []string) error { return errors.New("down") })
		r.commit("a", "b")
		elapse(30 * time.Minute)

		for n := 1; n < len(r.calls()); n++ {
			pause := r.calls()[n].at - r.calls()[n-1].at
			assert.LessOrEqual(t, pause, 2*time.Minute, "pause %d", n) // the wait of a row, and a pause that ends after it
			if n > 8 {
				assert.GreaterOrEqual(t, pause, 30*time.Second, "pause %d", n)
			}
		}
		assert.Greater(t, len(r.calls()), 20)
		assert.Equal(t, Stats{Failed: int64(2 * len(r.calls()))}, r.Stats())

		r.answers(nil)
		elapse(2 * time.Minute)
		assert.Zero(t, r.rows())
		assert.Equal(t, int64(2), r.Stats().Relayed)
	})
}

func TestNotify_EndsNoPauseAfterFailureOfAll(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.answers(func(context.Context, []string) error { return errors.New("down") })
		for range 100 {
			r.commit("k")
		}
		assert.Len(t, r.calls(), 1)
		r.answers(nil)
		elapse(2 * time.Second)
		assert.Zero(t, r.rows())
	})
}

func TestRun_TriesAgainOnlyWhatHasFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.answers(func(_ context.Context, keys []string) error {
			r.answers(nil)
			if slices.Contains(keys, "bad") {
				return fmt.Errorf("wrapped: %w", &readthrough.WriteError{Op: "delete", Keys: []string{"bad"}, Err: readthrough.ErrUnavailable})
			}
			return nil
		})
		r.commit("good", "bad")
		r.commit("new") // is not held up
		assert.Equal(t, [][]string{{"bad", "good"}, {"new"}}, r.keys())
		elapse(2 * time.Second)

		require.Len(t, r.calls(), 3)
		assert.Equal(t, []string{"bad"}, r.calls()[2].keys)
		assert.Less(t, r.calls()[2].at, 2*time.Second)
		assert.Equal(t, Stats{Relayed: 3, Failed: 1}, r.Stats())
		failed := r.events()[1]
		require.ErrorIs(t, failed.Err, readthrough.ErrUnavailable)
		assert.Equal(t, []string{"bad"}, failed.Keys)
		assert.Positive(t, failed.Wait)
	})
}

func TestRun_TakesWriteErrorWithoutKeysForAll(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.answers(func(context.Context, []string) error {
			return &readthrough.WriteError{Op: "delete", Err: errors.New("?")}
		})
		r.commit("a", "b")
		assert.Equal(t, 2, r.rows())
	})
}

func TestRun_RelaysBesideRowsThatAreNoKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.table.rows = append(r.table.rows, memoryRow{row: row{id: -1, key: "%zz", bad: errors.New("no escape")}})
		r.commit()
		assert.Empty(t, r.calls()) // there is nothing to tell the cache
		r.commit("k")              // at once: it is no outage

		assert.Equal(t, [][]string{{"k"}}, r.keys())
		assert.Equal(t, 1, r.rows())
		assert.ErrorContains(t, r.events()[0].Err, "row -1: no escape")
		assert.Equal(t, []string{"%zz"}, r.events()[0].Keys)
	})
}

func TestRun_BacksOffFromDatabase(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.table.fail(errors.New("no such table"))
		r.commit("k")
		elapse(10 * time.Minute)
		looks := r.looks()
		assert.InDelta(t, 18, looks, 8) // 1 s, doubling to 1 min, shortened by a quarter on average
		assert.Equal(t, int64(looks-1), r.Stats().Errors)
		assert.EqualError(t, r.events()[0].Err, "no such table")
		_, _, err := r.Pending(t.Context())
		require.EqualError(t, err, "outbox: pending: no such table")

		r.table.fail(nil)
		elapse(time.Minute)
		assert.Zero(t, r.rows())
	})
}

func TestRun_EndsWithItsContextAfterBatch(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.answers(func(ctx context.Context, _ []string) error {
			r.stop()
			deadline, ok := ctx.Deadline()
			assert.True(t, ok)
			assert.Equal(t, deleteTimeout, time.Until(deadline))
			return ctx.Err() // the batch is not cancelled
		})
		r.commit("a", "b", "c")
		require.ErrorIs(t, <-r.ended, context.Canceled)
		assert.Equal(t, 1, r.rows()) // of the batch that was not begun
		assert.Equal(t, Stats{Relayed: 2}, r.Stats())
	}, WithBatchSize(2))
}

func TestRun_EndsWhenCacheIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.answers(func(context.Context, []string) error { return readthrough.ErrClosed })
		r.commit("k")
		err := <-r.ended
		require.ErrorIs(t, err, readthrough.ErrClosed)
		require.ErrorContains(t, err, "outbox: ")
		assert.Equal(t, 1, r.rows())
	})
}

func TestWithWakeUps_RestartsListenerThatEnds(t *testing.T) {
	var begun atomic.Int64
	inBubble(t, func(t *testing.T, r *rig) {
		elapse(10 * time.Minute)
		assert.Equal(t, int64(3), begun.Load())
		require.Len(t, r.events(), 2)
		assert.ErrorContains(t, r.events()[0].Err, "lost connection")
		assert.ErrorIs(t, r.events()[1].Err, errListener)
		assert.Equal(t, int64(2), r.Stats().Errors)
		r.table.add("k")
		elapse(time.Minute)
		assert.Equal(t, [][]string{{"k"}}, r.keys())
	}, WithWakeUps(func(ctx context.Context, wake func()) error {
		if n := begun.Add(1); n < 3 {
			return []error{errors.New("lost connection"), nil}[n-1]
		}
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Minute):
				wake()
			}
		}
	}))
}

func TestBackoff_DoublesUpToLimit(t *testing.T) {
	s := settings{firstWait: 100 * time.Millisecond, maxWait: time.Second}
	for n, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		for range 100 {
			got := s.backoff(n)
			require.LessOrEqual(t, got, want*time.Millisecond)
			require.GreaterOrEqual(t, got, want*time.Millisecond/2)
		}
	}
	assert.LessOrEqual(t, s.backoff(1<<62), time.Second)
}
