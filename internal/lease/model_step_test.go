package lease_test

import (
	"fmt"

	"github.com/readthrough-go/readthrough/internal/lease"
)

// rules is what the model leaves to others: the decisions, which are the cache's
// own, and what Redis does, so that a test can do without one rule.
type rules struct {
	onAcquire func(p *lease.Protocol, held, usable, inVain, failed bool)
	onLoad    func(p *lease.Protocol, storable bool)
	onSettle  func(p *lease.Protocol, kept, failed bool)
	before    func(f *flying) (before, began int8) // whom finish serves
	early     func(f *flying) int8                 // who is served while a fill or release is under way

	settling         verb // what is called before a fill or release is sent: leave
	marksLate        bool // the acquire's mark is taken when it is answered: no
	fillsAnyway      bool // without the lease: no
	keepsLease       bool // a write leaves the lease alone: no
	entryBeforeLease bool // a write changes the entry first, and then deletes the lease: no
	waitsForever     bool // for the process that holds the lease: no
	neverSteals      bool // a Refresh takes what it finds: no
	tellsNobody      bool // of a load that has brought nothing to store: no
	trustsAny        bool // whichever attempt's lease a release gives back, it was held throughout: no
	servesForeign    bool // an entry that another primary took is served: no
	fillsForeign     bool // a lease that another primary gave is good for a fill: no
	idsComeBack      bool // a server that is promoted again has the ID it had before: no
	sameToken        bool // a client that sends an acquire again does so under the same token: no
}

func realRules() rules {
	return rules{
		onAcquire: (*lease.Protocol).OnAcquire,
		onLoad:    (*lease.Protocol).OnLoad,
		onSettle:  (*lease.Protocol).OnSettle,
		before: func(f *flying) (before, began int8) {
			return lease.SharedBefore(f.Audience, f.began, f.sent), f.began
		},
		early:    func(f *flying) int8 { return lease.SharedBefore(lease.BeforeLoad, f.began, f.sent) },
		settling: leave,
	}
}

// action is one step that one actor takes. Between two steps an actor does only
// what nobody else can notice, so it may as well be done at the later one.
type action struct {
	kind actionKind
	p, i uint8 // the process and its flight, or else who of several
}

type actionKind uint8

const (
	callerGoesOn actionKind = iota
	writerGoesOn
	flightGoesOn
	flightStopsWaiting // LeaseWait is over
	// What follows befalls the actors: it may never happen.
	flightAnswersEarly // its callers do not wait for the fill any more
	flightLoadsUnstorable
	refresherGoesOn
	callerLosesAnswer
	flightLosesAnswer
	flightSendsAgain // its client does, which has lost the connection
	flightRenews     // its lease, after it has failed to
	orphanArrives
	leaseExpires
	entryExpires
	processCrashes
	replicates
	failsOver
)

// befalls reports whether the step is something that befalls the actors.
func (k actionKind) befalls() bool { return k > flightStopsWaiting }

// actions are all that there can be.
func actions() []action {
	var all []action
	for i := range uint8(callers) {
		all = append(all, action{kind: callerGoesOn, i: i}, action{kind: callerLosesAnswer, i: i})
	}
	for i := range uint8(writers) {
		all = append(all, action{kind: writerGoesOn, i: i})
	}
	for p := range uint8(processes) {
		for i := range uint8(maxFlying) {
			for _, k := range []actionKind{
				flightGoesOn, flightStopsWaiting, flightAnswersEarly, flightLoadsUnstorable, flightLosesAnswer, flightSendsAgain, flightRenews,
			} {
				all = append(all, action{k, p, i})
			}
		}
	}
	for i := range uint8(maxOrphans) {
		all = append(all, action{kind: orphanArrives, i: i})
	}
	return append(all, action{kind: refresherGoesOn}, action{kind: leaseExpires}, action{kind: entryExpires}, action{kind: processCrashes},
		action{kind: replicates}, action{kind: failsOver})
}

// model is a scenario and the rules that it is played by.
type model struct {
	rules
	scenario
	group     *conformance
	violation promise // by the last step
	detail    string
}

// promise is what must hold.
type promise string

