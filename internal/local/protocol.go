package local

import "time"

// Times are durations on the monotonic clock of the process that reads it.

// margin is what two clocks may differ by in the course of d.
func margin(d time.Duration) time.Duration { return d / 100 }

// outlast returns for how long a writer waits to know that each lease of d, renewed before it began
// to wait, is over.
func outlast(d time.Duration) time.Duration { return d + margin(d) }

// holds reports whether a lease that lasts until end is in force at now. It is asked before the
// copy is looked up: if it were asked behind that, a renewal in between would vouch for a copy that
// was looked up without a lease.
func holds(now, end time.Duration) bool { return now < end }

// Guard counts the drops of the keys that share it.
type Guard uint64

// keeps reports whether a copy may be kept that was asked for when the guard was noted: not if
// anything was dropped since, for then the copy may be of before.
func (noted Guard) keeps(now Guard) bool { return noted == now }

// kind is what a message is about.
type kind byte

const (
	joined kind = 'J' // the process is a member
	fenced kind = 'F' // keys were invalidated
	echoed kind = 'E' // a renewal of the lease
)

// message is what a listener decides on.
type message struct {
	kind kind
	prev uint64        // of a fence: the number of the one before
	seq  uint64        // the number of the last fence
	sent time.Duration // of an echo: when the renewal was sent
}

// order is what a message asks of the process.
type order uint8

const (
	skip  order = iota
	flush       // drop all copies, and move all guards
	drop        // drop the copies of the keys, and move their guards; then acknowledge
	serve       // the lease was renewed
	leave       // flush, close the connection and join anew
)

// state is how far a member has come on its connection.
type state uint8

const (
	out     state = iota // no message counts
	joining              // the join was sent
	member
)

// protocol decides for one process that keeps copies. It does nothing itself, so that the model
// drives the very code that the cache runs. The zero protocol is out.
type protocol struct {
	state state
	seen  uint64        // the last fence processed
	end   time.Duration // of the lease
}

// onMessage goes on after a message, of a process whose lease is of d.
func (p *protocol) onMessage(m message, d time.Duration) order {
	switch {
	case m.kind == joined && p.state == joining:
		// What was asked of Redis before may have missed a fence: its guards must move.
		p.state, p.seen, p.end = member, m.seq, 0
		return flush
	case p.state != member || m.kind == joined: // what came before the join is not missed
		return skip
	case m.kind == fenced && m.prev == p.seen:
		p.seen = m.seq
		return drop
	case m.kind == echoed && m.seq == p.seen:
		// Counted from before the renewal was sent: Redis has carried it out later.
		p.end = max(p.end, m.sent+d-margin(d))
		return serve
	}
	p.onLoss() // a fence was lost
	return leave
}

// onSubscribed goes on when the process listens, and sends its join.
func (p *protocol) onSubscribed() { *p = protocol{state: joining} }

// onLoss goes on when the connection is lost, or a renewal or an acknowledgement was refused. The
// process flushes.
func (p *protocol) onLoss() { *p = protocol{} }

// Fence is a fence that a writer has sent.
type Fence struct {
	seq    uint64
	gen    string        // of the table
	young  bool          // the table is new: leases may be in force that it does not know of
	others int           // members besides the writer's own process, which has dropped its copies before
	until  time.Duration // every lease is over that was renewed before the fence
}

// newFence returns the fence that Redis has answered at now, where leases are of d.
func newFence(seq uint64, gen string, young bool, others int, now, d time.Duration) Fence {
	return Fence{seq, gen, young, others, now + outlast(d)}
}

// passed reports whether the writer may return: nobody holds a copy, everybody has acknowledged, or
// all leases are over. news is of the table of gen: its members have acknowledged all fences up to
// min. Those of another table say nothing of a lost one.
func (f *Fence) passed(news news, now time.Duration) bool {
	acknowledged := f.others == 0 || news.gen == f.gen && news.min >= f.seq
	return acknowledged && !f.young || now >= f.until
}

// news is the lowest number that all members of a table have acknowledged.
type news struct {
	min uint64
	gen string
}
