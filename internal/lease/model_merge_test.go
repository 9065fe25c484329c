package lease_test

import (
	"slices"

	"github.com/readthrough-go/readthrough/internal/lease"
)

// merge makes of w a world from which exactly the same can come, and which is one
// and the same for many such w: so fewer have to be visited. What it drops is names
// (of tokens, of flights, of callers of one process) and numbers of which only the
// order matters (versions, marks).
func (m *model) merge(w *world) {
	for p := range w.flights {
		for i := range w.flights[p] {
			w.rankMarks(p, i)
			m.forgetVersion(w, p, i)
		}
	}
	m.rankVersions(w)
	for p := range w.flights {
		w.sortFlights(p)
	}
	m.sortCallers(w)
	w.nameTokens()
	w.tidy()
	m.namePrimaries(w)
	if !m.hurts(w) {
		w.crashes = 0
	}
}

// rankMarks numbers the marks of a flight that still decide anything: one that no caller has joined
// before does not.
func (w *world) rankMarks(p, i int) {
	f, s := &w.flights[p][i], &w.seatings[p]
	if f.at == landed {
		return
	}
	if f.Step != lease.Acquire {
		f.polls, f.replace = 0, 0
	}
	first := int8(everyone)
	for c := range s.seats {
		if int(s.seats[c].flight) == i+1 {
			first = min(first, s.seats[c].since)
		}
	}
	if f.Step == lease.Load {
		f.sent = 0
	}
	var marks [2]*int8
	n := 0
	for _, mark := range [...]*int8{&f.began, &f.sent} {
		if *mark <= first {
			*mark = 0
			continue
		}
		marks[n] = mark
		n++
	}
	if n == 2 && *marks[0] > *marks[1] {
		marks[0], marks[1] = marks[1], marks[0]
	}
	for c := range s.seats {
		seat := &s.seats[c]
		if int(seat.flight) != i+1 {
			continue
		}
		since := int8(0)
		for _, mark := range marks[:n] {
			if *mark <= seat.since {
				since++
			}
		}
		seat.since = since
	}
	for r, mark := range marks[:n] {
		*mark = int8(r) + 1
	}
	s.flights[i].now = int8(n)
}

// forgetVersion forgets what a flight has loaded and can neither store nor give to anybody.
func (m *model) forgetVersion(w *world, p, i int) {
	f := &w.flights[p][i]
	if f.version == 0 || f.Step == lease.Acquire || f.began > 0 || f.good && f.sent > 0 || m.fillsAnyway || m.trustsAny {
		return
	}
	if f.Held && w.mayBe(f.token) {
		return
	}
	f.version = 0
}

// mayBe reports whether a token is the lease, or may yet be.
func (w *world) mayBe(token uint8) bool {
	return w.lease == token || w.replica.lease == token || slices.ContainsFunc(w.orphans[:], func(c command) bool {
		return (c.kind == acquireCmd || c.kind == stealCmd) && c.token == token
	})
}

// rankVersions numbers the versions so that two differ only if some caller may
// have to tell them apart: a version is compared with the floor of a caller, or
// with what will be one, and with nothing else.
func (m *model) rankVersions(w *world) {
	m.forgetWrites(w)
	var floor, rank [8]uint8
	for _, c := range w.callers {
		floor[c.floor] = 1
	}
	for _, wr := range w.writers {
		floor[wr.version] = 1
	}
	floor[w.covered] = 1
	w.eachReplaced(func(v *uint8) { floor[*v], floor[*v+1] = 1, 1 }) // it differs from all others
	// The oldest version that there is: what is below needs no telling apart.
	oldest := w.db
	w.eachVersion(func(v *uint8) { oldest = min(oldest, *v) })
	w.eachReplaced(func(v *uint8) { oldest = min(oldest, *v) })
	rank[oldest] = 1
	for v := oldest + 1; v <= w.db; v++ {
		rank[v] = rank[v-1] + floor[v]
	}
	w.eachVersion(func(v *uint8) { *v = rank[*v] })
	w.eachReplaced(func(v *uint8) { *v = rank[*v] })
	w.db = rank[w.db]
	for i := range w.callers {
		w.callers[i].floor = rank[w.callers[i].floor]
	}
	for i := range w.writers {
		w.writers[i].version = rank[w.writers[i].version]
	}
	w.covered = rank[w.covered]
}

