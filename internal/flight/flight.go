// Package flight collapses concurrent loads of one key within this process, like
// x/sync/singleflight, with two differences: each caller has a context of its own
// to leave by, and a result is shared only with those who joined early enough for it.
//
// Who joined early enough is what makes the cache coherent. A caller may start after
// an invalidation, and must then not be given what was loaded before it. So whoever
// runs a flight marks the moments that matter (the load begins, the fill is sent), and
// finishes the flight with a result for those who had joined before one of these
// moments. The others are carried over, together, into a new flight.
package flight

import (
	"context"
	"sync"
)

// Mark is a moment in the course of a flight. A larger Mark is a later moment. The zero
// Mark is before every join.
type Mark int

// Everyone is a Mark after every join: finishing with it shares the result with all waiters.
const Everyone = Mark(1<<31 - 1)

// Group holds the flights of one process: for each key at most one that can be joined.
// The methods that begin flights return them: their caller must run each to its Finish.
type Group[T any] struct {
	mu       sync.Mutex
	joinable map[string]*Flight[T]
	running  map[*Flight[T]]struct{} // begun and not finished
	stopped  bool
}

// Flight is one load and those who wait for it.
type Flight[T any] struct {
	Key string

	group  *Group[T]
	ctx    context.Context // of the load: its lifetime is the flight's
	cancel context.CancelFunc

	// Under the group's lock:
	now     Mark
	seats   []*Seat[T]
	waiting int  // seats not given up
	pinned  bool // goes on even if nobody waits
	forced  bool // loads whatever is stored: some caller has asked for that
}

// Seat is one caller's place in a flight.
type Seat[T any] struct {
	group  *Group[T]
	flight *Flight[T] // under the group's lock: a seat may be carried over to another flight
	ctx    context.Context
	since  Mark
	fresh  bool // its caller wants a load that begins after the join
	gone   bool
	first  bool
	result chan T
}

