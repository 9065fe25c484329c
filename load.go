package readthrough

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/readthrough-go/readthrough/internal/entry"
	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/lease"
)

const (
	// firstPoll and maxPoll are the pauses between two looks at another process's load.
	firstPoll = time.Millisecond
	maxPoll   = 50 * time.Millisecond
)

// errGoexit is what callers get when the loader ended its goroutine.
var errGoexit = errors.New("readthrough: the loader called runtime.Goexit")

// PanicError is what a panic of the loader becomes in each caller that waited for
// it: they panic with it.
type PanicError struct {
	Value any    // what the loader panicked with
	Stack []byte // where
}

// Error has the loader's stack in it.
func (p *PanicError) Error() string {
	return fmt.Sprintf("readthrough: the loader panicked: %v\n\n%s", p.Value, p.Stack)
}

// Unwrap returns the error that the loader panicked with, if it was one.
func (p *PanicError) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// outcome is what a flight brings.
type outcome[V any] struct {
	value    V
	err      error
	bytes    []byte // the entry, from which each caller decodes a value of its own
	notFound bool   // err is an answer, not a failure
	shared   bool   // another process loaded it
}

func (o *outcome[V]) failed() bool { return o.err != nil && !o.notFound }

// unpack gives a caller its result: the value itself to the one whose call began
// the load, a copy to the others.
func (rt *ReadThrough[K, V]) unpack(o outcome[V], first bool) (V, error) {
	if panicked, ok := o.err.(*PanicError); ok {
		panic(panicked)
	}
	if o.err != nil || first || rt.shareable || o.bytes == nil {
		return o.value, o.err
	}
	var l lookup[V]
	e, err := entry.Parse(o.bytes)
	if err == nil {
		err = decodeValue(rt.settings.codec, e.Value, &l.value)
	}
	if err != nil { // what cannot be decoded again can only be shared
		return o.value, nil
	}
	return l.value, nil
}

// run is the course of one flight, from the first question to Redis to its result.
type run[K, V any] struct {
	rt     *ReadThrough[K, V]
	flight *flight.Flight[outcome[V]]
	key    K
	loader Loader[K, V] // nil: the wrapper's
	lease.Course

	now        bool      // Refresh: load whatever is there, and share with nobody late
	background bool      // nobody waits: leave it to the process that holds the lease
	seen       time.Time // an entry loaded no later than this is to be replaced

	token           string
	asked           time.Duration // how long the last answer of Redis took
	wait            time.Duration
	waitUntil       time.Time
	sent, loadBegan flight.Mark
	out             outcome[V]
	fill            fill
	skipped         bool
}

// course returns the course of a flight begun by a caller after its lookup.
func (rt *ReadThrough[K, V]) course(k K, found lookup[V], g *gather[K, V]) flight.Course[outcome[V]] {
	return func(f *flight.Flight[outcome[V]]) {
		r := run[K, V]{}
		if g != nil {
			r.loader = g.load
		}
		if found.failed != nil {
			// One wait for Redis is enough for this caller.
			r.Course = lease.Alone()
		}
		rt.run(f, k, r)
	}
}

// run runs r for the flight of k, to its end.
func (rt *ReadThrough[K, V]) run(f *flight.Flight[outcome[V]], k K, r run[K, V]) {
	r.rt, r.flight, r.key = rt, f, k
	if r.loader == nil {
		r.loader = rt.load
	}
	r.token, r.wait, r.waitUntil = lease.NewToken(), firstPoll, time.Now().Add(rt.settings.leaseWait)
	if rt.settings.noLease && !r.Down {
		r.Course = lease.Course{Step: lease.Load, Held: true}
	}
	for r.Step != lease.Finish {
		switch r.Step {
		case lease.Acquire:
			r.acquire()
		case lease.Wait:
			r.pause()
		case lease.Load:
			r.load()
		case lease.Fill, lease.Release:
			r.settle()
		}
	}
	r.finish()
}

// redisContext limits a step of the protocol, which is taken whether or not those
// who wait for the flight still do. What they have spent on waiting for Redis is
// not left for the step.
func (r *run[K, V]) redisContext(spent time.Duration) (context.Context, context.CancelFunc) {
	limit := max(r.rt.cache.settings.redisTimeout-spent, time.Millisecond)
	return context.WithTimeout(context.WithoutCancel(r.flight.Context()), limit)
}

