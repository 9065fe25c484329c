package fill

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Slots is a counting semaphore: at most cap(s) holders at once. A nil Slots never
// blocks.
type Slots chan struct{}

// NewSlots returns a semaphore for n holders, or nil if n is zero.
func NewSlots(n int) Slots {
	if n == 0 {
		return nil
	}
	return make(Slots, n)
}

// acquire takes a slot, or returns ctx's error if that ends first.
func (s Slots) acquire(ctx context.Context) error {
	if s == nil {
		return nil
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tryAcquire takes a slot if one is free.
func (s Slots) tryAcquire() bool {
	if s == nil {
		return true
	}
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// release gives a slot back.
func (s Slots) release() {
	if s != nil {
		<-s
	}
}

// full reports whether acquire would have to wait.
func (s Slots) full() bool { return s != nil && len(s) == cap(s) }

// Share is a part of a sequence.
type Share struct{ From, To int }

// Shares cuts a sequence of n into equal shares: one for each processor, but none of fewer than
// least.
func Shares(n, least int) []Share {
	shares := make([]Share, max(1, min(runtime.GOMAXPROCS(0), n/least)))
	for i := range shares {
		shares[i] = Share{i * n / len(shares), (i + 1) * n / len(shares)}
	}
	return shares
}

// Parallel calls f with each of xs, n of them at a time, and returns when all calls have.
// If there are several, they run by spawn on goroutines of their own; a panic or Goexit in
// one of them is repeated when all have ended.
func Parallel[T any](spawn func(func()), xs []T, n int, f func(T)) {
	if len(xs) == 1 {
		f(xs[0])
		return
	}
	var calls sync.WaitGroup
	var panicked atomic.Pointer[any]
	var exited atomic.Bool
	slots := NewSlots(n)
	for _, x := range xs {
		slots <- struct{}{}
		calls.Add(1)
		spawn(func() { // ends with f
			defer calls.Done()
			defer slots.release()
			returned := false
			defer func() {
				if p := recover(); p != nil {
					panicked.Store(&p)
				} else if !returned {
					exited.Store(true)
				}
			}()
			f(x)
			returned = true
		})
	}
	calls.Wait()
	if p := panicked.Load(); p != nil {
		panic(*p)
	}
	if exited.Load() {
		runtime.Goexit()
	}
}
