package mux

import (
	"runtime"
	"time"
)

// inFlight counts the round trips that have not ended. node.mu guards it.
type inFlight struct {
	running map[*pipeline]struct{} // somebody may wait for them
	stuck   int                    // nobody does: they timed out, and the client has not returned
}

// count returns how many round trips have not ended.
func (f *inFlight) count() int { return len(f.running) + f.stuck }

// dispatch hands p to a worker. n.mu is held.
func (n *node) dispatch(p *pipeline) {
	wk := n.acquireWorker()
	n.begin(p, wk)
	wk.pipelines <- p
}

// flush sends those who have queued in l, as long as slots are free. n.mu is held.
func (n *node) flush(l *lane) {
	for !l.full() {
		p := n.next(l)
		if p == nil {
			return
		}
		n.dispatch(p)
	}
}

// begin counts p as under way, to be sent by wk or in its place. n.mu is held.
func (n *node) begin(p *pipeline, wk *worker) {
	p.worker = wk
	p.sentAt = time.Now()
	n.inFlight.running[p] = struct{}{}
	if !p.extra {
		p.lane.slots++
	}
}

// end stops counting p, which is no longer subject to the timeout. Its slot remains taken until
// freeSlot, so that finish can release p's waiters before it takes the next from the queue. n.mu is
// held.
func (n *node) end(p *pipeline) {
	p.ended = true
	delete(n.inFlight.running, p)
}

// freeSlot frees the slot that p took.
func (p *pipeline) freeSlot() {
	if !p.extra {
		p.lane.slots--
	}
}

// finish follows exec: it gives the waiters of p their results. It returns the next pipeline for
// the same worker, if waiters have queued meanwhile, and whether the worker is needed any more.
func (n *node) finish(p *pipeline) (next *pipeline, keep bool) {
	n.mu.Lock()
	if p.ended { // timed out, which has freed its slot; the worker's context is cancelled
		n.inFlight.stuck--
		n.mu.Unlock()
		if p.learn() > bulkBytes { // it was no silence but a large reply that took so long
			n.breaker.report(false, nil)
		}
		return nil, false
	}
	n.end(p)
	if p.extra || len(p.waiters) == 1 && len(p.lane.queue) == 0 {
		// A caller that is alone finds the slot and the worker free when it comes back.
		p.freeSlot()
		keep = n.workers.keepIdle(p.worker, n.closed)
		n.mu.Unlock()
		n.deliver(p)
		return nil, keep
	}
	n.mu.Unlock()
	answered := n.deliver(p)

	// The callers that have just been released are likely to come back. Yielding to them lets them
	// share the next pipeline.
	runtime.Gosched()

	n.mu.Lock()
	defer n.mu.Unlock()
	p.freeSlot()
	if answered {
		p.lane.progress = time.Now()
	}
	if next = n.next(p.lane); next != nil {
		n.begin(next, p.worker)
		return next, true
	}
	return nil, n.workers.keepIdle(p.worker, n.closed)
}

// deliver gives the waiters of p their results, and reports whether Redis has answered. The breaker
// learns of the outcome first, so that what a caller does next meets its new state.
func (n *node) deliver(p *pipeline) (answered bool) {
	p.learn()
	err := p.collect()
	n.report(p, err)
	p.release()
	return err == nil
}

// report tells the breaker how the round trip of p ended: err is nil if Redis answered. What is
// forced tells it nothing: retries of what has failed are no news. Nor does a caller who had to go.
func (n *node) report(p *pipeline, err error) {
	if !p.forced() && (err == nil || !p.late) {
		n.breaker.report(p.probe, err)
	}
}

// timeOut releases the waiters of p, which takes too long, and its slot. The round trip is left to
// end by itself; the cancelled context lets the client stop retrying. n.mu is held.
func (n *node) timeOut(p *pipeline) {
	n.end(p)
	p.freeSlot()
	n.inFlight.stuck++
	n.report(p, ErrTimeout)
	for _, w := range p.waiters {
		w.timeOut()
	}
	p.worker.cancel()
}
