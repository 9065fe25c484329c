package mux

import (
	"runtime"
	"time"
)

// inFlight counts the round trips that have not ended, and the slots. Mux.mu guards it.
type inFlight struct {
	running map[*pipeline]struct{} // somebody may wait for them
	stuck   int                    // nobody does: they timed out, and the client has not returned
	slots   int                    // how many of the MaxPipelines slots are taken
}

// full reports whether no slot is free.
func (f *inFlight) full() bool { return f.slots >= MaxPipelines }

// count returns how many round trips have not ended.
func (f *inFlight) count() int { return len(f.running) + f.stuck }

// add counts p, and has it take a slot.
func (f *inFlight) add(p *pipeline) {
	f.running[p] = struct{}{}
	if !p.extra {
		f.slots++
	}
}

// end stops counting p, which is no longer subject to the timeout. Its slot remains taken until
// freeSlot, so that finish can release p's waiters before it takes the next from the queue.
func (f *inFlight) end(p *pipeline) {
	p.ended = true
	delete(f.running, p)
}

// freeSlot frees the slot that p took.
func (f *inFlight) freeSlot(p *pipeline) {
	if !p.extra {
		f.slots--
	}
}

// dispatch hands p to a worker. m.mu is held.
func (m *Mux) dispatch(p *pipeline) {
	wk := m.acquireWorker()
	m.begin(p, wk)
	wk.pipelines <- p
}

// flush sends those who have queued, as long as slots are free. m.mu is held.
func (m *Mux) flush() {
	for !m.inFlight.full() {
		p := m.queue.next()
		if p == nil {
			return
		}
		m.dispatch(p)
	}
}

// begin counts p as under way, to be sent by wk or in its place. m.mu is held.
func (m *Mux) begin(p *pipeline, wk *worker) {
	p.worker = wk
	p.sentAt = time.Now()
	m.inFlight.add(p)
}

// finish follows exec: it gives the waiters of p their results. It returns the next pipeline for
// the same worker, if waiters have queued meanwhile, and whether the worker is needed any more.
func (m *Mux) finish(p *pipeline) (next *pipeline, keep bool) {
	m.mu.Lock()
	if p.ended { // timed out, which has freed its slot; the worker's context is cancelled
		m.inFlight.stuck--
		m.mu.Unlock()
		return nil, false
	}
	m.inFlight.end(p)
	if p.extra || len(p.waiters) == 1 && len(m.queue) == 0 {
		// A caller that is alone finds the slot and the worker free when it comes back.
		m.inFlight.freeSlot(p)
		keep = m.workers.keepIdle(p.worker, m.closed)
		m.mu.Unlock()
		m.deliver(p)
		return nil, keep
	}
	m.mu.Unlock()
	m.deliver(p)

	// The callers that have just been released are likely to come back. Yielding to them lets them
	// share the next pipeline.
	runtime.Gosched()

	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight.freeSlot(p)
	if next = m.queue.next(); next != nil {
		m.begin(next, p.worker)
		return next, true
	}
	return nil, m.workers.keepIdle(p.worker, m.closed)
}

// deliver gives the waiters of p their results. The breaker learns of the outcome first, so that
// what a caller does next meets its new state.
func (m *Mux) deliver(p *pipeline) {
	m.report(p, p.collect())
	p.release()
}

// report tells the breaker how the round trip of p ended: err is nil if Redis answered.
func (m *Mux) report(p *pipeline, err error) {
	if p.probe != nil {
		p.probe.report(err)
		return
	}
	m.breaker.report(err)
}

// timeOut releases the waiters of p, which takes too long, and its slot. The round trip is left to
// end by itself; the cancelled context lets the client stop retrying. m.mu is held.
func (m *Mux) timeOut(p *pipeline) {
	m.inFlight.end(p)
	m.inFlight.freeSlot(p)
	m.inFlight.stuck++
	m.report(p, ErrTimeout)
	for _, w := range p.waiters {
		w.timeOut()
	}
	p.worker.cancel()
}
