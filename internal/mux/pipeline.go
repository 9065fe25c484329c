package mux

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// pipeline is one round trip to Redis, and the waiters that share it.
type pipeline struct {
	lane     *lane
	waiters  []*waiter
	gets     []*redis.StringCmd // the GET that answers each waiter; nil for one with own commands
	arrivals []arrival          // the commands whose replies are progress
	single   single
	ctx      roundTripContext
	worker   *worker // that makes the round trip, or in whose place a caller does
	timing
	probe bool // the breaker waits for the outcome
	extra bool // takes no slot: a probe, or forced while the breaker is open
	late  bool // to blame for its failure is its caller, or the process, and not Redis
	ended bool // guarded by node.mu: its waiters are being released, or have been
}

// timing is since when a pipeline waits for Redis.
type timing struct {
	sentAt  time.Time
	arrived atomic.Int64  // when it last made progress, since sentAt; 0: not yet
	excused time.Duration // guarded by node.mu: what of the time since sentAt does not count
}

// single is what a pipeline of one waiter needs. It is part of the pipeline so that one allocation
// serves all: most hits of a process with little load are such pipelines.
type single struct {
	waiter [1]*waiter
	get    [1]*redis.StringCmd
	args   [2]any // of get
}

// newPipeline returns a pipeline of one waiter.
func newPipeline(l *lane, w *waiter) *pipeline {
	p := &pipeline{lane: l, single: single{waiter: [1]*waiter{w}}}
	p.waiters = p.single.waiter[:]
	return p
}

// exec makes the round trip. It writes to the pipeline and never to a waiter: when the pipeline has
// timed out, its waiters' callers are gone by the time the client returns.
//
// A timeout is for a client that obeys deadlines, and zero if there is none.
func (p *pipeline) exec(n *node, timeout time.Duration) {
	first := p.waiters[0]
	p.ctx = roundTripContext{p.worker.ctx, first.ctx, p, timeout}
	// A client of a cluster asks some node, which may hang, for the COMMAND table when it sends a
	// single command, and none for a pipeline.
	if len(p.waiters) == 1 && first.cmds == nil && !n.clustered {
		p.execGet(n.client, first.key)
	} else {
		p.execAll(n.client)
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
	var byKey map[string]*redis.StringCmd // of those who share the pipeline
	if p.gets = p.single.get[:]; len(p.waiters) > 1 {
		p.gets = make([]*redis.StringCmd, len(p.waiters))
		byKey = make(map[string]*redis.StringCmd, len(p.waiters))
	}
	for i, w := range p.waiters {
		for _, cmd := range w.cmds {
			if get, ok := cmd.(*redis.StringCmd); ok {
				cmd = p.watch(get)
			}
			_ = pipe.Process(ctx, cmd) // adds it to pipe; cannot fail
		}
		if w.cmds != nil {
			continue
		}
		get := byKey[w.key]
		if get == nil {
			get = redis.NewStringCmd(ctx, "get", w.key)
			if byKey != nil {
				byKey[w.key] = get
			}
			_ = pipe.Process(ctx, p.watch(get))
		}
		p.gets[i] = get
	}
	if cmds, err := pipe.Exec(ctx); err != nil {
		setMissingErrors(cmds, err)
	}
}

// arrival is a command of a pipeline whose reply may be large, whatever came before. go-redis tells
// it of its reply as soon as that has arrived, which shows that the pipeline makes progress.
type arrival struct {
	*redis.StringCmd
	pipeline *pipeline
}

// watch has the reply to get show that p makes progress. The arrivals are allocated together.
func (p *pipeline) watch(get *redis.StringCmd) redis.Cmder {
	if p.arrivals == nil {
		p.arrivals = make([]arrival, 0, max(len(p.waiters), len(p.waiters[0].cmds)))
	}
	p.arrivals = append(p.arrivals, arrival{get, p})
	return &p.arrivals[len(p.arrivals)-1]
}

// SetErr is called with the error of the reply, or nil, once the reply has been read.
func (a *arrival) SetErr(err error) {
	a.StringCmd.SetErr(err)
	if err == nil && len(a.Val()) >= progressBytes {
		a.pipeline.arrive()
	}
}

// arrive notes that p makes progress.
func (p *pipeline) arrive() { p.arrived.Store(int64(max(1, time.Since(p.sentAt)))) }

// progress returns since when p waits for Redis: since its last progress, or else since it was
// sent. n.mu is held.
func (p *pipeline) progress() time.Time {
	return p.sentAt.Add(time.Duration(p.arrived.Load()) + p.excused)
}

// noteProgress has those who queue for the lane of p wait on, if bytes have arrived for p. n.mu is
// held.
func (p *pipeline) noteProgress() {
	if at := p.progress(); p.arrived.Load() > 0 && at.After(p.lane.progress) {
		p.lane.progress = at
	}
}

// forced reports whether all that p carries is forced.
func (p *pipeline) forced() bool {
	return !slices.ContainsFunc(p.waiters, func(w *waiter) bool { return !w.force })
}

// learn has those who want to know it learn how large the values of p are, and returns the size of
// all of them.
func (p *pipeline) learn() (bytes int) {
	for i, w := range p.waiters {
		if get := p.gets[i]; get != nil {
			w.learn.saw(len(get.Val()))
			bytes += len(get.Val())
		}
		for _, cmd := range w.cmds {
			if get, ok := cmd.(*redis.StringCmd); ok {
				w.learn.saw(len(get.Val()))
				bytes += len(get.Val())
			}
		}
	}
	return bytes
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
// what they spent in the queue counts too. node.mu is held.
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
	pipeline        *pipeline
	timeout         time.Duration // 0: there is no deadline
}

// Deadline is for a caller who sends in person, on a client that obeys it: the timeout, which begins
// anew with each step of a new connection, or the caller's own. All others the sweep frees: so that
// a client that is still connecting, or is reading a large reply, is not cut short, and has its
// connection or its reply all the same.
func (c *roundTripContext) Deadline() (time.Time, bool) {
	if c.timeout == 0 {
		return time.Time{}, false
	}
	p := c.pipeline
	deadline := p.sentAt.Add(time.Duration(p.arrived.Load()) + c.timeout)
	if own, limited := c.values.Deadline(); limited && own.Before(deadline) {
		return own, true
	}
	return deadline, true
}

// Value asks the worker's context first, so that package context finds the one that is cancelled
// and needs no goroutine to watch for it.
func (c *roundTripContext) Value(key any) any {
	if key == (pipelineKey{}) {
		return c.pipeline
	}
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}
