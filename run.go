package readthrough

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/lease"
)

const (
	// firstPoll and maxPoll are the pauses between two looks at another process's load.
	firstPoll = time.Millisecond
	maxPoll   = 50 * time.Millisecond
	// maxParallel is how many calls of the loader one GetMany has under way at a
	// time, where there is no batch loader.
	maxParallel = 16
	// maxBatches is how many chunks of one GetMany are dealt with at a time.
	maxBatches = 4
)

// run is the course of one flight, from the first question to Redis to its result.
// Flights whose callers came together, with GetMany or within the window of
// WithGather, run together: each step is one round trip, or one call of the batch
// loader, for all of them.
type run[K, V any] struct {
	rt     *ReadThrough[K, V]
	flight *flight.Flight[outcome[V]]
	key    K
	lease.Course

	now        bool      // Refresh: load whatever is there, and share with nobody late
	background bool      // nobody waits: leave it to the process that holds the lease
	batched    bool      // came together with others, or asked to: the batch loader loads it
	seen       time.Time // an entry loaded no later than this is to be replaced
	ended      func()    // called at the end, if not nil
	slots      turns     // for the loads of runs that are driven together

	token           string
	asked           time.Duration // how long the last answer of Redis took
	wait            time.Duration
	waitUntil       time.Time
	sent, loadBegan flight.Mark
	out             outcome[V]
	fill            fill
	skipped         bool
}

// course returns the course of a flight begun by a caller, from where it starts.
func (rt *ReadThrough[K, V]) course(k K, start lease.Course) flight.Course[outcome[V]] {
	return func(f *flight.Flight[outcome[V]]) {
		rt.begin(f, k, run[K, V]{Course: start})
	}
}

// courseAfter is where a run starts after its caller's lookup: one wait for Redis is
// enough for that caller.
func courseAfter[V any](found *lookup[V]) lease.Course {
	if found.failed != nil {
		return lease.Alone()
	}
	return lease.Course{}
}

// begin runs r for the flight of k to its end.
func (rt *ReadThrough[K, V]) begin(f *flight.Flight[outcome[V]], k K, r run[K, V]) {
	rt.drive([]*run[K, V]{rt.prime(f, k, r)})
}

// prime makes r ready to be driven.
func (rt *ReadThrough[K, V]) prime(f *flight.Flight[outcome[V]], k K, r run[K, V]) *run[K, V] {
	r.rt, r.flight, r.key = rt, f, k
	r.token, r.wait, r.waitUntil = lease.NewToken(), firstPoll, time.Now().Add(rt.settings.leaseWait)
	if rt.settings.noLease && !r.Down {
		r.Course = lease.Course{Step: lease.Load, Held: true}
	}
	return &r
}

// drive takes runs that begin together to their end. A run on its own first waits
// for others, if WithGather says so.
func (rt *ReadThrough[K, V]) drive(rs []*run[K, V]) {
	if len(rs) == 1 && rt.gather != nil && !rs[0].batched {
		rt.gather.add(rs[0])
		return
	}
	rt.driveTogether(rs)
}

// driveTogether takes rs to their end, in chunks of WithBatchSize side by side.
func (rt *ReadThrough[K, V]) driveTogether(rs []*run[K, V]) {
	if len(rs) > 1 {
		slots := make(turns, maxParallel)
		for _, r := range rs {
			r.slots = slots
		}
	}
	sideBySide(rt.cache, rs, rt.settings.batchSize, maxBatches, rt.steps)
}

// steps takes runs through their steps together. Leases are taken without
// waiting: those that other processes hold are awaited apart, so that no process
// keeps others from a key while it waits for one of theirs.
func (rt *ReadThrough[K, V]) steps(rs []*run[K, V]) {
	for len(rs) > 0 {
		rt.acquire(at(rs, lease.Acquire))
		finishAll(at(rs, lease.Finish))
		waiting := at(rs, lease.Wait)
		ready := at(rs, lease.Load)
		if len(ready) > 0 && len(waiting) > 0 {
			apart := waiting
			if rt.cache.spawn(func() {
				pause(apart)
				rt.steps(apart)
			}) {
				waiting = nil
			}
		}
		rt.load(ready)
		pause(waiting)
		rs = waiting
	}
}

// at is those of rs that are at step.
func at[K, V any](rs []*run[K, V], step lease.Step) []*run[K, V] {
	if len(rs) == 1 { // the common case allocates nothing
		if rs[0].Step == step {
			return rs
		}
		return nil
	}
	var those []*run[K, V]
	for _, r := range rs {
		if r.Step == step {
			those = append(those, r)
		}
	}
	return those
}

