package lease_test

import (
	"fmt"
	"math/big"
	"math/bits"
	"slices"
	"strings"

	"github.com/readthrough-go/readthrough/internal/lease"
)

// scenario is who there is, and what may go wrong how often.
type scenario struct {
	callers   string // the process of each: A, or B which may crash; a and b call Refresh
	writers   string
	refresher bool // a read of A has its entry refreshed in the background
	sets      int  // the writer who calls Set, counted from one: the others Invalidate
	oneByOne  bool // a writer begins when the one before it has ended
	polls     int8 // how often a flight asks again before it must stop waiting

	leaseExpiries, entryExpiries, lostAnswers, resends, unstorable, crashes uint8

	// The Store is FailoverSafe if there are failovers.
	replications, failovers uint8
}

func (s *scenario) callerIn(i int) uint8 { return (s.callers[i] - 'A') & 1 }
func (s *scenario) refreshes(i int) bool { return i < len(s.callers) && s.callers[i] >= 'a' }
func (s *scenario) writerIn(i int) uint8 { return s.writers[i] - 'A' }

func (s *scenario) start() world {
	w := world{
		db: 1, leaseExpiries: s.leaseExpiries, entryExpiries: s.entryExpiries,
		lostAnswers: s.lostAnswers, resends: s.resends, unstorable: s.unstorable, crashes: s.crashes,
		primary: 1, replications: s.replications, failovers: s.failovers,
	}
	for i := len(s.callers); i < callers; i++ {
		w.callers[i].at = vanished
	}
	for i := len(s.writers); i < writers; i++ {
		w.writers[i].at = crashed
	}
	return w
}

// explorer takes every step from every state that can be reached, depth first, and
// comes to each state once.
type explorer struct {
	*model
	plain    bool // nothing is merged
	all      []action
	index    map[world]int32
	ways     []count // from each state to an end; zero while it is being visited
	steps    int
	longest  int
	schedule []action // of the state that is being visited
	worlds   []world  // on the way to it
	key      world
}

func newExplorer(m *model) *explorer {
	const deepest = 200
	return &explorer{model: m, all: actions(), index: make(map[world]int32), worlds: make([]world, deepest)}
}

// explore returns the number of interleavings. If it is false, the schedule leads
// to the violation.
func (e *explorer) explore() (count, bool) {
	e.worlds[0] = e.start()
	i, ok := e.visit()
	return e.ways[i], ok
}

func (e *explorer) visit() (int32, bool) {
	depth := len(e.schedule)
	w := &e.worlds[depth]
	e.key = *w
	if !e.plain {
		e.merge(&e.key)
	}
	if i, seen := e.index[e.key]; seen {
		if e.ways[i] == (count{}) {
			e.violation = neverCircle
		}
		return i, e.violation == nothing
	}
	i := int32(len(e.ways))
	e.index[e.key] = i
	e.ways = append(e.ways, count{})
	e.longest = max(e.longest, depth)
	if w.over() {
		e.ways[i] = count{1}
		return i, true
	}
	var ways count
	stuck := true
	next := &e.worlds[depth+1]
	for _, a := range e.all {
		*next = *w
		if !e.step(next, a) {
			continue
		}
		e.steps++
		e.schedule = append(e.schedule, a)
		if e.violation != nothing {
			return i, false
		}
		j, ok := e.visit()
		if !ok {
			return i, false
		}
		e.schedule = e.schedule[:depth]
		ways.add(e.ways[j])
		stuck = stuck && a.kind.befalls()
	}
	if stuck {
		e.violation = neverStuck
		return i, false
	}
	e.ways[i] = ways
	return i, true
}

// visited is a state of a search breadth first, and how it was reached.
type visited struct {
	world
	from int
	by   action
}

// shortest looks, breadth first, for a way to break p, and returns the schedule.
func (m *model) shortest(p promise) (schedule []action, found bool) {
	all, reached := actions(), []visited{{world: m.start()}}
	seen := make(map[world]bool)
	for at := 0; at < len(reached); at++ {
		stuck := !reached[at].over()
		for _, a := range all {
			next := visited{reached[at].world, at, a}
			m.violation = nothing
			if !m.step(&next.world, a) {
				continue
			}
			if m.violation == p {
				return scheduleOf(reached, next), true
			}
			stuck = stuck && a.kind.befalls()
			key := next.world
			m.merge(&key)
			if !seen[key] {
				seen[key] = true
				reached = append(reached, next)
			}
		}
		if stuck && p == neverStuck {
			m.violation = p
			return scheduleOf(reached, reached[at]), true
		}
	}
	return nil, false
}

