package fill

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/lease"
)

// loadRun is one flight on its way from the first question to Redis to its result.
// Runs that begin together take each step together.
type loadRun[K, V any] struct {
	flight  *flight.Flight[Result[V]]
	key     K
	batched bool      // it came together with others, or asked to: the batch loader loads it
	replace time.Time // an entry loaded no later than this is not good enough

	lease.Protocol
	token    string
	waitsFor string // the token of the load in another process that it waits for
	inVain   bool   // its load has taken so long that others may wait for it; matters if nothing is stored
	older    bool   // there is an entry, which must go if the load brings a value that is not stored
	timing

	result Result[V]
	entry  Entry // to store
}

// timing is when the steps of a run were, or are to be.
type timing struct {
	began     flight.Mark   // of the load; zero: it has not begun
	sent      flight.Mark   // of the last command
	asked     time.Duration // how long the last answer of Redis took
	wait      time.Duration // the next pause
	waitUntil time.Time     // set by the first pause
}

// newRun returns the run that takes f, the flight of k, to its end from where p says.
func (e *Engine[K, V]) newRun(f *flight.Flight[Result[V]], k K, p lease.Protocol) *loadRun[K, V] {
	p.Steal = f.Forced()
	return &loadRun[K, V]{
		flight: f, key: k, Protocol: p, token: lease.NewToken(),
		timing: timing{wait: firstPoll},
	}
}

// firstStep returns where a load begins: without Redis if its caller has just waited for
// it in vain, for one wait is enough.
func firstStep(alone bool) lease.Protocol {
	if alone {
		return lease.Alone()
	}
	return lease.Protocol{}
}

// request asks for, or about, the lease of r.
func (e *Engine[K, V]) request(r *loadRun[K, V]) lease.Request {
	return lease.Request{Key: r.flight.Key, Token: r.token, TTL: e.settings.LeaseTTL, Steal: r.Steal, WaitsFor: r.waitsFor}
}

// redisContext returns the context of one step of the protocol, which is taken whether or
// not those who wait for the load still do. The Doer of the leases bounds the step.
func (r *loadRun[K, V]) redisContext() context.Context {
	return context.WithoutCancel(r.flight.Context())
}

// note tells the wrapper what happened to r.
func (e *Engine[K, V]) note(r *loadRun[K, V], kind Event, took time.Duration, err error) {
	e.wrapper.Note(r.flight.Context(), kind, r.flight.Key, took, err)
}

// noteRedis notes that a step of r has failed, if it has. What Redis refuses is told once,
// by lease.Store.
func (e *Engine[K, V]) noteRedis(r *loadRun[K, V], err error) {
	if err != nil && !errors.Is(err, lease.ErrRefused) {
		e.note(r, RedisFailed, 0, err)
	}
}

// awaited returns a context that ends when nobody waits for any of rs any more. It has
// the values of the first.
func awaited[K, V any](rs []*loadRun[K, V]) (ctx context.Context, stop func()) {
	first := rs[0].flight.Context()
	if len(rs) == 1 {
		return first, func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(first))
	var left atomic.Int64
	left.Store(int64(len(rs)))
	stops := make([]func() bool, len(rs))
	for i, r := range rs {
		stops[i] = context.AfterFunc(r.flight.Context(), func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
