package mux

import "time"

// sweeper is a timer that runs a function now and then while there is something to watch. One for
// all callers costs less than a timer for each. node.mu guards it.
type sweeper struct {
	timer   *time.Timer
	every   time.Duration
	running bool
}

// newSweeper returns a sweeper that is stopped.
func newSweeper(timeout time.Duration, sweep func()) sweeper {
	timer := time.AfterFunc(time.Hour, sweep)
	timer.Stop()
	return sweeper{timer: timer, every: max(timeout/sweepsPerTimeout, time.Millisecond)}
}

// start has the next sweep run, if none is due.
func (s *sweeper) start() {
	if !s.running {
		s.running = true
		s.timer.Reset(s.every)
	}
}

// next ends a sweep, and has another one follow if needed.
func (s *sweeper) next(needed bool) {
	s.running = false
	if needed {
		s.start()
	}
}

// sweep releases the waiters that have waited for the whole timeout, in the queue and on their
// pipeline together, while nothing large arrived for their lane.
func (n *node) sweep() {
	n.mu.Lock()
	defer n.mu.Unlock()
	overdue := time.Now().Add(-n.timeout)
	for p := range n.inFlight.running {
		p.noteProgress()
	}
	for p := range n.inFlight.running {
		switch {
		case p.progress().Before(overdue):
			n.timeOut(p)
		case p.lane.progress.Before(overdue):
			p.timeOutQueued(overdue)
		}
	}
	queued := 0
	for i := range n.lanes {
		l := &n.lanes[i]
		n.flush(l)
		l.timeOutQueue(overdue)
		queued += len(l.queue)
	}
	n.sweeper.next(queued > 0 || len(n.inFlight.running) > 0)
}
