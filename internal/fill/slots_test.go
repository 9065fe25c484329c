package fill

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSlots_HaveNoMoreHoldersThanPlaces(t *testing.T) {
	s := NewSlots(2)
	require.NoError(t, s.acquire(t.Context()))
	require.False(t, s.full())
	require.True(t, s.tryAcquire())
	require.True(t, s.full())
	require.False(t, s.tryAcquire())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.acquire(ctx), context.Canceled)
	s.release()
	require.NoError(t, s.acquire(t.Context()))
}

func TestSlots_NilNeverBlocks(t *testing.T) {
	s := NewSlots(0)
	require.Nil(t, s)
	require.NoError(t, s.acquire(t.Context()))
	require.True(t, s.tryAcquire())
	require.False(t, s.full())
	s.release()
}

func TestParallel_CallsEachOnceAndNotTooManyAtATime(t *testing.T) {
	const n, parallel = 50, 4
	var calls [n]atomic.Int64
	var running, most atomic.Int64
	var together sync.WaitGroup // of the first, who wait until all of them are there
	together.Add(parallel)
	xs := make([]int, n)
	for i := range xs {
		xs[i] = i
	}
	Parallel(func(f func()) { go f() }, xs, parallel, func(i int) {
		now := running.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		if i < parallel {
			together.Done()
			together.Wait()
		}
		calls[i].Add(1)
		running.Add(-1)
	})
	for i := range calls {
		require.EqualValues(t, 1, calls[i].Load(), i)
	}
	require.EqualValues(t, parallel, most.Load())
}

func TestParallel_RunsASingleCallInPlace(t *testing.T) {
	called := 0
	Parallel(func(func()) { t.Error("no goroutine is needed") }, []int{7}, 4, func(x int) { called = x })
	require.Equal(t, 7, called)
}

func TestShares_CoverAllOnce(t *testing.T) {
	t.Parallel()
	for n := range 1000 {
		shares := Shares(n, 64)
		require.LessOrEqual(t, len(shares), max(1, n/64))
		require.LessOrEqual(t, len(shares), runtime.GOMAXPROCS(0))
		next := 0
		for _, s := range shares {
			require.Equal(t, next, s.From)
			require.GreaterOrEqual(t, s.To, s.From)
			require.True(t, len(shares) == 1 || s.To-s.From >= 64, "%d: %v", n, shares)
			next = s.To
		}
		require.Equal(t, n, next)
	}
}
