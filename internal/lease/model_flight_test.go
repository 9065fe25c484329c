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
	maxFlying = 3 // flights of one process at a time
	nobody    = -1
	everyone  = 127 // flight.Everyone
)

// seating is the flights of one process, and who has a seat in which.
type seating struct {
	current int8 // the flight that can be joined, counted from one
	flights [maxFlying]struct {
		open   bool
		forced bool
		now    int8
	}
	seats [callers]struct {
		flight int8 // counted from one
		since  int8
		fresh  bool
	}
}

type verb uint8

const (
	join verb = iota
	joinFresh
	start
	mark
	leave
	answerEarly
	finish
	forget
)

// operation is a call of one method of a Group.
type operation struct {
	verb          verb
	who           int8 // the caller who joins, or else the flight
	before, began int8 // of answerEarly and finish
}

// answer is all that a Group lets its caller see.
type answer struct {
	opened int8          // the flight that was begun, or nobody
	forced bool          // the one that was begun
	mark   int8          // of mark and leave
	given  [callers]bool // who was given the result, by answerEarly and finish
}

func (s *seating) do(o operation) answer {
	a := answer{opened: nobody}
	switch o.verb {
	case join, start:
		if s.current == 0 {
			a.opened = s.begin()
		}
		if o.verb == join {
			s.take(o.who, s.current)
		}
	case joinFresh:
		if s.current == 0 || !s.flights[s.current-1].forced {
			a.opened = s.begin()
			s.flights[a.opened].forced = true
		}
		s.seats[o.who].fresh = true
		s.take(o.who, s.current)
	case mark, leave:
		f := &s.flights[o.who]
		f.now++
		a.mark = f.now
		if o.verb == leave {
			s.unlist(o.who)
		}
	case answerEarly:
		for c, seat := range s.seats {
			if seat.flight == o.who+1 && seat.since < o.before {
				a.given[c] = true
				s.seats[c].flight, s.seats[c].since, s.seats[c].fresh = 0, 0, false
			}
		}
	case finish:
		a.opened = s.finish(o, &a.given)
	case forget:
		s.current = 0
	}
	if a.opened != nobody {
		a.forced = s.flights[a.opened].forced
	}
	return a
}

// finish does what Flight.Finish does, and returns the successor.
func (s *seating) finish(o operation, given *[callers]bool) (successor int8) {
	successor = nobody
	s.unlist(o.who)
	s.flights[o.who].open, s.flights[o.who].forced, s.flights[o.who].now = false, false, 0
	var late []int8
	fresh := false
	for c, seat := range s.seats {
		switch {
		case seat.flight != o.who+1:
		case seat.since < o.before && (!seat.fresh || seat.since < o.began):
			given[c] = true
			s.seats[c].flight, s.seats[c].since, s.seats[c].fresh = 0, 0, false
		default:
			late = append(late, int8(c))
			fresh = fresh || seat.fresh
		}
	}
	if len(late) > 0 && (s.current == 0 || fresh && !s.flights[s.current-1].forced) {
		successor = s.begin()
		s.flights[successor].forced = fresh
	}
	for _, c := range late {
		s.take(c, s.current)
	}
	return successor
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

func (s *seating) full() bool {
	for _, f := range s.flights {
		if !f.open {
			return false
		}
	}
	return true
}

func (s *seating) unlist(f int8) {
	if s.current == f+1 {
		s.current = 0
	}
}

func (s *seating) take(caller, flight int8) {
	s.seats[caller].flight, s.seats[caller].since = flight, s.flights[flight-1].now
}

// realGroup is a flight.Group whose flights are run by nobody: the test calls what
// the engine would call.
type realGroup struct {
	flight.Group[struct{}]
	flights [maxFlying]*flight.Flight[struct{}]
	seats   [callers]*flight.Seat[struct{}]
}

func (g *realGroup) do(o operation) answer {
	a := answer{opened: nobody}
	begun := func(f *flight.Flight[struct{}]) {
		if f == nil {
			return
		}
		for i := range g.flights {
			if g.flights[i] == nil {
				g.flights[i], a.opened, a.forced = f, int8(i), f.Forced()
				return
			}
		}
		panic("more flights at a time than maxFlying")
	}
	var f *flight.Flight[struct{}]
	switch ctx := context.Background(); o.verb {
	case join:
		g.seats[o.who], f = g.Join(ctx, "key")
		begun(f)
	case joinFresh:
		g.seats[o.who], f = g.JoinFresh(ctx, "key")
		begun(f)
	case start:
		for _, f := range g.Start(ctx, "key") {
			begun(f)
		}
	case mark:
		a.mark = int8(g.flights[o.who].Mark())
	case leave:
		a.mark = int8(g.flights[o.who].Leave())
	case answerEarly:
		g.flights[o.who].Answer(struct{}{}, realMark(o.before))
		a.given = g.given()
	case finish:
		f, g.flights[o.who] = g.flights[o.who], nil
		begun(f.Finish(struct{}{}, realMark(o.before), realMark(o.began)))
		a.given = g.given()
	case forget:
		g.Forget("key")
	}
	return a
}

// given returns who was given a result, and takes their seats from them.
func (g *realGroup) given() (given [callers]bool) {
	for c, seat := range g.seats {
		if seat == nil {
			continue
		}
		select {
		case <-seat.Result():
			given[c], g.seats[c] = true, nil
		default:
		}
	}
	return given
}

func realMark(mark int8) flight.Mark {
	if mark == everyone {
		return flight.Everyone
	}
	return flight.Mark(mark)
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
	real := new(realGroup)
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
	for c := range s.seats[:2] {
		if s.seats[c].flight == 0 && !s.full() {
			try(operation{verb: join, who: int8(c)})
			try(operation{verb: joinFresh, who: int8(c)})
		}
	}
	if !s.full() {
		try(operation{verb: start})
	}
	for f := range s.flights {
		if !s.flights[f].open {
			continue
		}
		for _, v := range []verb{mark, leave} {
			try(operation{verb: v, who: int8(f)})
		}
		for before := range s.flights[f].now + 1 {
			try(operation{verb: answerEarly, who: int8(f), before: before})
			for began := range before + 1 {
				try(operation{verb: finish, who: int8(f), before: before, began: began})
			}
		}
		try(operation{verb: finish, who: int8(f), before: everyone, began: everyone})
	}
	if s.current != 0 {
		try(operation{verb: forget})
	}
}

// The conformance of the search goes one way to each state. This goes every way,
// as far as that is possible, and merges nothing.
func TestModelOfFlight_DoesWhatFlightDoes(t *testing.T) {
	longest := 6
	if underRace || testing.Short() {
		longest = 5
	}
	sequences := 0
	var history []operation
	var extend func(s seating)
	extend = func(s seating) {
		s.possible(func(o operation) {
			real := new(realGroup)
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