const (
	nothing     promise = ""
	neverStale  promise = "a Get that starts after Invalidate has returned gets nothing loaded before"
	ownersFill  promise = "a fill is accepted only of the flight whose lease has not been lost"
	oneOwner    promise = "one flight at most holds the lease"
	neverQueued promise = "nobody waits for another load after one that it has waited for in vain"
	neverStuck  promise = "somebody can go on until all have what they want"
	neverCircle promise = "nothing goes on for ever"
)

// step takes a in w, and reports whether that is possible there.
func (m *model) step(w *world, a action) bool {
	possible := false
	switch a.kind {
	case callerGoesOn:
		possible = m.stepCaller(w, a.i)
	case writerGoesOn:
		possible = m.stepWriter(w, a.i)
	case flightGoesOn:
		possible = m.stepFlight(w, a.p, a.i, false)
	case flightStopsWaiting:
		possible = m.stepFlight(w, a.p, a.i, true)
	case flightAnswersEarly:
		possible = m.answerEarly(w, a.p, a.i)
	case flightLoadsUnstorable:
		f := &w.flights[a.p][a.i]
		if possible = f.at == loaded && f.Held && spend(&w.unstorable); possible {
			m.endLoad(w, a.p, a.i, false)
		}
	case refresherGoesOn:
		possible = m.stepRefresher(w)
	case callerLosesAnswer:
		if c := &w.callers[a.i]; c.at == notStarted && !m.refreshes(int(a.i)) && spend(&w.lostAnswers) {
			c.at, c.floor, possible = missedBlindly, w.covered, true
		}
	case flightLosesAnswer:
		possible = m.loseAnswer(w, a.p, a.i)
	case flightSendsAgain:
		f := &w.flights[a.p][a.i]
		if possible = f.underway() && spend(&w.resends); possible {
			m.sendAgain(w, f)
		}
	case flightRenews:
		f := &w.flights[a.p][a.i]
		if possible = f.at == loading && f.Held && f.Down; possible {
			f.OnRenew(false)
		}
	case orphanArrives:
		if c := w.orphans[a.i]; c.kind != none {
			w.orphans[a.i] = command{}
			m.apply(w, c)
			possible = true
		}
	case leaseExpires:
		if possible = w.lease != 0 && spend(&w.leaseExpiries); possible {
			w.setLease(0)
		}
	case entryExpires:
		if possible = w.entry != 0 && spend(&w.entryExpiries); possible {
			w.setEntry(0)
		}
	case processCrashes:
		if possible = m.hurts(w) && spend(&w.crashes); possible {
			m.crash(w)
		}
	case replicates:
		if possible = w.failovers > 0 && spend(&w.replications); possible {
			w.replica = w.memory
		}
	case failsOver:
		if possible = spend(&w.failovers); possible {
			m.failOver(w)
		}
	}
	if possible {
		w.tidy()
		m.checkOwners(w)
	}
	return possible
}

func spend(budget *uint8) bool {
	if *budget == 0 {
		return false
	}
	*budget--
	return true
}

// stepCaller is Get: look up, then join a flight. A caller starts as late as it
// can, at the moment that Redis does its GET: starting earlier would only lower
// what it may expect. A Refresh looks nothing up: it expects what the database has.
func (m *model) stepCaller(w *world, i uint8) bool {
	c := &w.callers[i]
	if c.done() || c.at == seated {
		return false
	}
	p := m.callerIn(int(i))
	switch {
	case c.at == notStarted && m.refreshes(int(i)):
		if w.seatings[p].full() {
			return false
		}
		c.floor, c.at = w.db, seated
		m.board(w, p, m.group.do(&w.seatings[p], operation{verb: joinFresh, who: int8(i)}), lease.Protocol{}, 0)
	case c.at == notStarted:
		c.floor = w.covered
		c.at = missed
		if entry := m.get(w); entry != 0 {
			m.serve(w, i, entry)
		}
	default:
		if w.seatings[p].full() {
			return false
		}
		first := lease.Protocol{}
		if c.at == missedBlindly {
			first = lease.Alone()
		}
		m.board(w, p, m.group.do(&w.seatings[p], operation{verb: join, who: int8(i)}), first, 0)
		c.at = seated
	}
	return true
}

