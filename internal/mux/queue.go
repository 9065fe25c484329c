package mux

import "time"

// queue holds the waiters that found no slot free, in the order of their coming. Mux.mu guards it.
type queue []*waiter

// enqueue puts w at the end of q.
func (q *queue) enqueue(w *waiter) {
	w.queuedAt = time.Now()
	*q = append(*q, w)
}

// next takes as many waiters from the front of q as fit into one pipeline, at least one, and skips
// those whose callers have left. It returns nil if nobody waits.
func (q *queue) next() *pipeline {
	waiters := make([]*waiter, 0, min(len(*q), MaxCommands))
	size, commands, taken := 0, 0, 0
	for _, w := range *q {
		n := w.commands()
		if len(waiters) > 0 && (size+w.size > maxBytes || commands+n > MaxCommands) {
			break
		}
		taken++
		if w.gone {
			continue
		}
		waiters = append(waiters, w)
		size, commands = size+w.size, commands+n
	}
	q.truncate(copy(*q, (*q)[taken:]))
	if len(waiters) == 0 {
		return nil
	}
	return &pipeline{waiters: waiters}
}

// timeOut releases the waiters that queued before overdue, and drops them and those whose callers
// have left.
func (q *queue) timeOut(overdue time.Time) {
	kept := 0
	for _, w := range *q {
		switch {
		case w.gone:
		case w.queuedAt.Before(overdue):
			w.timeOut()
		default:
			(*q)[kept] = w
			kept++
		}
	}
	q.truncate(kept)
}

// truncate shortens q to n waiters, and forgets the others so that they can be collected.
func (q *queue) truncate(n int) {
	clear((*q)[n:])
	*q = (*q)[:n]
}
