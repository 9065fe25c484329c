package mux

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// MaxPipelines is how many pipelines are under way at a time: Redis answers one while the next
	// one is being sent.
	MaxPipelines = 2
	// MaxCommands is how many commands one pipeline carries, so that no waiter waits for too many
	// others. A call of Do or Force with more commands has a pipeline of its own.
	MaxCommands = 512
	// maxBytes bounds what one pipeline carries to Redis, for the same reason.
	maxBytes = 1 << 20
	// maxStuck bounds the round trips that timed out and that the client has not given up yet.
	// Past it, callers are refused at once.
	maxStuck = 16
	// sweepsPerTimeout is how often within one timeout the Mux looks for overdue waiters.
	sweepsPerTimeout = 20
)

// Config says how a Mux treats Redis. It has no defaults: New takes the values as they are.
type Config struct {
	// Timeout is the longest that a caller waits, in the queue and for its round trip together. It
	// is enforced by a periodic sweep, hence with a tolerance of Timeout/20, at least 1 ms.
	Timeout time.Duration
	// Failures is how many round trips must fail in a row to open the breaker; at least 1.
	Failures int
	// OpenFor is how long the breaker stays open before one round trip probes Redis again.
	OpenFor time.Duration
	// OnState, if not nil, is called with each change of the breaker, in their order and never two
	// at a time, on a goroutine that holds no lock: it may block, and it may call the Mux.
	OnState func(open bool)
}

// Mux runs commands on one Redis client. It is safe for concurrent use.
type Mux struct {
	client        redis.UniversalClient
	timeout       time.Duration
	obeysDeadline bool // of client: see clientObeysDeadline
	breaker       *breaker
	waiters       sync.Pool // of *waiter

	mu       sync.Mutex // guards the fields below, and what of waiters and pipelines says so
	closed   bool
	queue    queue
	inFlight inFlight
	workers  workerPool
	sweeper  sweeper
}

// New returns a Mux on client. Closing the client remains the caller's task, after Close.
func New(client redis.UniversalClient, cfg Config) *Mux {
	m := &Mux{
		client:        client,
		timeout:       cfg.Timeout,
		obeysDeadline: clientObeysDeadline(client),
		breaker:       newBreaker(cfg),
		inFlight:      inFlight{running: make(map[*pipeline]struct{})},
	}
	m.waiters.New = func() any { return &waiter{done: make(chan struct{}, 1)} }
	m.sweeper = newSweeper(cfg.Timeout, m.sweep)
	return m
}

// Get returns the value of key. Its errors are redis.Nil when there is no such key, any other error
// reply of Redis, the error of a failed round trip, ErrTimeout, ErrOpen, ErrClosed, or that of ctx.
//
// Callers may share the bytes: they must not be written to. A Get shares its GET command with
// others only if the command was not yet sent when Get was called.
func (m *Mux) Get(ctx context.Context, key string) ([]byte, error) {
	w := m.newWaiter(request{ctx: ctx, key: key, size: len(key)})
	if err := m.await(ctx, w); err != nil {
		return nil, err
	}
	reply, err := w.reply, w.err
	m.recycle(w)
	return reply, err
}

// Do sends cmds one after the other in one round trip, possibly with those of other callers.
//
// A nil error means that Redis answered at least one of cmds, and each command has its own result:
// on a cluster, one node may fail while the others answer. Otherwise the error is that of a failed
// round trip, ErrTimeout, ErrOpen, ErrClosed, or that of ctx; then it is unknown whether the
// commands were carried out, and they must not be looked at: they may still be under way.
func (m *Mux) Do(ctx context.Context, cmds ...redis.Cmder) error {
	return m.do(ctx, request{ctx: ctx, cmds: cmds, size: sizeOf(cmds)})
}

// Force is Do for what must be tried even while Redis is thought to be down: it sends cmds while
// the breaker is open. Only then, and past a bound on the round trips that have not ended, does it
// return ErrOpen.
func (m *Mux) Force(ctx context.Context, cmds ...redis.Cmder) error {
	return m.do(ctx, request{ctx: ctx, cmds: cmds, size: sizeOf(cmds), force: true})
}

func (m *Mux) do(ctx context.Context, r request) error {
	w := m.newWaiter(r)
	if err := m.await(ctx, w); err != nil {
		return err
	}
	err := w.err
	m.recycle(w)
	return err
}

// await submits w and waits for its result. A nil error means that the result is in w, which is the
// caller's again; after any other, w must not be touched: a pipeline may still hold it.
func (m *Mux) await(ctx context.Context, w *waiter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	inPerson, err := m.submit(w)
	if err != nil {
		return err
	}
	if inPerson != nil {
		m.sendInPerson(inPerson)
	}
	quit := ctx.Done()
	if quit == nil {
		<-w.done
		return nil
	}
	select {
	case <-w.done:
		return nil
	case <-quit:
		m.leave(w)
		return ctx.Err()
	}
}

// submit sends w at once if a slot is free, and queues it otherwise. It returns a pipeline if the
// caller is to send that in person.
func (m *Mux) submit(w *waiter) (inPerson *pipeline, err error) {
	probe, err := m.breaker.admit()
	if err != nil && !w.force {
		return nil, err
	}
	extra := probe != nil || err != nil

	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refusal(extra); err != nil {
		probe.withdraw()
		return nil, err
	}
	m.sweeper.start()
	switch {
	case extra:
		// The probe and what is forced are sent to a Redis that may well hang: they share no
		// pipeline with others, and hold no slot that others could wait for.
		p := newPipeline(w)
		p.probe, p.extra = probe, true
		m.dispatch(p)
	case m.inFlight.full():
		m.queue.enqueue(w)
	case m.obeysDeadline && w.ctx.Done() == nil:
		// Nothing can call this caller away, so that it can do the worker's part itself.
		inPerson = newPipeline(w)
		m.begin(inPerson, m.acquireWorker())
		m.workers.alive.Add(1) // for the caller, until sendInPerson returns
	default:
		m.dispatch(newPipeline(w))
	}
	return inPerson, nil
}

// refusal returns why no further waiter is taken, or nil. m.mu is held.
func (m *Mux) refusal(extra bool) error {
	switch {
	case m.closed:
		return ErrClosed
	case extra && m.inFlight.count() >= 2*maxStuck:
		return ErrOpen
	case !extra && m.inFlight.stuck >= maxStuck:
		return ErrTimeout
	}
	return nil
}

// Close refuses new calls, with ErrClosed, and waits until all round trips have ended or ctx has.
// In the latter case its error wraps that of ctx and says how many round trips have not ended.
// Calls that were accepted before Close are still answered. Close may be called again.
func (m *Mux) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.workers.dismissIdle()
	m.mu.Unlock()

	ended := make(chan struct{})
	go func() { // ends with the last worker, which the client's own timeouts bound
		m.workers.alive.Wait()
		m.breaker.notifier.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		return fmt.Errorf("%d round trips have not ended: %w", m.inFlight.count(), ctx.Err())
	}
}
