package mux

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// clientObeysDeadline reports whether client gives a command up when the deadline of its context
// has passed, and meanwhile runs nothing of its user's that might not. Hooks cannot be seen.
func clientObeysDeadline(client redis.UniversalClient) bool {
	c, ok := client.(*redis.Client)
	if !ok {
		return false
	}
	o := c.Options()
	return o.ContextTimeoutEnabled && o.OnConnect == nil && o.Limiter == nil &&
		o.CredentialsProvider == nil && o.CredentialsProviderContext == nil &&
		o.StreamingCredentialsProvider == nil
}

// canSendInPerson reports whether the caller of w can do the worker's part itself: the client will
// obey the deadline, and the caller has as much time as anybody. One in a hurry would take the
// connection with it that is being made for it. Redis must have answered before.
func (n *node) canSendInPerson(w *waiter) bool {
	if !n.obeysDeadline || n.breaker.failing.Load() {
		return false
	}
	own, limited := w.ctx.Deadline()
	return !limited || time.Until(own) >= n.timeout
}

// sendInPerson makes the round trip of p on the goroutine of its only waiter, in place of p's
// worker. It leaves what has queued meanwhile to the worker.
func (n *node) sendInPerson(p *pipeline) {
	defer n.workers.alive.Done()
	wk := p.worker
	returned := false
	defer func() {
		if !returned { // a hook of the client's has panicked
			n.discard(p)
		}
	}()
	p.exec(n, n.timeout)
	returned = true
	// A deadline that was noticed late has passed while the process had no CPU.
	noticed := time.Since(p.sentAt) - time.Duration(p.arrived.Load())
	p.late = ended(p.waiters[0].ctx) != nil || noticed > n.timeout+n.timeout/10
	switch next, keep := n.finish(p); {
	case next != nil:
		wk.pipelines <- next
	case !keep:
		close(wk.pipelines)
	}
}

// discard counts out p, which finish will never see, and ends its worker.
func (n *node) discard(p *pipeline) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.ended {
		n.inFlight.stuck--
	} else {
		n.end(p)
		p.freeSlot()
	}
	close(p.worker.pipelines)
}
