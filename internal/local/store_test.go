package local

import (
	"math"
	"runtime"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// payload is about what a wrapper keeps of an entry.
type payload struct {
	value string
	_     [16]uint64
}

// newLeased returns a Store under a lease that nobody ends.
func newLeased(maxBytes int64) *Store[payload] {
	s := NewStore(New(Config{Lease: time.Second}), "p:row:", maxBytes, func(p *payload) int { return len(p.value) + int(unsafe.Sizeof(*p)) })
	s.tier.end.Store(math.MaxInt64)
	return s
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestStore_StaysWithinItsBytes has a million keys pass through.
func TestStore_StaysWithinItsBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("a million keys")
	}
	const maxBytes = 64 << 20
	for _, size := range []int{10, 1000} {
		before := heap()
		s := newLeased(maxBytes)
		for i := range 1_000_000 {
			key := strconv.Itoa(i)
			s.Keep(key, s.Note(key), time.Hour, payload{value: string(make([]byte, size))})
		}
		require.Eventually(t, func() bool { return s.copies.WeightedSize() <= maxBytes }, 10*time.Second, time.Millisecond)
		s.copies.CleanUp()
		used := heap() - before
		t.Logf("values of %d bytes: %d copies in %.1f MB of %d MB, %d evicted", size, s.Len(), float64(used)/(1<<20), maxBytes>>20, s.Evicted())
		require.Less(t, used, int64(maxBytes*12/10))
		require.Greater(t, used, int64(maxBytes/2), "what it may hold is used")
		runtime.KeepAlive(s)
	}
}

func TestStore_KeepsNothingThatWasDroppedMeanwhile(t *testing.T) {
	s := newLeased(1 << 20)
	noted := s.Note("1")
	s.dropKey("p:row:1")
	s.Keep("1", noted, time.Hour, payload{})
	s.Keep("2", s.Note("2"), time.Hour, payload{})
	s.dropKey("p:other:2") // is none of its keys
	s.Keep("3", s.Note("3"), 0, payload{})
	now, leased := s.Now()
	require.True(t, leased)
	require.Nil(t, s.Get("1", now))
	require.NotNil(t, s.Get("2", now))
	require.Nil(t, s.Get("3", now), "it was not fresh")
	require.Nil(t, s.Get("2", now+2*time.Hour))
	noted = s.Note("1")
	s.flush()
	s.Keep("1", noted, time.Hour, payload{})
	require.Nil(t, s.Get("1", now))
	require.Nil(t, s.Get("2", now))
	s.tier.end.Store(0)
	s.Keep("1", s.Note("1"), time.Hour, payload{})
	require.Zero(t, s.Len(), "there is no lease")
}
