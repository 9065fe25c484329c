// Package flight collapses concurrent loads of one key within this process, like
// x/sync/singleflight, with two differences: each caller has a context of its own
// to leave by, and a result is shared only with those who came early enough for it.
//
// Who came early enough is what makes the cache coherent. A caller may start after
// an invalidation, and must then not be given what was loaded before it. So the
// one who runs a flight marks the moments that matter (the load begins, the fill
// is sent), and finishes the flight with a result for those who had joined before
// one of these moments. The others are carried over, together, into a new flight.
package flight

import (
	"context"
	"sync"
)

// Mark is a moment in the course of a flight. A larger Mark is a later moment.
type Mark int

// Everyone is later than any moment: a result for it is for all who have joined.
const Everyone = Mark(1<<31 - 1)

// Group is the flights of one process, at most one of a key that can be joined.
type Group[T any] struct {
	// Go runs the course of a flight on a goroutine, whose end its owner awaits.
	// It reports false, without running it, when it takes no more.
	Go func(func()) bool

	mu      sync.Mutex
	current map[string]*Flight[T]              // those that can be joined
	filling map[string]map[*Flight[T]]struct{} // those that have left, and not finished
}

// Course runs a flight: it calls Finish exactly once.
type Course[T any] func(f *Flight[T])

// Flight is one load and those who wait for it.
type Flight[T any] struct {
	Key string

	group  *Group[T]
	ctx    context.Context
	cancel context.CancelFunc

	// Under the group's lock:
	now       Mark
	seats     []*Seat[T]
	waiting   int           // seats not given up
	pinned    bool          // goes on even if nobody waits
	forgotten bool          // Forget was called
	finished  chan struct{} // made by the first who waits for it
}

// Seat is one caller's place in a flight.
type Seat[T any] struct {
	group  *Group[T]
	flight *Flight[T] // under the group's lock: the flight may change
	ctx    context.Context
	since  Mark
	gone   bool
	first  bool
	result chan T
}

// Join takes a seat in the flight of key, starting one that runs course if there
// is none. It returns nil when the group takes no more.
func (g *Group[T]) Join(ctx context.Context, key string, course Course[T]) *Seat[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.current[key]
	if f == nil {
		f = g.open(ctx, key)
		if !g.Go(func() { course(f) }) {
			f.close()
			return nil
		}
	}
	return g.seat(ctx, f)
}

// JoinMany takes a seat in the flight of each key. For those that have none, it
// starts flights, which course is handed together and must see to the end of. It
// returns nil when the group takes no more.
func (g *Group[T]) JoinMany(ctx context.Context, keys []string, course func(begun []*Flight[T])) []*Seat[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	seats := make([]*Seat[T], len(keys))
	var begun []*Flight[T]
	for i, key := range keys {
		f := g.current[key]
		if f == nil {
			f = g.open(ctx, key)
			begun = append(begun, f)
		}
		seats[i] = g.seat(ctx, f)
	}
	if len(begun) > 0 && !g.run(begun, course) {
		for _, s := range seats {
			s.leave()
		}
		return nil
	}
	return seats
}

// seat takes a seat in f. The lock is held.
func (g *Group[T]) seat(ctx context.Context, f *Flight[T]) *Seat[T] {
	s := &Seat[T]{group: g, ctx: ctx, result: make(chan T, 1)}
	f.take(s)
	return s
}

// Start begins flights of those keys that have none, which go on without callers,
// and runs course, which must see to the end of them. It reports whether there is
// any to run.
func (g *Group[T]) Start(ctx context.Context, keys []string, course func(begun []*Flight[T])) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	var begun []*Flight[T]
	for _, key := range keys {
		if g.current[key] == nil {
			f := g.open(ctx, key)
			f.pinned = true
			begun = append(begun, f)
		}
	}
	return len(begun) > 0 && g.run(begun, course)
}

// run runs course in the flights just opened, or closes them if the group takes
// no more. The lock is held, so the course waits for it at its first step.
func (g *Group[T]) run(begun []*Flight[T], course func([]*Flight[T])) bool {
	if g.Go(func() { course(begun) }) {
		return true
	}
	for _, f := range begun {
		f.close()
	}
	return false
}

// Forget keeps newcomers from joining the flight of key: they start another. The
// returned channels are closed when those flights end whose fill is under way
// already, so that what comes next can be put behind it.
func (g *Group[T]) Forget(key string) (fills []<-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.current[key]; f != nil {
		f.forgotten = true
		delete(g.current, key)
	}
	for f := range g.filling[key] {
		f.forgotten = true
		if f.finished == nil {
			f.finished = make(chan struct{})
		}
		fills = append(fills, f.finished)
	}
	return fills
}

