package mux

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// pipeline is one round trip to Redis, and the waiters that share it.
type pipeline struct {
	waiters []*waiter
	gets    []*redis.StringCmd // the GET that answers each waiter; nil for one with own commands
	single  single
	ctx     roundTripContext
	worker  *worker // that makes the round trip, or in whose place a caller does
	sentAt  time.Time
	probe   *probe // nil, unless the breaker waits for the outcome of this pipeline
	extra   bool   // takes no slot: a probe, or forced while the breaker is open
	ended   bool   // guarded by Mux.mu: its waiters are being released, or have been
}

// single is what a pipeline of one waiter needs. It is part of the pipeline so that one allocation
// serves all: most hits of a process with little load are such pipelines.
type single struct {
	waiter [1]*waiter
	get    [1]*redis.StringCmd
	args   [2]any // of get
}

// newPipeline returns a pipeline of one waiter.
func newPipeline(w *waiter) *pipeline {
	p := &pipeline{single: single{waiter: [1]*waiter{w}}}
	p.waiters = p.single.waiter[:]
	return p
}

// exec makes the round trip. It writes to the pipeline and never to a waiter: when the pipeline has
// timed out, its waiters' callers are gone by the time the client returns.
func (p *pipeline) exec(client redis.UniversalClient, timeout time.Duration) {
	first := p.waiters[0]
	p.ctx = roundTripContext{p.worker.ctx, first.ctx, p.sentAt.Add(timeout)}
	if len(p.waiters) == 1 && first.cmds == nil {
		p.execGet(client, first.key)
	} else {
		p.execAll(client)
	}
}

// execGet sends the GET of the only waiter, without the cost of a pipeline of go-redis.
func (p *pipeline) execGet(client redis.UniversalClient, key string) {
	s := &p.single
	s.args = [2]any{"get", key}
	s.get[0] = redis.NewStringCmd(&p.ctx, s.args[:]...)
	p.gets = s.get[:]
	_ = client.Process(&p.ctx, s.get[0]) // the command keeps its error
}

// execAll sends the requests of all waiters, and one GET for all that ask for the same key.
func (p *pipeline) execAll(client redis.UniversalClient) {
	ctx := &p.ctx
	pipe := client.Pipeline()
	p.gets = make([]*redis.StringCmd, len(p.waiters))
	byKey := make(map[string]*redis.StringCmd, len(p.waiters))
	for i, w := range p.waiters {
		if w.cmds != nil {
			_ = pipe.BatchProcess(ctx, w.cmds...) // adds them to pipe; cannot fail
			continue
		}
		get := byKey[w.key]
		if get == nil {
			get = redis.NewStringCmd(ctx, "get", w.key)
			byKey[w.key] = get
			_ = pipe.Process(ctx, get) // adds it to pipe; cannot fail
		}
		p.gets[i] = get
	}
	if cmds, err := pipe.Exec(ctx); err != nil {
		setMissingErrors(cmds, err)
	}
}

// collect gives each waiter that still waits its result, and returns the error of the round trip:
// nil if any request was answered. On a cluster one node may fail while the others answer, which is
// no reason to stop asking those.
func (p *pipeline) collect() (failed error) {
	answered := false
	for i, w := range p.waiters {
		var reply []byte
		var err error
		if get := p.gets[i]; get != nil {
			reply, err = get.Bytes()
		} else {
			err = requestError(w.cmds)
		}
		if !w.timedOut { // else the result is its caller's already
			w.reply, w.err = reply, err
		}
		if err := roundTripError(err); err != nil {
			failed = err
		} else {
			answered = true
		}
	}
	if answered {
		return nil
	}
	return failed
}

// release wakes the waiters that still wait.
func (p *pipeline) release() {
	for _, w := range p.waiters {
		if !w.timedOut {
			w.done <- struct{}{}
		}
	}
}

// timeOutQueued releases the waiters that queued before overdue. Their pipeline may have time left:
// what they spent in the queue counts too. Mux.mu is held.
func (p *pipeline) timeOutQueued(overdue time.Time) {
	for _, w := range p.waiters {
		if !w.queuedAt.IsZero() && w.queuedAt.Before(overdue) {
			w.timeOut()
		}
	}
}

// roundTripContext is the context of one round trip. It is cancelled with its worker, and has the
// values of the first waiter's context, so that tracing hooks see them.
type roundTripContext struct {
	context.Context // the worker's
	values          context.Context
	deadline        time.Time
}

// Deadline is for clients that obey it (ContextTimeoutEnabled). From the others the sweep frees the
// waiters.
func (c *roundTripContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Value asks the worker's context first, so that package context finds the one that is cancelled
// and needs no goroutine to watch for it.
func (c *roundTripContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}
