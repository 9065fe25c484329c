package retry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errDown = errors.New("down")

// server is a Redis that has heard of some invalidations.
type server struct {
	mu     sync.Mutex
	down   func(key string) bool
	tried  [][]string
	heard  map[string]int
	during func() // is called during each attempt
}

func (s *server) invalidate(_ context.Context, keys ...string) (left []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = append(s.tried, keys)
	if s.during != nil {
		s.during()
	}
	for _, key := range keys {
		if s.down != nil && s.down(key) {
			left, err = append(left, key), errDown
			continue
		}
		s.heard[key]++
	}
	return left, err
}

// fails has the invalidation of some keys fail from now on; nil: of none.
func (s *server) fails(down func(key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// attempts returns what was tried since the last call.
func (s *server) attempts() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	tried := s.tried
	s.tried = nil
	return tried
}

func everything(string) bool { return true }

// inBubble runs a test of a queue in a bubble, in which time is virtual.
func inBubble(t *testing.T, test func(t *testing.T, s *server, q *Queue)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{heard: make(map[string]int)}
		q := New(s.invalidate, func(f func()) { go f() }) // ends by Stop
		test(t, s, q)
		q.Stop()
	})
}

// pass lets time pass, and what is due by then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// names returns the keys numbered from (inclusive) to to (exclusive).
func names(from, to int) (keys []string) {
	for i := from; i < to; i++ {
		keys = append(keys, fmt.Sprintf("k%06d", i))
	}
	return keys
}

func TestQueue_DropsOldestKeysWhenFull(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, q *Queue) {
		s.fails(everything)
		dropped, kept := q.Add(names(0, MaxKeys), Forever)
		require.True(t, kept)
		require.Empty(t, dropped)
		dropped, _ = q.Add([]string{"k000000", "new 1", "k000001", "new 2"}, Forever)
		require.Equal(t, names(0, 2), dropped, "a key that is there takes no room")
		pass(time.Minute)
		dropped, _ = q.Add([]string{"new 3"}, Forever)
		require.Equal(t, names(2, 3), dropped, "attempts that fail make no key newer")
		require.Equal(t, MaxKeys, q.Len())
		s.fails(nil)
		pass(2 * maxPause)
		require.Zero(t, q.Len())
		require.Len(t, s.heard, MaxKeys)
	})
}

func TestQueue_TriesChunksOldestFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, q *Queue) {
		q.Add(names(0, 2500), Forever)
		pass(time.Second)
		require.Equal(t, [][]string{names(0, 1000), names(1000, 2000), names(2000, 2500)}, s.attempts())
		require.Zero(t, q.Len())
	})
}

func TestQueue_StopsAtChunkThatFailsWholly(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, q *Queue) {
		s.fails(everything)
		q.Add(names(0, 5000), Forever)
		pass(firstPause)
		require.Len(t, s.attempts(), 1, "Redis is down: that is learned once")
		pass(10 * maxPause)
		require.LessOrEqual(t, len(s.attempts()), 14, "one attempt a second")
	})
}

// The keys of a node that is down hold up no others, even if they are the oldest.
func TestQueue_TriesOtherKeysAfterChunkThatFailsWholly(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, q *Queue) {
		s.fails(func(key string) bool { return key < "k002000" })
		q.Add(names(0, 5000), Forever)
		pass(10 * maxPause)
		require.Equal(t, 2000, q.Len())
		require.Len(t, s.heard, 3000)
		s.fails(nil)
		pass(2 * maxPause)
		require.Zero(t, q.Len())
		for key, times := range s.heard {
			require.Equal(t, 1, times, key)
		}
	})
}

func TestQueue_KeepsKeyThatIsInvalidatedAgainDuringAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, q *Queue) {
		s.during = func() { s.during = nil; q.Add([]string{"k"}, Forever) }
		q.Add([]string{"k"}, Forever)
		pass(firstPause)
		require.Equal(t, 1, q.Len())
		pass(maxPause)
		require.Zero(t, q.Len())
		require.Equal(t, 2, s.heard["k"])
	})
}

func TestQueue_ForgetsKeyWhenNoEntryCanBeLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, q *Queue) {
		s.fails(everything)
		for _, lifetimes := range [][]time.Duration{{time.Minute, time.Second}, {time.Second, time.Minute}, {Forever, time.Second}, {time.Second}} {
			for _, d := range lifetimes {
				q.Add([]string{fmt.Sprint(lifetimes)}, d)
			}
		}
		pass(10 * time.Second)
		require.Equal(t, 3, q.Len())
		pass(time.Minute)
		require.Equal(t, 1, q.Len())
		pass(time.Hour)
		require.Equal(t, 1, q.Len())
	})
}

func TestQueue_KeepsNothingAfterLastAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, q *Queue) {
		s.fails(everything)
		q.Add(names(0, 10), Forever)
		q.Stop()
		_, kept := q.Add(names(5, 15), Forever)
		require.True(t, kept, "there is a last attempt to come")
		pass(time.Minute)
		require.Empty(t, s.attempts(), "nothing happens in the background any more")

		s.fails(func(key string) bool { return key < "k000003" })
		left, err := q.Last(t.Context())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, names(0, 3), left)
		dropped, kept := q.Add([]string{"late"}, Forever)
		require.False(t, kept)
		require.Empty(t, dropped)
		require.Equal(t, 3, q.Len())
		require.False(t, slices.Contains(slices.Concat(s.attempts()...), "late"))
	})
}
