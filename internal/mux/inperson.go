package mux

import "github.com/redis/go-redis/v9"

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

// sendInPerson makes the round trip of p on the goroutine of its only waiter, in place of p's
// worker. It leaves what has queued meanwhile to the worker.
func (m *Mux) sendInPerson(p *pipeline) {
	defer m.workers.alive.Done()
	wk := p.worker
	returned := false
	defer func() {
		if !returned { // a hook of the client's has panicked
			m.discard(p)
		}
	}()
	p.exec(m.client, m.timeout)
	returned = true
	switch next, keep := m.finish(p); {
	case next != nil:
		wk.pipelines <- next
	case !keep:
		close(wk.pipelines)
	}
}

// discard counts out p, which finish will never see, and ends its worker.
func (m *Mux) discard(p *pipeline) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.ended {
		m.inFlight.stuck--
	} else {
		m.inFlight.end(p)
		m.inFlight.freeSlot(p)
	}
	close(p.worker.pipelines)
}