func (r *run[K, V]) acquire() {
	ctx, cancel := r.redisContext(0)
	defer cancel()
	leases, ttl := r.rt.cache.leases, r.rt.settings.leaseTTL
	r.sent = r.flight.Mark()
	began := time.Now()
	var a lease.Acquired
	var err error
	if r.now {
		err = leases.Steal(ctx, r.flight.Key, r.token, ttl)
		a.Held = err == nil
	} else {
		a, err = leases.Acquire(ctx, r.flight.Key, r.token, ttl)
	}
	r.asked = time.Since(began)
	r.redisFailed(err)
	usable := err == nil && a.Found && r.use(a.Entry)
	r.OnAcquire(a.Held, usable, err != nil)
	if r.Step == lease.Wait && r.background {
		// Another process refreshes. Those who have joined meanwhile start over.
		r.skipped, r.Step = true, lease.Finish
	}
}

// use takes an entry that another process stored for the result, if it is fresh.
func (r *run[K, V]) use(raw []byte) bool {
	var l lookup[V]
	// What cannot be decoded was counted by the lookup that led here.
	if err := r.rt.decode(raw, &l); err != nil || !l.is(fresh) || !l.entry.LoadedAt.After(r.seen) {
		return false
	}
	r.out = outcome[V]{value: l.value, err: l.err, notFound: l.err != nil, shared: true}
	if l.err == nil {
		r.out.bytes = raw
	}
	return true
}

// pause waits for the process that loads.
func (r *run[K, V]) pause() {
	left := time.Until(r.waitUntil)
	if left <= 0 {
		r.OnWait(true)
		return
	}
	timer := time.NewTimer(min(left, r.wait/2+rand.N(r.wait)))
	defer timer.Stop()
	select {
	case <-timer.C:
		r.wait = min(2*r.wait, maxPoll)
		r.OnWait(false)
	case <-r.flight.Context().Done():
		r.out.err = r.flight.Context().Err()
		r.Step = lease.Finish
	}
}

func (r *run[K, V]) load() {
	ctx := r.flight.Context()
	r.loadBegan = r.flight.Mark()
	began := time.Now()
	r.out = outcome[V]{}
	r.out.value, r.out.err = call(r.rt, ctx, r.keepLease, func(ctx context.Context) (V, error) {
		return r.loader(ctx, r.key)
	})
	took := time.Since(began)
	r.rt.meter.note(ctx, EventLoad, r.flight.Key, took, r.out.err)
	r.OnLoad(r.prepareSafely(took))
	if r.Down {
		r.Step = lease.Finish // a renewal failed: the fill would cost the callers a second wait
	}
}

// prepareSafely is prepare whose panics, which are WithTTLFor's, surface where the
// loader's do.
func (r *run[K, V]) prepareSafely(took time.Duration) (storable bool) {
	defer func() {
		if p := recover(); p != nil {
			r.out = outcome[V]{err: &PanicError{Value: p, Stack: debug.Stack()}}
			storable = false
		}
	}()
	return r.prepare(took)
}

// prepare makes of what the loader returned what is stored, and reports whether
// there is anything to store.
func (r *run[K, V]) prepare(took time.Duration) (storable bool) {
	rt, ctx, now := r.rt, r.flight.Context(), time.Now()
	if r.out.err != nil {
		// A loader that panics with a not-found error has panicked all the same.
		if _, panicked := r.out.err.(*PanicError); !panicked {
			r.fill, r.out.notFound = rt.encodeNotFound(r.out.err, now, took)
		}
		if !r.out.notFound {
			if ctx.Err() == nil { // else its callers have gone: no fault of the loader's
				rt.meter.note(ctx, EventLoadError, r.flight.Key, took, r.out.err)
				rt.backoff.failed(r.flight.Key, rt.settings.ttl)
			}
			if errors.Is(r.out.err, errLoadTimeout) {
				r.out.err = fmt.Errorf("readthrough: load %s: %w", r.flight.Key, context.DeadlineExceeded)
			}
			return false
		}
	}
	rt.backoff.forget(r.flight.Key)
	if r.out.notFound {
		return true
	}
	var err error
	r.fill, err = rt.encode(r.out.value, now, took)
	r.out.bytes = r.fill.bytes // each caller's copy comes from them, stored or not
	if err != nil {
		rt.meter.note(ctx, EventUnstorable, r.flight.Key, 0, err)
		return false
	}
	return !r.fill.unstorable
}

