package lease_test

import (
	"slices"

	"github.com/readthrough-go/readthrough/internal/lease"
)

const (
	processes = 2
	writers   = 2
	crasher   = 1 // the process that may crash
)

// world is one state of everything that matters to one key: the database, Redis,
// the processes and what is under way between them. It is a plain value, so that
// it can be copied, and compared with those that were seen.
type world struct {
	db      uint8 // versions count from one; zero is none
	covered uint8 // the newest write whose invalidation has returned
	memory        // of the primary
	primary uint8 // its replication ID
	replica memory
	failed  uint8 // in Redis: the token whose load has brought nothing

	callers   [callers]caller
	refresher refresher
	writers   [writers]writer
	seatings  [processes]seating
	flights   [processes][maxFlying]flying
	orphans   [maxOrphans]command

	// What may still go wrong.
	leaseExpiries, entryExpiries, lostAnswers, resends, unstorable, crashes uint8
	replications, failovers                                                 uint8
}

// memory is what a Redis holds: the version and the token stored, or zero, and by which primary each
// was taken.
type memory struct{ entry, entryOf, lease, leaseOf uint8 }

// refresher is the read of process A that starts a refresh in the background.
type refresher struct {
	found uint8 // the version that it has read
	done  bool
}

// caller is one call of Get, or of Refresh.
type caller struct {
	at    callerStage
	floor uint8 // the oldest version that it may return
}

type callerStage uint8

const (
	notStarted callerStage = iota
	missed
	missedBlindly // its GET failed
	seated
	served
	vanished // in the crash
)

// writer is one change of the database and the Invalidate or Set that follows it.
type writer struct {
	at      writerStage
	version uint8
}

type writerStage uint8

const (
	idle     writerStage = iota
	wrote                // the database has it, Redis does not know yet
	halfDone             // Redis has deleted the lease
	deleted              // Redis has done it, the call has not returned
	returned
	crashed
)

// flying is one flight under way: what a run of the engine knows.
type flying struct {
	lease.Protocol
	at          flightStage
	token       uint8
	owns        bool // of the checks, not of the flight: Redis holds its lease
	good        bool // the answer: the lease was acquired, or the fill or release accepted
	version     uint8
	replace     uint8 // the version that is not good enough
	waitsFor    uint8 // the token of the load that it waits for
	holder      uint8 // the answer: the token that holds the lease
	inVain      bool  // the answer: the load that it waits for has brought nothing
	polls       int8
	sent, began int8 // marks
}

type flightStage uint8

const (
	landed   flightStage = iota // there is no such flight
	boarding                    // it has done nothing yet
	sent                        // its command has not reached Redis
	halfway                     // of an acquire: SET NX has been done, GET has not
	replied                     // Redis has done it, the answer is under way
	loading                     // the loader has been called, and has not read the database
	loaded                      // it has, and has not returned
)

// underway reports whether f waits for an answer of Redis.
func (f *flying) underway() bool { return f.at == sent || f.at == halfway || f.at == replied }

// command is one on its way to Redis whose answer nobody waits for.
type command struct {
	kind    kind
	token   uint8
	version uint8
}

// meets reports whether a fill or a release would find what it needs if token were the lease.
func (c command) meets(token uint8) bool {
	return token == c.token || c.kind == releaseCmd && sameLoad(token, c.token)
}

const maxOrphans = 6

type kind uint8

const (
	none kind = iota
	acquireCmd
	stealCmd
	fillCmd
	releaseCmd
	unlinkCmd
	unleaseCmd
)

func (c caller) done() bool { return c.at == served || c.at == vanished }
func (w writer) done() bool { return w.at == returned || w.at == crashed }

// over reports whether nobody waits for anything any more.
func (w *world) over() bool {
	for _, c := range w.callers {
		if !c.done() {
			return false
		}
	}
	for _, wr := range w.writers {
		if !wr.done() {
			return false
		}
	}
	return true
}