// stepRefresher is a read of process A that finds an entry and has it refreshed in the
// background.
func (m *model) stepRefresher(w *world) bool {
	r := &w.refresher
	switch {
	case !m.refresher || r.done:
		return false
	case r.found == 0:
		r.found = m.get(w)
		return r.found != 0
	case w.seatings[0].full():
		return false
	}
	m.board(w, 0, m.group.do(&w.seatings[0], operation{verb: start}), lease.Protocol{Yields: true}, r.found)
	*r = refresher{done: true}
	return true
}

func (m *model) serve(w *world, i uint8, version uint8) {
	c := &w.callers[i]
	if version < c.floor {
		m.violation = neverStale
		m.detail = fmt.Sprintf("caller %d gets version %d, and %d was invalidated before it started", i+1, version, c.floor-1)
	}
	*c = caller{at: served}
}

// board has a flight that was just opened begin where p says. An entry of the version
// replace is not good enough for it.
func (m *model) board(w *world, process uint8, a answer, p lease.Protocol, replace uint8) {
	if a.opened == nobody {
		return
	}
	p.Steal = a.forced && !m.neverSteals
	w.flights[process][a.opened] = flying{Protocol: p, at: boarding, token: w.newToken(), replace: replace}
}

// stepWriter writes to the database, and then calls Invalidate or Set.
func (m *model) stepWriter(w *world, i uint8) bool {
	wr := &w.writers[i]
	switch wr.at {
	case idle:
		if m.oneByOne && i > 0 && !w.writers[i-1].done() {
			return false
		}
		w.db++
		wr.at, wr.version = wrote, w.db
	case wrote:
		m.write(w, wr, i, m.entryBeforeLease)
		wr.at = halfDone
	case halfDone:
		m.write(w, wr, i, !m.entryBeforeLease)
		wr.at = deleted
	case deleted:
		m.group.do(&w.seatings[m.writerIn(int(i))], operation{verb: forget})
		w.covered = max(w.covered, wr.version)
		*wr = writer{at: returned}
	default:
		return false
	}
	return true
}

// write is one of the two commands of an Invalidate or Set: others may come between them.
func (m *model) write(w *world, wr *writer, i uint8, entry bool) {
	switch {
	case !entry && !m.keepsLease:
		w.setLease(0)
	case entry && m.sets == int(i)+1:
		w.setEntry(wr.version)
	case entry:
		w.setEntry(0)
	}
}

// stepFlight is the run of load.go. over says that LeaseWait has passed.
func (m *model) stepFlight(w *world, p, i uint8, over bool) bool {
	f := &w.flights[p][i]
	if over && (m.waitsForever || f.at != replied || f.Step != lease.Acquire) {
		return false // only a waiter minds
	}
	switch f.at {
	case landed:
		return false
	case boarding:
		m.proceed(w, p, i)
	case sent:
		m.arrive(w, f)
	case halfway:
		if !m.isSafe() {
			w.look(f)
		}
		f.version, f.at = m.get(w), replied
	case replied:
		return m.digest(w, p, i, over)
	case loading:
		f.version, f.at = w.db, loaded
	case loaded:
		m.endLoad(w, p, i, true)
	}
	return true
}

// isSafe reports whether the Store is FailoverSafe: a script looks who holds the lease, and not a
// command behind that for the entry.
func (m *model) isSafe() bool { return m.failovers > 0 }

// look has f learn who holds the lease, and whether it waits in vain.
func (w *world) look(f *flying) {
	if !f.good && sameLoad(w.lease, f.token) { // an earlier attempt got it
		f.good, f.owns, f.token = true, true, w.lease
	}
	f.holder, f.inVain = w.lease, f.waitsFor != 0 && sameLoad(f.waitsFor, w.failed)
}

