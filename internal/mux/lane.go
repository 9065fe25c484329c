package mux

import "time"

// The lanes of a node. Requests that are large, or whose replies are expected to be, have one of
// their own: they neither hold up small ones nor fail them.
const (
	small = iota
	bulk
	lanes
)

// lane is the slots for pipelines of one kind, and the queue of those who wait for one. node.mu
// guards it.
type lane struct {
	slots    int       // how many of the MaxPipelines slots are taken
	queue    []*waiter // those who found no slot free, in the order of their coming
	progress time.Time // when Redis last answered, or a pipeline made progress: who queues waits since then
}

// laneFor returns the lane of requests of so many bytes and commands.
func (n *node) laneFor(bytes, commands int) *lane {
	if bytes > bulkBytes || commands > bulkCommands {
		return &n.lanes[bulk]
	}
	return &n.lanes[small]
}

// full reports whether no slot is free.
func (l *lane) full() bool { return l.slots >= MaxPipelines }

// enqueue puts w at the end of the queue.
func (l *lane) enqueue(w *waiter) {
	w.queuedAt = time.Now()
	l.queue = append(l.queue, w)
}

// next takes as many waiters from the front of the queue of l as fit into one pipeline, at least
// one. It skips those whose callers have left, and sends those whose reply is found to be large by
// now to the bulk lane. It returns nil if nobody waits. n.mu is held.
func (n *node) next(l *lane) *pipeline {
	waiters := make([]*waiter, 0, min(len(l.queue), MaxCommands))
	var asked map[string]bool // the keys of waiters: equal keys have one reply
	bytes, commands, taken, moved := 0, 0, 0, 0
	for _, w := range l.queue {
		size, count := w.bytes(), w.commands()
		toBulk := l == &n.lanes[small] && n.laneFor(size, count) != l
		if asked[w.key] {
			size = 0
		}
		if len(waiters) > 0 && (bytes+size > MaxBytes || commands+count > MaxCommands) {
			break
		}
		taken++
		if w.gone {
			continue
		}
		if toBulk {
			n.lanes[bulk].queue = append(n.lanes[bulk].queue, w)
			moved++
			continue
		}
		if l == &n.lanes[bulk] && w.cmds == nil {
			if asked == nil {
				asked = make(map[string]bool)
			}
			asked[w.key] = true
		}
		waiters = append(waiters, w)
		bytes, commands = bytes+size, commands+count
	}
	l.truncate(copy(l.queue, l.queue[taken:]))
	if moved > 0 {
		n.flush(&n.lanes[bulk])
	}
	if len(waiters) == 0 {
		return nil
	}
	return &pipeline{lane: l, waiters: waiters}
}

// timeOutQueue releases the waiters that queued before overdue, and drops them and those whose
// callers have left.
func (l *lane) timeOutQueue(overdue time.Time) {
	kept := 0
	for _, w := range l.queue {
		switch {
		case w.gone:
		case w.queuedAt.Before(overdue) && l.progress.Before(overdue):
			w.timeOut()
		default:
			l.queue[kept] = w
			kept++
		}
	}
	l.truncate(kept)
}

// truncate shortens the queue to n waiters, and forgets the others so that they can be collected.
func (l *lane) truncate(n int) {
	clear(l.queue[n:])
	l.queue = l.queue[:n]
}