// redisContext limits a step of the protocol, which is taken whether or not those
// who wait for the flight still do. What they have spent on waiting for Redis is
// not left for the step.
func (r *run[K, V]) redisContext(spent time.Duration) (context.Context, context.CancelFunc) {
	limit := max(r.rt.cache.settings.redisTimeout-spent, time.Millisecond)
	return context.WithTimeout(context.WithoutCancel(r.flight.Context()), limit)
}

// request asks for, or about, the lease of r.
func (r *run[K, V]) request() lease.Request {
	return lease.Request{Key: r.flight.Key, Token: r.token, TTL: r.rt.settings.leaseTTL, Steal: r.now}
}

// acquire asks for the leases of rs, and for their entries.
func (rt *ReadThrough[K, V]) acquire(rs []*run[K, V]) {
	if len(rs) == 0 {
		return
	}
	ctx, cancel := rs[0].redisContext(0)
	defer cancel()
	requests := make([]lease.Request, len(rs))
	for i, r := range rs {
		requests[i] = r.request()
		r.sent = r.flight.Mark()
	}
	began := time.Now()
	answers := rt.cache.leases.Acquire(ctx, requests)
	took := time.Since(began)
	for i, r := range rs {
		r.asked = took
		r.acquired(answers[i])
	}
}

func (r *run[K, V]) acquired(a lease.Acquired) {
	r.redisFailed(a.Err)
	usable := a.Err == nil && a.Found && r.use(a.Entry)
	r.OnAcquire(a.Held, usable, a.Err != nil)
	if r.Step == lease.Wait && r.background {
		// Another process refreshes. Those who have joined meanwhile start over.
		r.skipped, r.Step = true, lease.Finish
	}
}

// use takes an entry that another process stored for the result, if it is fresh.
func (r *run[K, V]) use(raw []byte) bool {
	l := lookup[V]{value: new(V)}
	// What cannot be decoded was counted by the lookup that led here.
	if err := r.rt.decode(raw, &l); err != nil || !l.is(fresh) || !l.entry.LoadedAt.After(r.seen) {
		return false
	}
	r.out = outcome[V]{value: *l.value, err: l.err, notFound: l.err != nil, shared: true, entry: l.entry}
	if l.err == nil {
		r.out.bytes = raw
	}
	return true
}

// pause waits for the processes that load what rs are waiting for.
func pause[K, V any](rs []*run[K, V]) {
	if len(rs) == 0 {
		return
	}
	wait, left := maxPoll, maxPoll
	for _, r := range rs {
		wait, left = min(wait, r.wait), min(left, time.Until(r.waitUntil))
	}
	timer := time.NewTimer(min(wait/2+rand.N(wait), left))
	defer timer.Stop()
	abandoned, stop := allDone(rs)
	defer stop()
	select {
	case <-timer.C:
	case <-abandoned.Done():
	}
	for _, r := range rs {
		r.wait = min(2*r.wait, maxPoll)
		if r.flight.Context().Err() != nil {
			r.out.err = r.flight.Context().Err()
			r.Step = lease.Finish
			continue
		}
		r.OnWait(!time.Now().Before(r.waitUntil))
	}
}