// arrive is the moment at which Redis does what f has sent.
func (m *model) arrive(w *world, f *flying) {
	f.at = replied
	switch f.Step {
	case lease.Acquire:
		// A pipeline is not atomic: others may come between SET NX and GET.
		if f.at = halfway; f.Steal {
			f.at = replied // it does not look at the entry
		}
		if m.leaseIsFree(w) || f.Steal {
			w.setLease(f.token)
			f.good, f.owns = true, true
		}
		if m.isSafe() {
			w.look(f)
		}
	case lease.Fill:
		owned := f.owns
		f.good = m.apply(w, command{fillCmd, f.token, f.version})
		if !f.good && m.fillsAnyway {
			w.setEntry(f.version)
			f.good = true
		}
		if f.good && !owned {
			m.violation = ownersFill
		}
	case lease.Release:
		w.failed = f.token
		if w.lease == f.token { // what was loaded is newer, and is not stored
			w.entry = 0
		}
		another := w.lease != f.token && sameLoad(w.lease, f.token)
		f.good = m.apply(w, command{kind: releaseCmd, token: f.token}) || another && m.trustsAny
	}
}

// apply is the moment at which Redis does c. It reports what a script returns.
func (m *model) apply(w *world, c command) bool {
	switch c.kind {
	case acquireCmd, stealCmd:
		if m.leaseIsFree(w) || c.kind == stealCmd {
			w.setLease(c.token)
		}
		return false
	case unlinkCmd:
		w.setEntry(0)
		return false
	case unleaseCmd:
		w.setLease(0)
		w.orphan(command{kind: unlinkCmd}) // comes after it
		return false
	}
	foreign := w.leaseOf != w.primary && !m.fillsForeign
	if !c.meets(w.lease) || c.kind == fillCmd && foreign {
		return false
	}
	kept := w.lease == c.token && !foreign
	if c.kind == fillCmd {
		w.setEntry(c.version)
	}
	w.setLease(0)
	return kept
}

// get returns the entry that a read is given.
func (m *model) get(w *world) uint8 {
	if w.entryOf != w.primary && !m.servesForeign {
		return 0
	}
	return w.entry
}

// leaseIsFree reports whether an acquire gets the lease.
func (m *model) leaseIsFree(w *world) bool { return w.lease == 0 || w.leaseOf != w.primary }

// failOver makes the replica the primary, with what it has. A restart from a snapshot is the same.
func (m *model) failOver(w *world) {
	w.setLease(0) // who had it has lost it
	w.memory = w.replica
	if w.failovers == 0 { // no other will be promoted
		w.replica, w.replications = memory{}, 0
	}
	if w.primary++; m.idsComeBack && w.primary > 2 {
		w.primary = 1
	}
}

// digest goes on after an answer.
func (m *model) digest(w *world, p, i uint8, over bool) bool {
	f := &w.flights[p][i]
	if f.Step != lease.Acquire {
		m.onSettle(&f.Protocol, f.good, false)
		m.proceed(w, p, i)
		return true
	}
	if m.marksLate {
		f.sent = m.mark(w, p, i)
	}
	m.onAcquire(&f.Protocol, f.good, f.version != 0 && f.version != f.replace, f.inVain && !m.tellsNobody, false)
	if waits := f.Step == lease.Wait; waits {
		if f.inVain {
			m.violation = neverQueued
		}
		f.waitsFor = f.holder
		if !over && f.polls == m.polls {
			return false
		}
		f.OnWait(over)
		f.polls++
	} else if over {
		return false
	}
	m.proceed(w, p, i)
	return true
}

func (m *model) mark(w *world, p, i uint8) int8 {
	return m.group.do(&w.seatings[p], operation{verb: mark, who: int8(i)}).mark
}

// proceed begins the step that the course has come to.
func (m *model) proceed(w *world, p, i uint8) {
	f := &w.flights[p][i]
	f.good, f.inVain, f.holder = false, false, 0
	switch f.Step {
	case lease.Acquire:
		f.at = sent
		if !m.marksLate {
			f.sent = m.mark(w, p, i)
		}
	case lease.Load:
		f.at, f.began = loading, m.mark(w, p, i)
	case lease.Fill, lease.Release:
		f.at = sent
		f.sent = m.group.do(&w.seatings[p], operation{verb: m.settling, who: int8(i)}).mark
	case lease.Finish:
		m.finish(w, p, i)
	}
}

func (m *model) endLoad(w *world, p, i uint8, storable bool) {
	f := &w.flights[p][i]
	m.onLoad(&f.Protocol, storable)
	m.proceed(w, p, i)
}

