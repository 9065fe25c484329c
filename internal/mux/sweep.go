package mux

import "time"

// sweeper is a timer that runs a function now and then while there is something to watch. One for
// all callers costs less than a timer for each. Mux.mu guards it.
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
// pipeline together.
func (m *Mux) sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	overdue := time.Now().Add(-m.timeout)
	for p := range m.inFlight.running {
		if p.sentAt.Before(overdue) {
			m.timeOut(p)
		} else {
			p.timeOutQueued(overdue)
		}
	}
	m.flush()
	m.queue.timeOut(overdue)
	m.sweeper.next(len(m.queue) > 0 || len(m.inFlight.running) > 0)
}