// allDone returns a context that ends when nobody waits for any of rs any more. It
// has the values of the first.
func allDone[K, V any](rs []*run[K, V]) (context.Context, func()) {
	first := rs[0].flight.Context()
	if len(rs) == 1 {
		return first, func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(first))
	abandoned := countdown(len(rs), cancel)
	stops := make([]func() bool, len(rs))
	for i, r := range rs {
		stops[i] = context.AfterFunc(r.flight.Context(), abandoned)
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// countdown returns a function that calls last when it is called for the nth time.
func countdown(n int, last func()) func() {
	var left atomic.Int64
	left.Store(int64(n))
	return func() {
		if left.Add(-1) == 0 {
			last()
		}
	}
}

// load loads what rs hold the leases of, and takes them to their end.
func (rt *ReadThrough[K, V]) load(rs []*run[K, V]) {
	switch {
	case len(rs) == 0:
	case rt.batch != nil && rs[0].batched:
		rt.loadBatch(rs)
		rt.conclude(rs)
	case len(rs) == 1:
		rs[0].load()
		rt.conclude(rs)
	default:
		rt.loadEach(rs)
	}
}

// loadEach calls the loader for each of rs, some at a time. Those that have yet to
// wait keep their leases.
func (rt *ReadThrough[K, V]) loadEach(rs []*run[K, V]) {
	slots := rs[0].slots
	var wg sync.WaitGroup
	for _, r := range rs {
		rt.cache.spawnOrRun(&wg, func() { // ends with its load
			ticker := time.NewTicker(rt.settings.leaseTTL / 3)
			err := slots.take(r.flight.Context(), ticker.C, r.keepLease)
			ticker.Stop()
			if err == nil {
				defer slots.give()
			}
			r.load() // whose context has ended as well, if there was no slot for it
			rt.conclude([]*run[K, V]{r})
		})
	}
	wg.Wait()
}

func (r *run[K, V]) load() {
	ctx := r.flight.Context()
	began := time.Now()
	value, err := call(r.rt, ctx, r.keepLease, func() { began = time.Now(); r.beginLoad() }, func(ctx context.Context) (V, error) {
		return r.rt.loader(ctx, r.key)
	})
	r.loaded(value, err, time.Since(began))
}

// loadBatch has the batch loader load all of rs.
func (rt *ReadThrough[K, V]) loadBatch(rs []*run[K, V]) {
	ctx, stop := allDone(rs)
	defer stop()
	ks := make([]K, len(rs))
	for i, r := range rs {
		ks[i] = r.key
	}
	began := time.Now()
	begin := func() {
		began = time.Now()
		for _, r := range rs {
			r.beginLoad()
		}
	}
	values, err := call(rt, ctx, func() { rt.keepLeases(rs) }, begin, func(ctx context.Context) (map[string]V, error) {
		return rt.batch(ctx, ks)
	})
	took := time.Since(began)
	for _, r := range rs {
		value, ok := values[rt.key(r.key)]
		switch {
		case err != nil:
			r.loaded(zero[V](), err, took)
		case ok:
			r.loaded(value, nil, took)
		case len(rt.settings.notFound) > 0:
			r.loaded(zero[V](), rt.settings.notFound[0], took)
		default:
			r.loaded(zero[V](), ErrMiss, took)
		}
	}
}

func (r *run[K, V]) beginLoad() { r.loadBegan = r.flight.Mark() }

// loaded goes on after a load.
func (r *run[K, V]) loaded(value V, err error, took time.Duration) {
	if r.loadBegan != 0 {
		r.rt.meter.note(r.flight.Context(), EventLoad, r.flight.Key, took, err)
	}
	r.out = outcome[V]{value: value, err: err}
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
			r.loadFailed(took)
			return false
		}
	}
	rt.backoff.forget(r.flight.Key)
	if r.out.notFound {
		r.out.entry = r.fill.entry
		return true
	}
	var err error
	r.fill, err = rt.encode(r.out.value, now, took)
	r.out.bytes = r.fill.bytes // each caller's copy comes from them, stored or not
	r.out.entry = r.fill.entry
	if err != nil {
		rt.meter.note(ctx, EventUnstorable, r.flight.Key, 0, err)
		return false
	}
	return !r.fill.unstorable
}

// loadFailed notes a load that brought no answer.
func (r *run[K, V]) loadFailed(took time.Duration) {
	rt, ctx := r.rt, r.flight.Context()
	if ctx.Err() == nil && !errors.Is(r.out.err, ErrClosed) { // else its callers have gone: no fault of the loader's
		rt.meter.note(ctx, EventLoadError, r.flight.Key, took, r.out.err)
		rt.backoff.failed(r.flight.Key, rt.settings.ttl)
	}
	if errors.Is(r.out.err, errLoadTimeout) {
		r.out.err = fmt.Errorf("readthrough: load %s: %w", r.flight.Key, context.DeadlineExceeded)
	}
}

func (r *run[K, V]) keepLease() { r.rt.keepLeases([]*run[K, V]{r}) }

// keepLeases renews the leases of rs while their load takes its time. A lease that
// is lost shows when the fill is refused.
func (rt *ReadThrough[K, V]) keepLeases(rs []*run[K, V]) {
	var held []*run[K, V]
	var requests []lease.Request
	for _, r := range rs {
		if r.Held && !r.Down && !rt.settings.noLease {
			held, requests = append(held, r), append(requests, r.request())
		}
	}
	if len(held) == 0 {
		return
	}
	ctx, cancel := held[0].redisContext(0)
	defer cancel()
	for i, o := range rt.cache.leases.Renew(ctx, requests) {
		held[i].redisFailed(o.Err)
		held[i].Down = o.Err != nil
	}
}