// setLease makes token the lease, or none. Whoever had the lease has lost it.
func (w *world) setLease(token uint8) {
	for p := range w.flights {
		for i := range w.flights[p] {
			w.flights[p][i].owns = false
		}
	}
	w.lease, w.leaseOf = token, w.primary
}

// setEntry stores a version, or zero.
func (w *world) setEntry(version uint8) { w.entry, w.entryOf = version, w.primary }

// attempts is how many tokens a load may have: one for each time that it asks for its lease.
// Those of the load n are from n * attempts on.
const attempts = 4

// sameLoad reports whether two tokens differ by the attempt at most.
func sameLoad(a, b uint8) bool { return a/attempts == b/attempts }

// newToken returns a token of a load that nothing knows of any more.
func (w *world) newToken() uint8 {
	token := uint8(attempts)
	for w.knows(func(other uint8) bool { return sameLoad(token, other) }) {
		token += attempts
	}
	return token
}

// nextAttempt returns another token of the load of token.
func (w *world) nextAttempt(token uint8) uint8 {
	next := token - token%attempts
	for w.knows(func(other uint8) bool { return next == other }) {
		next++
	}
	if !sameLoad(token, next) {
		panic("more attempts of one load than there are tokens for")
	}
	return next
}

// knows reports whether there is such a token anywhere.
func (w *world) knows(such func(token uint8) bool) bool {
	if such(w.lease) || such(w.replica.lease) || such(w.failed) {
		return true
	}
	for i := range w.orphans {
		if such(w.orphans[i].token) {
			return true
		}
	}
	for p := range w.flights {
		for i := range w.flights[p] {
			f := &w.flights[p][i]
			if such(f.token) || such(f.waitsFor) || such(f.holder) {
				return true
			}
		}
	}
	return false
}

// orphan leaves c to itself: it may be done at any time, or never.
func (w *world) orphan(c command) {
	i := slices.IndexFunc(w.orphans[:], func(o command) bool { return o.kind == none })
	w.orphans[i] = c
}

// tidy forgets the orphans that can do nothing any more, and puts the others in
// order: so that worlds which differ in nothing that matters are one.
func (w *world) tidy() {
	for i, c := range w.orphans {
		harmless := !c.meets(w.lease) && !c.meets(w.replica.lease) && !slices.ContainsFunc(w.orphans[:], func(o command) bool {
			return (o.kind == acquireCmd || o.kind == stealCmd) && c.meets(o.token)
		})
		if (c.kind == fillCmd || c.kind == releaseCmd) && harmless {
			w.orphans[i] = command{}
		}
	}
	w.forgetTokens()
	slices.SortFunc(w.orphans[:], func(a, b command) int { return b.order() - a.order() })
}

// forgetTokens forgets whom those wait for who will not be told any more, and what nobody is
// told any more.
func (w *world) forgetTokens() {
	told := false
	for p := range w.flights {
		for i := range w.flights[p] {
			f := &w.flights[p][i]
			if f.Step != lease.Acquire || !w.mayFail(f.waitsFor) {
				f.waitsFor = 0
			}
			if f.Step != lease.Acquire || !w.mayFail(f.holder) {
				f.holder = 0
			}
			told = told || w.failed != 0 && (sameLoad(f.waitsFor, w.failed) || sameLoad(f.holder, w.failed))
		}
	}
	if !told {
		w.failed = 0
	}
}

// mayFail reports whether the load under a token has failed, or may yet.
func (w *world) mayFail(token uint8) bool {
	if token == 0 || sameLoad(token, w.failed) {
		return token != 0
	}
	for _, fs := range w.flights {
		for _, f := range fs {
			if f.at != landed && sameLoad(f.token, token) && (f.Held || f.Step == lease.Acquire) {
				return w.unstorable > 0 || f.Step == lease.Release
			}
		}
	}
	return false
}

func (c command) order() int { return int(c.kind)<<16 | int(c.token)<<8 | int(c.version) }
