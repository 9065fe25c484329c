package mux

import "sync"

// notifier calls onState with each change of the breaker, in order and on a goroutine of its own:
// the listener may take its time or call the Mux, and must not hold up the round trip that made the
// change.
type notifier struct {
	onState func(open bool) // nil if nobody listens
	running sync.WaitGroup  // of the goroutine, which Close waits for

	mu      sync.Mutex // guards what follows
	pending []bool     // changes that onState has not been called with
	active  bool       // the goroutine runs
}

// notify adds a change to those that onState is called with.
func (n *notifier) notify(open bool) {
	if n.onState == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = append(n.pending, open)
	if !n.active {
		n.active = true
		n.running.Go(n.run) // ends when nothing is pending
	}
}

// run calls onState until nothing is pending. It holds no lock meanwhile.
func (n *notifier) run() {
	for {
		n.mu.Lock()
		pending := n.pending
		n.pending = nil
		n.active = len(pending) > 0
		n.mu.Unlock()
		if len(pending) == 0 {
			return
		}
		for _, open := range pending {
			n.onState(open)
		}
	}
}