// forgetWrites forgets which versions were invalidated, or will be, when nobody comes any more
// for whom it matters.
func (m *model) forgetWrites(w *world) {
	if m.refresher && !w.refresher.done || slices.ContainsFunc(w.callers[:], func(c caller) bool { return c.at == notStarted }) {
		return
	}
	w.covered = 0
	for i := range w.writers {
		if m.sets != i+1 {
			w.writers[i].version = 0
		}
	}
}

// eachVersion calls f with each version that somebody may yet be given.
func (w *world) eachVersion(f func(*uint8)) {
	some := func(v *uint8) {
		if *v != 0 {
			f(v)
		}
	}
	some(&w.entry)
	some(&w.replica.entry)
	for p := range w.flights {
		for i := range w.flights[p] {
			some(&w.flights[p][i].version)
		}
	}
	for i := range w.orphans {
		some(&w.orphans[i].version)
	}
}

// eachReplaced calls f with each version that a refresh is to replace.
func (w *world) eachReplaced(f func(*uint8)) {
	if w.refresher.found != 0 {
		f(&w.refresher.found)
	}
	for p := range w.flights {
		for i := range w.flights[p] {
			if w.flights[p][i].replace != 0 {
				f(&w.flights[p][i].replace)
			}
		}
	}
}

// sortFlights puts the flights of a process in order, by a few exchanges of neighbours.
func (w *world) sortFlights(p int) {
	for range maxFlying - 1 {
		for i := range maxFlying - 1 {
			w.exchange(p, i)
		}
	}
}

// exchange has two neighbours change places if they are out of order.
func (w *world) exchange(p, i int) {
	fs, s := &w.flights[p], &w.seatings[p]
	if fs[i].rank() >= fs[i+1].rank() {
		return
	}
	fs[i], fs[i+1] = fs[i+1], fs[i]
	s.flights[i], s.flights[i+1] = s.flights[i+1], s.flights[i]
	rename := func(f *int8) {
		switch *f {
		case int8(i) + 1:
			*f++
		case int8(i) + 2:
			*f--
		}
	}
	rename(&s.current)
	for c := range s.seats {
		rename(&s.seats[c].flight)
	}
}

// rank is a number for what tells flights apart as a rule. Those that it takes for equal stay as
// they are, which only merges less.
func (f *flying) rank() (r uint64) {
	for _, n := range [...]uint8{uint8(f.at), uint8(f.Step), f.version, uint8(f.polls), uint8(f.sent), uint8(f.began)} {
		r = r<<8 | uint64(n)
	}
	return r
}

func (m *model) sortCallers(w *world) {
	for i := 1; i < len(m.callers); i++ {
		p := m.callerIn(i)
		if m.callers[i-1] != m.callers[i] {
			continue
		}
		a, b := w.callers[i-1], w.callers[i]
		s, t := w.seatings[p].seats[i-1], w.seatings[p].seats[i]
		if slices.Compare(
			[]int8{int8(a.at), int8(a.floor), s.flight, s.since},
			[]int8{int8(b.at), int8(b.floor), t.flight, t.since}) > 0 {
			w.callers[i-1], w.callers[i] = b, a
			w.seatings[p].seats[i-1], w.seatings[p].seats[i] = t, s
		}
	}
}

func (w *world) nameTokens() {
	var names [32 * attempts]uint8
	var loads, known [32]uint8 // the name of each, and how many of its attempts have one
	next := uint8(0)
	nameLoad := func(token *uint8) {
		load := *token / attempts
		if load == 0 {
			return
		}
		if loads[load] == 0 {
			next++
			loads[load] = next
		}
		*token = loads[load] * attempts
	}
	name := func(token *uint8) {
		if *token == 0 {
			return
		}
		old := *token
		nameLoad(token)
		if names[old] == 0 {
			names[old] = *token + known[old/attempts]
			known[old/attempts]++
		}
		*token = names[old]
	}
	for p := range w.flights {
		for i := range w.flights[p] {
			f := &w.flights[p][i]
			name(&f.token)
			nameLoad(&f.waitsFor) // whatever the attempt
			nameLoad(&f.holder)
		}
	}
	name(&w.lease)
	name(&w.replica.lease)
	nameLoad(&w.failed)
	for i := range w.orphans {
		name(&w.orphans[i].token)
	}
}

// namePrimaries makes one of all primaries that are gone, whose IDs never come back.
func (m *model) namePrimaries(w *world) {
	if m.idsComeBack {
		return
	}
	for _, of := range []*uint8{&w.entryOf, &w.leaseOf} {
		if *of == w.primary {
			*of = 1
		} else {
			*of = 0
		}
	}
	w.primary, w.replica.entryOf, w.replica.leaseOf = 1, 0, 0
}
