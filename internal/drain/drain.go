// Package drain counts what is under way, so that Close can wait for it.
//
// It is a sync.WaitGroup whose Wait has a context, and which may be entered at any time by
// any number of goroutines without their waiting for one cache line: the count is spread
// over stripes, as in LongAdder of java.util.concurrent.
package drain

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
)

const stripes = 16

// Group counts what is under way. It is safe for concurrent use.
type Group struct {
	stripes [stripes]Stripe
	wanted  atomic.Bool   // somebody waits
	ended   chan struct{} // has room for one: something has ended since somebody waits
}

// Stripe is a part of a Group's count. Each fills a cache line.
type Stripe struct {
	begun, ended atomic.Int64
	group        *Group
	_            [40]byte
}

// New returns a Group of which nothing is under way.
func New() *Group {
	g := &Group{ended: make(chan struct{}, 1)}
	for i := range g.stripes {
		g.stripes[i].group = g
	}
	return g
}

// Begin counts something until the End of the Stripe that it returns.
func (g *Group) Begin() *Stripe {
	s := &g.stripes[rand.Uint32()%stripes]
	s.begun.Add(1)
	return s
}

// End counts out what has begun.
func (s *Stripe) End() {
	s.ended.Add(1)
	if s.group.wanted.Load() {
		select {
		case s.group.ended <- struct{}{}:
		default:
		}
	}
}

// Go runs f on a goroutine that is counted until f ends.
func (g *Group) Go(f func()) {
	s := g.Begin()
	go func() { // ends with f
		defer s.End()
		f()
	}()
}

// Wait returns nil at a moment at which nothing is under way, or ctx's error. Only one
// goroutine may wait at a time.
func (g *Group) Wait(ctx context.Context) error {
	g.wanted.Store(true)
	for !g.idle() {
		select {
		case <-g.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// idle reports whether nothing was under way at some moment of the call. Both sums only
// grow, and all that has ended had begun before: if what has begun by now is no more than
// what had ended before, nothing was under way in between. This is Mattern's method of two
// counters (Algorithms for distributed termination detection, Distributed Computing 1987).
func (g *Group) idle() bool {
	var ended, begun int64
	for i := range g.stripes {
		ended += g.stripes[i].ended.Load()
	}
	for i := range g.stripes {
		begun += g.stripes[i].begun.Load()
	}
	return begun == ended
}