// Join takes a seat in the flight of key. If there is none to be joined it begins one,
// which it returns too.
func (g *Group[T]) Join(ctx context.Context, key string) (seat *Seat[T], begun *Flight[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.joinable[key]
	if f == nil {
		f = g.open(ctx, key)
		begun = f
	}
	return f.seat(ctx, false), begun
}

// JoinFresh takes a seat in a flight of key that loads whatever is stored, and whose
// result is the caller's only if the load begins from now on. A flight that would be
// content with a stored value goes on without newcomers: another takes its place.
func (g *Group[T]) JoinFresh(ctx context.Context, key string) (seat *Seat[T], begun *Flight[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.joinable[key]
	if f == nil || !f.forced {
		f = g.open(ctx, key)
		f.forced = true
		begun = f
	}
	return f.seat(ctx, true), begun
}

// JoinMany is Join for several keys, without a gap in which others could come between.
func (g *Group[T]) JoinMany(ctx context.Context, keys []string) (seats []*Seat[T], begun []*Flight[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seats = make([]*Seat[T], len(keys))
	for i, key := range keys {
		f := g.joinable[key]
		if f == nil {
			f = g.open(ctx, key)
			begun = append(begun, f)
		}
		seats[i] = f.seat(ctx, false)
	}
	return seats, begun
}

// Start begins flights of those keys that have none, and returns them. They go on
// without callers, until Stop, after which none is begun.
func (g *Group[T]) Start(ctx context.Context, keys ...string) (begun []*Flight[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, key := range keys {
		if g.joinable[key] == nil && !g.stopped {
			f := g.open(ctx, key)
			f.pinned = true
			begun = append(begun, f)
		}
	}
	return begun
}

// Forget keeps newcomers from joining the flight of key: they begin another.
func (g *Group[T]) Forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.joinable, key)
}

// Stop cancels the flights that nobody waits for, now and whenever the last caller of
// another leaves: those too that would else go on without callers.
func (g *Group[T]) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	for f := range g.running {
		f.cancelUnlessAwaited()
	}
}

// open begins a flight that can be joined. The lock is held.
func (g *Group[T]) open(ctx context.Context, key string) *Flight[T] {
	f := &Flight[T]{Key: key, group: g}
	// The first caller's values serve tracing; its deadline is its own affair.
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if g.joinable == nil {
		g.joinable = make(map[string]*Flight[T])
		g.running = make(map[*Flight[T]]struct{})
	}
	g.joinable[key] = f
	g.running[f] = struct{}{}
	return f
}

// Context is the load's: it has the first caller's values, no deadline, and ends
// when every caller has gone.
func (f *Flight[T]) Context() context.Context { return f.ctx }

// Forced reports whether some caller wants a load whatever is stored.
func (f *Flight[T]) Forced() bool { return f.forced }

// Mark returns this moment. Those who join from now on have joined after it.
func (f *Flight[T]) Mark() Mark {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	f.now++
	return f.now
}

// Leave is Mark, after which nobody can join any more: whoever comes later may
// start after an invalidation that the fill about to be sent knows nothing of.
func (f *Flight[T]) Leave() Mark {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	f.now++
	f.unlist()
	return f.now
}

// Answer gives result to those who had joined before the given Mark, ahead of Finish, which
// passes them over. The flight goes on for the others, if there are any, and without them.
func (f *Flight[T]) Answer(result T, before Mark) {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	for _, s := range f.seats {
		if !s.gone && s.since < before {
			s.gone = true
			f.waiting--
			s.result <- result
		}
	}
}

// Finish gives result to those who had joined before the given Mark, of whom those who
// wanted a load of their own must have joined before began too, the Mark of the load's
// beginning. The others are carried over into the flight that the key has by then, or
// into a new one, which is returned for the caller to run.
func (f *Flight[T]) Finish(result T, before, began Mark) (successor *Flight[T]) {
	g := f.group
	g.mu.Lock()
	defer g.mu.Unlock()
	f.close()
	var late []*Seat[T]
	fresh := false
	seats := f.seats
	f.seats = nil // an Answer that comes too late finds none
	for _, s := range seats {
		switch {
		case s.gone:
		case s.since < before && (!s.fresh || s.since < began):
			s.result <- result
		default:
			late = append(late, s)
			fresh = fresh || s.fresh
		}
	}
	if len(late) == 0 {
		return nil
	}
	next := g.joinable[f.Key]
	if next == nil || fresh && !next.forced {
		next = g.open(late[0].ctx, f.Key)
		next.forced = fresh
		successor = next
	}
	for _, s := range late {
		next.take(s)
	}
	return successor
}

// close takes f out of the group. The lock is held.
func (f *Flight[T]) close() {
	f.cancel()
	f.unlist()
	delete(f.group.running, f)
}

// unlist keeps f from being joined. The lock is held.
func (f *Flight[T]) unlist() {
	if f.group.joinable[f.Key] == f {
		delete(f.group.joinable, f.Key)
	}
}

// cancelUnlessAwaited ends the load's context if nobody waits for the load, and keeps
// newcomers away from it. The lock is held.
func (f *Flight[T]) cancelUnlessAwaited() {
	if f.waiting == 0 {
		f.cancel()
		f.unlist()
	}
}

// seat gives a caller who has just come a seat. The lock is held.
func (f *Flight[T]) seat(ctx context.Context, fresh bool) *Seat[T] {
	s := &Seat[T]{group: f.group, ctx: ctx, fresh: fresh, result: make(chan T, 1)}
	f.take(s)
	return s
}

// take gives s a seat in f: a caller who has just come, or one carried over from an
// earlier flight, together with others, so that none of them is late. The lock is held.
func (f *Flight[T]) take(s *Seat[T]) {
	s.flight, s.since, s.first = f, f.now, len(f.seats) == 0
	f.seats = append(f.seats, s)
	f.waiting++
}

// Wait returns the result that the seat was given, or the context's error if that
// ends first. The last to leave ends the load's context.
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
func (s *Seat[T]) Leave() { s.leave(false) }

// LeaveRunning gives the seat up without ending the flight, which goes on without
// callers, until Stop.
func (s *Seat[T]) LeaveRunning() { s.leave(true) }

func (s *Seat[T]) leave(running bool) {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	if s.gone {
		return
	}
	s.gone = true
	f := s.flight
	f.pinned = f.pinned || running
	f.waiting--
	if !f.pinned || s.group.stopped {
		f.cancelUnlessAwaited() // nobody must join a load that is being cancelled
	}
}