func (m *model) finish(w *world, p, i uint8) {
	f := w.flights[p][i]
	w.flights[p][i] = flying{}
	before, began := m.before(&f)
	a := m.group.do(&w.seatings[p], operation{finish, int8(i), before, began})
	for c, given := range a.given {
		if given {
			m.serve(w, uint8(c), f.version)
		}
	}
	next := f.Successor()
	if f.OnFinish() {
		w.orphan(command{kind: releaseCmd, token: f.token})
	}
	m.board(w, p, a, next, 0)
}

// answerEarly serves those who may have the result whatever becomes of the fill. It reports false if
// there are none.
func (m *model) answerEarly(w *world, p, i uint8) bool {
	f := &w.flights[p][i]
	if f.Step != lease.Fill && f.Step != lease.Release || f.at != sent && f.at != replied {
		return false
	}
	answered := false
	for c, given := range m.group.do(&w.seatings[p], operation{verb: answerEarly, who: int8(i), before: m.early(f)}).given {
		if given {
			m.serve(w, uint8(c), f.version)
			answered = true
		}
	}
	return answered
}

// loseAnswer is a timeout. What was sent may still arrive.
func (m *model) loseAnswer(w *world, p, i uint8) bool {
	f := &w.flights[p][i]
	renewing := f.at == loading && f.Held && !f.Down
	if !(f.underway() || renewing) || !spend(&w.lostAnswers) {
		return false
	}
	if renewing {
		f.OnRenew(true)
		return true
	}
	w.strand(f)
	if f.Step == lease.Acquire {
		f.version = 0
		m.onAcquire(&f.Protocol, false, false, false, true)
	} else {
		m.onSettle(&f.Protocol, false, true)
	}
	m.proceed(w, p, i)
	return true
}

// sendAgain has what f has sent be sent once more. The first copy may still arrive, and its
// answer is lost.
func (m *model) sendAgain(w *world, f *flying) {
	w.strand(f)
	f.at, f.good, f.inVain, f.holder = sent, false, false, 0
	if f.Step != lease.Acquire {
		return
	}
	f.version = 0
	if !m.sameToken {
		f.token = w.nextAttempt(f.token)
	}
}

// strand leaves what f has sent to itself.
func (w *world) strand(f *flying) {
	if f.at != sent {
		return
	}
	switch f.Step {
	case lease.Acquire:
		kind := acquireCmd
		if f.Steal {
			kind = stealCmd
		}
		w.orphan(command{kind: kind, token: f.token})
	case lease.Fill:
		w.orphan(command{fillCmd, f.token, f.version})
	case lease.Release:
		w.orphan(command{kind: releaseCmd, token: f.token})
	}
}

// hurts reports whether a crash would still end anything.
func (m *model) hurts(w *world) bool {
	for i, c := range w.callers {
		if !c.done() && m.callerIn(i) == crasher {
			return true
		}
	}
	for i, wr := range w.writers {
		if !wr.done() && m.writerIn(i) == crasher {
			return true
		}
	}
	return false
}

// crash is the end of a process. What it has sent may still arrive.
func (m *model) crash(w *world) {
	for i := range w.flights[crasher] {
		w.strand(&w.flights[crasher][i])
	}
	w.flights[crasher] = [maxFlying]flying{}
	w.seatings[crasher] = seating{}
	for i, c := range w.callers {
		if !c.done() && m.callerIn(i) == crasher {
			w.callers[i] = caller{at: vanished}
		}
	}
	for i, wr := range w.writers {
		if wr.done() || m.writerIn(i) != crasher {
			continue
		}
		switch wr.at {
		case wrote:
			w.orphan(command{kind: unleaseCmd})
		case halfDone:
			w.orphan(command{kind: unlinkCmd})
		}
		w.writers[i] = writer{at: crashed}
	}
}

func (m *model) checkOwners(w *world) {
	owners := 0
	for _, fs := range w.flights {
		for _, f := range fs {
			if !f.owns {
				continue
			}
			owners++
			if !sameLoad(f.token, w.lease) {
				m.violation = oneOwner
			}
		}
	}
	if owners > 1 {
		m.violation = oneOwner
	}
}