// scheduleOf follows the way to v back.
func scheduleOf(reached []visited, v visited) (schedule []action) {
	for ; ; v = reached[v.from] {
		schedule = append(schedule, v.by)
		if v.from == 0 {
			slices.Reverse(schedule)
			return schedule
		}
	}
}

// count is a number of interleavings, which no machine word holds.
type count [2]uint64

func (c *count) add(d count) {
	var carry uint64
	for i := range c {
		c[i], carry = bits.Add64(c[i], d[i], carry)
	}
	if carry > 0 {
		panic("too many interleavings to be counted")
	}
}

func (c count) String() string {
	n := new(big.Int)
	for _, word := range slices.Backward(c[:]) {
		n.Or(n.Lsh(n, 64), new(big.Int).SetUint64(word))
	}
	return n.String()
}

// narrate tells a schedule, and what it makes of the database and of Redis.
func (m *model) narrate(schedule []action) string {
	var story strings.Builder
	w := m.start()
	for n, a := range schedule {
		before := w
		m.step(&w, a)
		fmt.Fprintf(&story, "%3d  %-52s db %d  entry %d  lease %s\n", n+1, m.describe(&before, a), w.db, w.entry, tokenName(w.lease))
	}
	return story.String()
}

func (m *model) describe(w *world, a action) string {
	switch a.kind {
	case callerGoesOn, callerLosesAnswer:
		what := "joins"
		if m.refreshes(int(a.i)) {
			what = "refreshes"
		} else if w.callers[a.i].at == notStarted {
			what = map[actionKind]string{callerGoesOn: "starts with a GET", callerLosesAnswer: "starts, its GET fails"}[a.kind]
		}
		return fmt.Sprintf("%c: caller %d %s", m.callers[a.i], a.i+1, what)
	case writerGoesOn:
		return fmt.Sprintf("%c: writer %d: %s", m.writers[a.i], a.i+1, [...]string{
			idle: "the database changes", wrote: "Redis changes", halfDone: "Redis changes again", deleted: "its call returns",
		}[w.writers[a.i].at])
	case refresherGoesOn:
		return "A: a read goes on to refresh what it finds"
	case orphanArrives:
		return fmt.Sprintf("Redis does a command left to itself, %+v", w.orphans[a.i])
	case leaseExpires:
		return "the lease expires"
	case entryExpires:
		return "the entry expires"
	case processCrashes:
		return "B crashes"
	case replicates:
		return "the replica gets what Redis has"
	case failsOver:
		return "the replica is promoted"
	}
	f := &w.flights[a.p][a.i]
	return fmt.Sprintf("%c: flight %d, token %s: %s", 'A'+a.p, a.i+1, tokenName(f.token), f.describe(a.kind))
}

// tokenName returns the number of a token's load, and of the attempt if that is not the first.
func tokenName(token uint8) string {
	if token%attempts == 0 {
		return fmt.Sprint(token / attempts)
	}
	return fmt.Sprint(token/attempts, ".", token%attempts+1)
}

func (f *flying) describe(k actionKind) string {
	step := [...]string{lease.Acquire: "acquire", lease.Load: "load", lease.Fill: "fill", lease.Release: "release"}[f.Step]
	switch k {
	case flightStopsWaiting:
		return "waits no longer"
	case flightAnswersEarly:
		return "its callers do not wait for its " + step
	case flightLoadsUnstorable:
		return "the load ends with what cannot be stored"
	case flightLosesAnswer:
		return "Redis fails it in " + step
	case flightRenews:
		return "renews its lease after all"
	case flightSendsAgain:
		return "its client sends the " + step + " again"
	}
	return [...]string{
		boarding: "begins to " + step, sent: "Redis does its " + step, halfway: "Redis does its GET",
		replied: "its " + step + " is answered", loading: "the load reads", loaded: "the load ends",
	}[f.at]
}
