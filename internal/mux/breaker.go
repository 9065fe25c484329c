package mux

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker is the circuit breaker of one node (Nygard, "Release It!", 2007): after so many failures
// in a row the node is asked nothing, but for one probe at a time. A healthy node costs nothing:
// the lock is taken only from the first failure until the next success.
type breaker struct {
	failures int
	openFor  time.Duration
	notifier *notifier

	failing atomic.Bool // the last round trip that was reported has failed
	open    atomic.Bool // nothing is sent but probes

	mu      sync.Mutex // guards what follows
	row     int        // failures since the last success
	probing bool       // a probe is under way
	probeAt time.Time  // when the next probe is due
}

// admit returns ErrOpen if nothing may be sent. While the breaker is open it lets one caller
// through in each openFor: probe says that the caller is that one, who must settle the probe.
func (b *breaker) admit() (probe bool, err error) {
	if !b.open.Load() {
		return false, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open.Load():
		return false, nil
	case b.probing || time.Now().Before(b.probeAt):
		return false, ErrOpen
	}
	b.probing = true
	return true, nil
}

// withdraw gives a probe that was not sent to another caller.
func (b *breaker) withdraw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

// report tells the breaker how a round trip has ended. While it is open, only a probe counts.
func (b *breaker) report(probe bool, err error) {
	if err == nil && !b.failing.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Load() != probe {
		return
	}
	b.failing.Store(err != nil)
	b.probing = false
	b.row++
	if err == nil {
		b.row = 0
	}
	if open := probe && err != nil || b.row >= b.failures; open {
		b.probeAt = time.Now().Add(b.openFor)
		b.set(true)
	} else {
		b.set(false)
	}
}

// set opens or closes the breaker. b.mu is held.
func (b *breaker) set(open bool) {
	if b.open.Swap(open) != open {
		b.notifier.notify(open)
	}
}