// keepLease renews the lease while the load takes its time.
func (r *run[K, V]) keepLease() {
	if !r.Held || r.Down || r.rt.settings.noLease {
		return
	}
	ctx, cancel := r.redisContext(0)
	defer cancel()
	// A lease that is lost shows when the fill is refused.
	_, err := r.rt.cache.leases.Renew(ctx, r.flight.Key, r.token, r.rt.settings.leaseTTL)
	r.redisFailed(err)
	r.Down = err != nil
}

// settle stores the value, or gives the lease back: either shows whether anything
// was invalidated since the lease was acquired.
func (r *run[K, V]) settle() {
	ctx, cancel := r.redisContext(r.asked)
	defer cancel()
	var kept bool
	var err error
	var forgotten bool
	began, filling := time.Now(), r.Step == lease.Fill
	r.sent, forgotten = r.flight.Leave()
	switch leases := r.rt.cache.leases; {
	case r.rt.settings.noLease:
		if kept = !forgotten; kept && filling {
			err = leases.Put(ctx, r.flight.Key, r.fill.bytes, r.fill.keep)
			kept = err == nil
		}
	case filling:
		kept, err = leases.Fill(ctx, r.flight.Key, r.token, r.fill.bytes, r.fill.keep)
	default:
		kept, err = leases.Release(ctx, r.flight.Key, r.token)
	}
	r.redisFailed(err)
	switch {
	case err != nil || !filling:
	case kept:
		r.rt.meter.note(ctx, EventFill, r.flight.Key, time.Since(began), nil)
	default:
		r.rt.meter.note(ctx, EventRefusedFill, r.flight.Key, time.Since(began), nil)
	}
	r.OnSettle(kept, err != nil)
}

// finish hands the result to those who came early enough for it.
func (r *run[K, V]) finish() {
	before := r.loadBegan
	switch {
	case r.skipped:
		before = 0
	case r.Audience == lease.BeforeSend && !(r.now && !r.out.failed()):
		before = r.sent
	case r.loadBegan == 0:
		before = flight.Everyone // every caller has gone while the flight waited
	}
	down := r.Down
	k, rt, now := r.key, r.rt, r.now
	r.flight.Finish(r.out, before, func(f *flight.Flight[outcome[V]]) {
		again := run[K, V]{now: now}
		if down {
			again.Course = lease.Alone()
		}
		rt.run(f, k, again)
	})
	if r.rt.settings.noLease || !(r.Held || r.Down && r.sent > 0) {
		return
	}
	// Nobody waits for this. A lease whose fate is unknown would hold others up.
	ctx, cancel := r.redisContext(0)
	defer cancel()
	_, _ = r.rt.cache.leases.Release(ctx, r.flight.Key, r.token) // else it expires
}

func (r *run[K, V]) redisFailed(err error) {
	if err != nil {
		r.rt.meter.note(r.flight.Context(), EventRedisError, r.flight.Key, 0, err)
	}
}

// errLoadTimeout tells the end of WithLoadTimeout from a deadline of the loader's own.
var errLoadTimeout = errors.New("readthrough: load timeout")

// call calls f, with the load timeout, on a goroutine of its own: so a loader that
// ignores its context, panics or ends its goroutine harms nobody but its callers.
// Every third of a lease it calls keepLease.
func call[K, V, R any](rt *ReadThrough[K, V], ctx context.Context, keepLease func(), f func(context.Context) (R, error)) (R, error) {
	type result struct {
		value R
		err   error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, rt.settings.loadTimeout, errLoadTimeout)
	defer cancel()
	done := make(chan result, 1)
	load := func() {
		res := result{err: errGoexit}
		defer func() {
			if p := recover(); p != nil {
				res.err = &PanicError{Value: p, Stack: debug.Stack()}
			}
			done <- res
		}()
		res.value, res.err = f(ctx)
	}
	if !rt.cache.spawn(load) {
		return zero[R](), ErrClosed
	}
	ticker := time.NewTicker(rt.settings.leaseTTL / 3)
	defer ticker.Stop()
	for {
		select {
		case res := <-done:
			_, panicked := res.err.(*PanicError)
			if !panicked && errors.Is(res.err, context.DeadlineExceeded) && context.Cause(ctx) == errLoadTimeout {
				res.err = errLoadTimeout
			}
			return res.value, res.err
		case <-ctx.Done():
			select {
			case res := <-done: // it came at the same time
				return res.value, res.err
			default:
				return zero[R](), context.Cause(ctx)
			}
		case <-ticker.C:
			keepLease()
		}
	}
}