func (g *Group[T]) open(ctx context.Context, key string) *Flight[T] {
	f := &Flight[T]{Key: key, group: g}
	// The first caller's values serve tracing; its deadline is its own affair.
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if g.current == nil {
		g.current = make(map[string]*Flight[T])
		g.filling = make(map[string]map[*Flight[T]]struct{})
	}
	g.current[key] = f
	return f
}

// unlist keeps f from being joined. The lock is held.
func (f *Flight[T]) unlist() {
	if f.group.current[f.Key] == f {
		delete(f.group.current, f.Key)
	}
}

// close takes f out of the group. The lock is held.
func (f *Flight[T]) close() {
	f.cancel()
	f.unlist()
	if fs := f.group.filling[f.Key]; fs != nil {
		delete(fs, f)
		if len(fs) == 0 {
			delete(f.group.filling, f.Key)
		}
	}
	if f.finished != nil {
		close(f.finished)
	}
}

// Context is the load's: it has the first caller's values, no deadline, and ends
// when every caller has gone.
func (f *Flight[T]) Context() context.Context { return f.ctx }

// CancelUnlessAwaited ends the flight's context, and keeps newcomers away, unless
// somebody waits for the result.
func (f *Flight[T]) CancelUnlessAwaited() {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	if f.waiting == 0 {
		f.cancel()
		f.unlist()
	}
}

// Mark returns this moment. Those who join from now on have joined after it.
func (f *Flight[T]) Mark() Mark {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	f.now++
	return f.now
}

// Leave is Mark, after which nobody can join any more: whoever comes later may
// start after an invalidation that the fill about to be sent knows nothing of. It
// reports whether the flight was forgotten before: then it must not fill.
func (f *Flight[T]) Leave() (mark Mark, forgotten bool) {
	g := f.group
	g.mu.Lock()
	defer g.mu.Unlock()
	f.now++
	f.unlist()
	if g.filling[f.Key] == nil {
		g.filling[f.Key] = make(map[*Flight[T]]struct{})
	}
	g.filling[f.Key][f] = struct{}{}
	return f.now, f.forgotten
}

// Finish gives result to those who had joined before the given Mark, and carries
// the others into the flight that the key has by then, or into a new one. That one
// it hands to again, which must see to it that it is run, and need not wait for it.
func (f *Flight[T]) Finish(result T, before Mark, again func(successor *Flight[T])) {
	if successor := f.handOut(result, before); successor != nil {
		again(successor)
	}
}

// handOut does what Finish does, but for running the new flight.
func (f *Flight[T]) handOut(result T, before Mark) (successor *Flight[T]) {
	g := f.group
	g.mu.Lock()
	defer g.mu.Unlock()
	f.close()
	var next *Flight[T]
	for _, s := range f.seats {
		switch {
		case s.gone:
		case s.since < before:
			s.result <- result
		default:
			if next == nil {
				next = g.current[f.Key]
			}
			if next == nil {
				next = g.open(s.ctx, f.Key)
				successor = next
			}
			next.take(s)
		}
	}
	return successor
}

// take gives s a seat in f: a caller who has just come, or one carried over from an
// earlier flight, together with others, so that none of them is late. The lock is held.
func (f *Flight[T]) take(s *Seat[T]) {
	s.flight, s.since, s.first = f, f.now, len(f.seats) == 0
	f.seats = append(f.seats, s)
	f.waiting++
}

// Wait returns the result that the seat was given, or the context's error if that
// ends first. The last to go takes the flight's context with it.
func (s *Seat[T]) Wait(ctx context.Context) (T, error) {
	select {
	case result := <-s.result:
		return result, nil
	case <-ctx.Done():
		s.Leave()
		var none T
		return none, ctx.Err()
	}
}

// Result is told the result, for a caller who waits for other things as well. A
// caller who stops waiting must Leave.
func (s *Seat[T]) Result() <-chan T { return s.result }

// First reports whether the seat was the first of the flight that gave the result.
func (s *Seat[T]) First() bool { return s.first }

// Leave gives the seat up.
func (s *Seat[T]) Leave() {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	s.leave()
}

// leave is Leave with the lock held.
func (s *Seat[T]) leave() {
	if s.gone {
		return
	}
	s.gone = true
	f := s.flight
	f.waiting--
	if f.waiting == 0 && !f.pinned {
		// Nobody must join a load that is being cancelled.
		f.cancel()
		f.unlist()
	}
}

// Abide gives the seat up without ending the flight, which it returns: that goes on
// without callers.
func (s *Seat[T]) Abide() *Flight[T] {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	s.flight.pinned = true
	s.leave()
	return s.flight
}
