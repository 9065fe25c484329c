package local

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// The world of the model: processes that keep copies of two keys, each a row of a database and an
// entry in Redis; readers in them, and writers, one of which has no copies. The table and its
// scripts are modelled; what processes and writers decide is decided by the code in protocol.go.
//
// Time is discrete. Clocks run at rates that differ by 1 %. Whatever is sent is carried out later,
// or never; its answer comes later still. Processes and readers stand still for a while.

const (
	modelProcs   = 2
	modelWriters = 2
	modelReaders = 3
	modelKeys    = 2
	modelLease   = 1000 // ticks
)

// rates of the clocks, in 1/1000: of the processes, and then of the writer that is none of them.
var modelRates = [modelProcs + 1]int64{1005, 995, 1005}

type row struct {
	name   int
	ack    uint64
	marked bool
}

type table struct {
	there bool
	gen   int
	seq   uint64
	young bool
	rows  []row
}

func (t *table) find(name int) *row {
	for i := range t.rows {
		if t.rows[i].name == name {
			return &t.rows[i]
		}
	}
	return nil
}

func (t *table) remove(name int) {
	for i := range t.rows {
		if t.rows[i].name == name {
			t.rows = append(t.rows[:i], t.rows[i+1:]...)
			return
		}
	}
}

func (t *table) least() uint64 {
	least := t.seq
	for _, r := range t.rows {
		least = min(least, r.ack)
	}
	return least
}

// sent is a script under way to Redis.
type sent struct {
	pending bool
	name    int
	at      time.Duration
	seq     uint64
	old     []int
}

type queued struct {
	message
	key int
}

type modelProc struct {
	protocol
	name             int // of the connection; 0: none
	deaf             bool
	mine             []int
	queue            []queued
	join, renew, ack sent
	copies           [modelKeys]int // version+1
	guards           [modelKeys]Guard
}

type removal struct {
	pending bool
	gen     int
	names   []int
	young   bool
	at      time.Duration
}

type modelWriter struct {
	pc       int
	key      int
	version  int
	fence    Fence
	reply    struct{ seq, gen, others uint64 }
	young    bool
	news     news
	removals [2]removal
}

type modelReader struct {
	pc, key, floor, found int
	now                   time.Duration
	noted                 Guard
}

type world struct {
	rng     *rand.Rand
	off     string // the rule that is switched off
	now     int64
	names   int
	table   table
	lastAck news // the last that was published

	row, floor   [modelKeys]int // floor: the version that reads must not be older than
	entry, token [modelKeys]int // version+1

	procs   [modelProcs]modelProc
	writers [modelWriters]modelWriter
	readers [modelReaders]modelReader

	pausedProc, pausedReader, wakes int
	wrong                           string
	trace                           []string
	hits, acked, waited             int
}

func newWorld(seed uint64, off string) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), off: off, pausedProc: -1, pausedReader: -1}
	w.table = table{there: true, gen: 1, seq: 1}
	return w
}

// clock returns the time by the clock of a process, or of the writer without copies.
func (w *world) clock(i int) time.Duration { return time.Duration(w.now * modelRates[i] / 1000) }

// clockOf returns the time by a writer's clock: the first writer is in the first process.
func (w *world) clockOf(writer int) time.Duration {
	if writer == 0 {
		return w.clock(0)
	}
	return w.clock(modelProcs)
}

func genText(gen int) string { return strconv.Itoa(gen) }

// ensure is the head of join and fence.
func (w *world) ensure() {
	if !w.table.there {
		w.table = table{there: true, gen: w.table.gen + 1, seq: w.table.seq + 100, young: true}
	}
}

// tell publishes news if the least acknowledgement has risen.
func (w *world) tell(before uint64) {
	if now := w.table.least(); now > before {
		w.lastAck = news{now, genText(w.table.gen)}
	}
}

// publish sends a message to a process, or to all for a fence.
func (w *world) publish(name int, m queued) {
	for i := range w.procs {
		p := &w.procs[i]
		if p.name != 0 && !p.deaf && (m.kind == fenced || p.name == name) {
			p.queue = append(p.queue, m)
		}
	}
}

func (w *world) drop(p *modelProc, key int) {
	p.guards[key]++
	p.copies[key] = 0
}

func (w *world) flush(p *modelProc) {
	for key := range p.copies {
		w.drop(p, key)
	}
}

// lose is what a process does when its connection is lost.
func (w *world) lose(p *modelProc) {
	p.onLoss()
	w.flush(p)
	p.name, p.deaf, p.queue = 0, false, nil
}

// hear is Tier.hear.
func (w *world) hear(i int) {
	p := &w.procs[i]
	m := p.queue[0]
	p.queue = p.queue[1:]
	switch {
	case w.off == "chain" && m.kind == fenced:
		m.prev = p.seen
	case w.off == "chain" && m.kind == echoed:
		m.seq = p.seen
	case w.off == "sent" && m.kind == echoed:
		m.sent = w.clock(i)
	}
	switch p.onMessage(m.message, modelLease) {
	case flush:
		if w.off != "join" {
			w.flush(p)
		}
		p.mine = []int{p.name}
	case drop:
		w.drop(p, m.key)
	case serve:
		if w.off == "margin" {
			p.end += margin(modelLease)
		}
	case leave:
		w.lose(p)
	case skip:
	}
}

// violation ends the walk.
func (w *world) violation(format string, args ...any) { w.wrong = fmt.Sprintf(format, args...) }
