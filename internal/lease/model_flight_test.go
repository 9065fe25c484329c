package lease_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/flight"
)

// A flight.Group cannot be copied, and a search that goes back to an earlier state
// needs copies. So the search uses seating, a value that does what a Group does for
// one key, and each thing it has a seating do is done by a real Group as well, once
// for each state and operation: see conformance.

const (
	callers   = 3 // in all processes
	maxFlying = 2 // flights of one process at a time: no process has more callers
	nobody    = -1
	everyone  = 127 // flight.Everyone
)

// seating is the flights of one process, and who has a seat in which.
type seating struct {
	current int8 // the flight that can be joined, counted from one
	flights [maxFlying]struct {
		open bool
		now  int8
	}
	seats [callers]struct {
		flight int8 // counted from one
		since  int8
	}
}

type verb uint8

const (
	join verb = iota
	mark
	leave
	finish
	forget
)

// operation is a call of one method of a Group.
type operation struct {
	verb   verb
	who    int8 // the caller who joins, or else the flight
	before int8 // of finish
}

// answer is all that a Group lets its caller see.
type answer struct {
	opened int8          // the flight that was begun, or nobody
	mark   int8          // of mark and leave
	given  [callers]bool // who was given the result, by finish
}

func (s *seating) do(o operation) answer {
	a := answer{opened: nobody}
	switch o.verb {
	case join:
		if s.current == 0 {
			a.opened = s.begin()
		}
		s.take(o.who)
	case mark, leave:
		f := &s.flights[o.who]
		f.now++
		a.mark = f.now
		if o.verb == leave && s.current == o.who+1 {
			s.current = 0
		}
	case finish:
		if s.current == o.who+1 {
			s.current = 0
		}
		s.flights[o.who].open, s.flights[o.who].now = false, 0
		for c, seat := range s.seats {
			switch {
			case seat.flight != o.who+1:
				continue
			case seat.since < o.before:
				a.given[c] = true
				s.seats[c].flight, s.seats[c].since = 0, 0
				continue
			case s.current == 0:
				a.opened = s.begin()
			}
			s.take(int8(c))
		}
	case forget:
		s.current = 0
	}
	return a
}

func (s *seating) begin() int8 {
	for i := range s.flights {
		if !s.flights[i].open {
			s.flights[i].open = true
			s.current = int8(i) + 1
			return int8(i)
		}
	}
	panic("more flights at a time than maxFlying")
}

func (s *seating) take(caller int8) {
	s.seats[caller].flight, s.seats[caller].since = s.current, s.flights[s.current-1].now
}

// realGroup is a flight.Group whose flights are run by nobody: the test calls what
// their course would call.
type realGroup struct {
	flight.Group[struct{}]
	flights [maxFlying]*flight.Flight[struct{}]
	seats   [callers]*flight.Seat[struct{}]
}

func newRealGroup() *realGroup {
	g := new(realGroup)
	g.Go = func(course func()) bool { course(); return true }
	return g
}

func (g *realGroup) do(o operation) answer {
	a := answer{opened: nobody}
	course := func(f *flight.Flight[struct{}]) {
		for i := range g.flights {
			if g.flights[i] == nil {
				g.flights[i], a.opened = f, int8(i)
				return
			}
		}
		panic("more flights at a time than maxFlying")
	}
	switch o.verb {
	case join:
		g.seats[o.who] = g.Join(context.Background(), "key", course)
	case mark:
		a.mark = int8(g.flights[o.who].Mark())
	case leave:
		m, _ := g.flights[o.who].Leave()
		a.mark = int8(m)
	case finish:
		before := flight.Mark(o.before)
		if o.before == everyone {
			before = flight.Everyone
		}
		f := g.flights[o.who]
		g.flights[o.who] = nil
		f.Finish(struct{}{}, before, course)
		for c, seat := range g.seats {
			if seat == nil {
				continue
			}
			select {
			case <-seat.Result():
				a.given[c], g.seats[c] = true, nil
			default:
			}
		}
	case forget:
		g.Forget("key")
	}
	return a
}

// conformance has a real Group do whatever a seating is asked to do for the first time.
type conformance struct {
	t       testing.TB
	tried   map[attempt]struct{}
	history map[seating][]operation // one way to each state that was seen
}

type attempt struct {
	seating
	operation
}

func newConformance(t testing.TB) *conformance {
	return &conformance{t, make(map[attempt]struct{}), map[seating][]operation{{}: nil}}
}

// do has s do o, and compares that with what a Group of the same history does.
func (c *conformance) do(s *seating, o operation) answer {
	before := attempt{*s, o}
	got := s.do(o)
	if _, tried := c.tried[before]; tried {
		return got
	}
	c.tried[before] = struct{}{}
	history := c.history[before.seating]
	real := newRealGroup()
	for _, earlier := range history {
		real.do(earlier)
	}
	require.Equal(c.t, real.do(o), got, "%+v after %+v", o, history)
	if _, seen := c.history[*s]; !seen {
		c.history[*s] = append(history[:len(history):len(history)], o)
	}
	return got
}

// possible calls try with each operation that may come next.
func (s *seating) possible(try func(operation)) {
	for c := range s.seats[:maxFlying] {
		if s.seats[c].flight == 0 {
			try(operation{verb: join, who: int8(c)})
		}
	}
	for f := range s.flights {
		if !s.flights[f].open {
			continue
		}
		for _, v := range []verb{mark, leave} {
			try(operation{verb: v, who: int8(f)})
		}
		for before := range s.flights[f].now + 1 {
			try(operation{verb: finish, who: int8(f), before: before})
		}
		try(operation{verb: finish, who: int8(f), before: everyone})
	}
	if s.current != 0 {
		try(operation{verb: forget})
	}
}

// The conformance of the search goes one way to each state. This goes every way,
// as far as that is possible, and merges nothing.
func TestTheModelOfAFlightDoesWhatAFlightDoes(t *testing.T) {
	longest := 7
	if underRace || testing.Short() {
		longest = 6
	}
	sequences := 0
	var history []operation
	var extend func(s seating)
	extend = func(s seating) {
		s.possible(func(o operation) {
			real := newRealGroup()
			for _, earlier := range history {
				real.do(earlier)
			}
			next := s
			if got, want := next.do(o), real.do(o); got != want {
				require.Equal(t, want, got, "%+v after %+v", o, history)
			}
			sequences++
			if len(history)+1 < longest {
				history = append(history, o)
				extend(next)
				history = history[:len(history)-1]
			}
		})
	}
	extend(seating{})
	t.Logf("%d sequences of up to %d calls", sequences, longest)
}
