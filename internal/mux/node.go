package mux

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// node is one server of a cluster, or else the only one: with a breaker, lanes and workers of its
// own, so that what it does is no other's trouble.
type node struct {
	client        redis.UniversalClient // of all nodes
	timeout       time.Duration
	obeysDeadline bool // of client: see clientObeysDeadline
	clustered     bool // client is one of a cluster
	breaker       breaker
	waiters       sync.Pool // of *waiter

	mu       sync.Mutex // guards the fields below, and what of waiters and pipelines says so
	closed   bool
	lanes    [lanes]lane
	inFlight inFlight
	workers  workerPool
	sweeper  sweeper
}

func newNode(client redis.UniversalClient, cfg Config, notifier *notifier) *node {
	_, clustered := client.(masters)
	n := &node{
		client:        client,
		timeout:       cfg.Timeout,
		obeysDeadline: clientObeysDeadline(client),
		clustered:     clustered,
		breaker:       breaker{failures: cfg.Failures, openFor: cfg.OpenFor, notifier: notifier},
		inFlight:      inFlight{running: make(map[*pipeline]struct{})},
	}
	n.breaker.failing.Store(true) // until the first answer
	n.waiters.New = func() any { return &waiter{done: make(chan struct{}, 1)} }
	n.sweeper = newSweeper(cfg.Timeout, n.sweep)
	return n
}

// do sends the commands of r in one round trip.
func (n *node) do(r request) error {
	w := n.newWaiter(r)
	if err := n.await(r.ctx, w); err != nil {
		return err
	}
	err := w.err
	n.recycle(w)
	return err
}

// await submits w and waits for its result. A nil error means that the result is in w, which is the
// caller's again; after any other, w must not be touched: a pipeline may still hold it.
func (n *node) await(ctx context.Context, w *waiter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	inPerson, err := n.submit(w)
	if err != nil {
		return err
	}
	quit := ctx.Done()
	if inPerson != nil {
		n.sendInPerson(inPerson)
		quit = nil // it is over
	}
	if quit == nil {
		<-w.done
		if w.err != nil {
			return ended(ctx)
		}
		return nil
	}
	select {
	case <-w.done:
		return nil
	case <-quit:
		n.leave(w)
		return ctx.Err()
	}
}

// ended returns the error of ctx if that has ended, also in the moment before it says so.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// submit sends w at once if a slot is free, and queues it otherwise. It returns a pipeline if the
// caller is to send that in person.
func (n *node) submit(w *waiter) (inPerson *pipeline, err error) {
	var probe bool
	open := n.breaker.open.Load()
	if open && !w.force {
		if probe, err = n.breaker.admit(); err != nil {
			return nil, err
		}
		open = probe
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.refusal(open); err != nil {
		if probe {
			n.breaker.withdraw()
		}
		return nil, err
	}
	n.sweeper.start()
	l := n.laneFor(w.bytes(), w.commands())
	switch {
	case open:
		// The probe and what is forced are sent to a Redis that may well hang: they share no
		// pipeline with others, and hold no slot that others could wait for.
		p := newPipeline(l, w)
		p.probe, p.extra = probe, true
		n.dispatch(p)
	case l.full():
		l.enqueue(w)
	case l == &n.lanes[small] && n.canSendInPerson(w):
		inPerson = newPipeline(l, w)
		n.begin(inPerson, n.acquireWorker())
		n.workers.alive.Add(1) // for the caller, until sendInPerson returns
	default:
		n.dispatch(newPipeline(l, w))
	}
	return inPerson, nil
}

// refusal returns why no further waiter is taken, or nil. n.mu is held.
func (n *node) refusal(extra bool) error {
	switch {
	case n.closed:
		return ErrClosed
	case extra && n.inFlight.count() >= 2*maxStuck:
		return ErrOpen
	case !extra && n.inFlight.stuck >= maxStuck:
		return ErrTimeout
	}
	return nil
}

// close refuses new waiters. What was accepted before is still answered.
func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.workers.dismissIdle()
}

// underWay returns how many round trips have not ended.
func (n *node) underWay() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.inFlight.count()
}
