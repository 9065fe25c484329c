package mux

import (
	"runtime"
	"time"
)

// sweeper is a timer that runs a function now and then while there is something to watch. One for
// all callers costs less than a timer for each. node.mu guards it.
type sweeper struct {
	timer   *time.Timer
	every   time.Duration
	running bool
	due     time.Time // when the next sweep is to come
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
		s.due = time.Now().Add(s.every)
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
// pipeline together, while nothing came for anybody in their lane.
func (n *node) sweep() {
	// Timers come before what is ready to run. Behind that, a sweep is as late as an answer is taken.
	runtime.Gosched()
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if late := now.Sub(n.sweeper.due); late > n.sweeper.every/4 {
		n.excuse(late)
	}
	overdue := now.Add(-n.timeout)
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
		l.timeOutQueue(overdue)
		n.flush(l)
		queued += len(l.queue)
	}
	n.sweeper.next(queued > 0 || len(n.inFlight.running) > 0)
}

// excuse does not count the time by which a sweep comes late: the process had no CPU then, and
// could not have taken an answer either. n.mu is held.
func (n *node) excuse(late time.Duration) {
	for p := range n.inFlight.running {
		p.excused += late
		for _, w := range p.waiters {
			w.excuse(late)
		}
	}
	for i := range n.lanes {
		for _, w := range n.lanes[i].queue {
			w.excuse(late)
		}
	}
}
