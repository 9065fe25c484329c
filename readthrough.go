package readthrough

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/mux"
)

// Loader is a repository function: it returns the value of key from where it is kept. Its
// context has the values of the caller whose call began the load, and the load timeout, but
// not that caller's deadline, and it outlives the call: so a transaction must not be taken
// from it. A Loader that Gets its own key waits for itself until the load timeout.
type Loader[K, V any] func(ctx context.Context, key K) (V, error)

// ReadThrough is a Loader with a cache before it. It is safe for concurrent use.
type ReadThrough[K, V any] struct {
	cache     *Cache
	settings  settings
	namespace string // prefix:name:
	loader    Loader[K, V]
	key       func(K) string
	typedOptions[K, V]
	types     traits
	engine    *fill.Engine[K, V] // loads what is missing
	copies    *copies[V]         // in this process; nil: none
	replySize mux.ReplySize      // of the values, as learned
	meter     *meter
	onHit     atomic.Pointer[func(context.Context, K, V, error)] // of package hook
}

// typedOptions are the options that depend on the types of a wrapper.
type typedOptions[K, V any] struct {
	ttlFor func(V) time.Duration
	batch  func(context.Context, []K) (map[string]V, error) // by Redis key
}

// traits is what the types of a wrapper's keys and values allow.
type traits struct {
	keys      keyKind     // what a load needs of a K
	shareable bool        // a V can be given to several callers as it is
	values    valueType   // what is known of V
	altered   atomic.Bool // told: some V does not survive its codec
}

// New wraps load. name is the namespace of its keys and its label in statistics:
// printable ASCII without spaces, braces and percent signs, and unique in c. key
// makes the cache key of a K: String and Int are ready made. The options override
// those given to NewCache; an option out of range is an error that names it.
//
// A load can outlive the call that began it, and is given a copy of a K with pointers or
// slices. What cannot be copied (what holds a map, an interface, a lock, or unexported
// pointers) should not be changed: if its key has changed by the end of the load, nothing
// is stored.
func New[K, V any](
	c *Cache, name string, load Loader[K, V], key func(K) string, opts ...Option,
) (*ReadThrough[K, V], error) {
	rt, err := newReadThrough(c, name, load, key, opts)
	if err != nil {
		return nil, failed("New "+strconv.Quote(name), err)
	}
	return rt, nil
}

func newReadThrough[K, V any](
	c *Cache, name string, load Loader[K, V], key func(K) string, opts []Option,
) (*ReadThrough[K, V], error) {
	switch {
	case c == nil:
		return nil, errors.New("the Cache is nil")
	case load == nil:
		return nil, errors.New("the loader is nil")
	case key == nil:
		return nil, errors.New("the key extractor is nil")
	}
	if err := checkName("name", name); err != nil {
		return nil, err
	}
	rt := &ReadThrough[K, V]{
		cache: c, settings: c.settings.wrapper, namespace: name + ":", loader: load, key: key,
		meter: &meter{wrapper: name, audience: c.meter.audience},
	}
	if c.settings.prefix != "" {
		rt.namespace = c.settings.prefix + ":" + rt.namespace
	}
	if err := rt.apply(opts); err != nil {
		return nil, err
	}
	rt.engine = fill.New(rt.wrapper(), rt.engineSettings(), c.leases, c.refreshes)
	rt.newCopies()
	if err := c.register(name, wrapped{rt.addTo, rt.engine.Stop}); err != nil {
		return nil, err
	}
	rt.joinTier()
	return rt, nil
}

// Must returns v, or panics if err is not nil: for wrappers made at start-up.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Get returns the value of k: from Redis, or else from the loader, whose value is then
// stored. It has the loader's signature, and returns the loader's errors as they are. If
// Redis cannot be asked, the loader is.
//
// The errors of the cache's own are the context's when ctx ends (within WithRedisTimeout, while Redis
// is asked), ErrEmptyKey,
// ErrClosed, ErrNotFound of a batch loader, and context.DeadlineExceeded after
// WithLoadTimeout. A loader's panic is raised again, as a PanicError, in each caller.
//
// Each caller gets a value of its own, as decoded from the stored bytes; only the caller
// whose call began the load gets what the loader returned. What cannot be encoded is
// given to all as it is.
func (rt *ReadThrough[K, V]) Get(ctx context.Context, k K) (V, error) {
	return rt.get(ctx, k, nil)
}

// GetInfo is Get that also tells where the value came from: for the Age and
// Cache-Status headers of HTTP, say.
func (rt *ReadThrough[K, V]) GetInfo(ctx context.Context, k K) (V, Info, error) {
	var info Info
	v, err := rt.get(ctx, k, &info)
	return v, info, err
}

func (rt *ReadThrough[K, V]) get(ctx context.Context, k K, info *Info) (V, error) {
	if rt.copies != nil {
		if v, err := rt.getCopy(ctx, k, info); v != nil {
			return *v, err
		}
	}
	call, err := rt.cache.enter(ctx)
	defer call.End()
	if err != nil {
		return zero[V](), err
	}
	key, err := rt.RedisKey(k)
	if err != nil {
		return zero[V](), err
	}
	r := read[K, V]{rt: rt, k: k, key: key, info: info}
	r.lookup(ctx)
	if r.found.failed != nil && ctx.Err() != nil {
		return zero[V](), ctx.Err()
	}
	switch r.decide(ctx) {
	case serveAndRefresh:
		rt.engine.Refresh(ctx, r.stale())
		fallthrough
	case serve:
		return r.hit(ctx)
	}
	began := time.Now()
	return r.await(ctx, rt.engine.Join(ctx, r.miss()), began)
}

// read is one key on its way from the lookup to its answer.
type read[K, V any] struct {
	rt    *ReadThrough[K, V]
	k     K
	key   string // in Redis
	found lookup[V]
	info  *Info // nil: nobody asked for it
	guarded
}

// decision is what becomes of a read after its lookup.
type decision uint8

const (
	serve           decision = iota // answer with what was found
	serveAndRefresh                 // and load it anew in the background
	await                           // wait for a load
)

// decide returns whether the read is answered with what its lookup found.
func (r *read[K, V]) decide(ctx context.Context) decision {
	rt, found := r.rt, &r.found
	switch {
	case found.is(fresh) && fill.DueEarly(rt.cache.settings.clock, rt.settings.beta, &found.entry):
		return serveAndRefresh
	case found.is(fresh):
		if rate := rt.settings.load.audit; rate > 0 && rand.Float64() < rate {
			r.audit(ctx)
		}
		return serve
	case found.is(stale) && (rt.settings.patience == 0 || rt.engine.Busy()):
		return serveAndRefresh
	}
	if found.is(stale) && !rt.engine.Allows(r.key) {
		return serve // the loader has just failed: it is spared, and so is the caller
	}
	rt.meter.note(ctx, EventMiss, r.key, 0, nil)
	return await
}

// miss returns what the engine is to load.
func (r *read[K, V]) miss() fill.Miss[K] {
	return fill.Miss[K]{K: r.rt.keep(r.k), Key: r.key, Alone: r.found.failed != nil || r.rt.cache.disabled()}
}

// stale returns what the engine is to refresh.
func (r *read[K, V]) stale() fill.Stale[K] {
	return fill.Stale[K]{K: r.rt.keep(r.k), Key: r.key, LoadedAt: r.found.entry.LoadedAt}
}

// hit counts a hit, and answers with what was found.
func (r *read[K, V]) hit(ctx context.Context) (V, error) {
	kind, source := EventHit, SourceHit
	switch {
	case r.found.is(stale):
		kind, source = EventStaleHit, SourceStale
	case r.found.err != nil:
		kind, source = EventNegativeHit, SourceNegative
	}
	r.info.fill(source, &r.found.entry, false, r.rt.cache.settings.clock)
	r.rt.meter.note(ctx, kind, r.key, 0, nil)
	if f := r.rt.onHit.Load(); f != nil && kind != EventStaleHit {
		(*f)(ctx, r.k, *r.found.value, r.found.err)
	}
	return *r.found.value, r.found.err
}

// await waits for the load in which seat is the caller's, since began. A caller with a
// stale value at hand waits no longer than its patience, and is content with that value
// if the load fails.
func (r *read[K, V]) await(ctx context.Context, seat *fill.Seat[V], began time.Time) (V, error) {
	var impatient <-chan time.Time
	if r.found.is(stale) {
		timer := time.NewTimer(time.Until(began.Add(r.rt.settings.patience)))
		defer timer.Stop()
		impatient = timer.C
	}
	var result fill.Result[V]
	select {
	case result = <-seat.Result():
	case <-ctx.Done():
		seat.Leave()
		return zero[V](), ctx.Err()
	case <-impatient:
		seat.LeaveRunning()
		return r.hit(ctx)
	}
	if result.Changed && r.rt.isKeyOf(r.k, r.key) {
		return r.await(ctx, r.rt.engine.Join(ctx, r.miss()), began) // it was another caller's K
	}
	if result.Failed() && r.found.is(stale) {
		return r.hit(ctx)
	}
	r.note(ctx, &result, seat.First(), time.Since(began))
	r.keepResult(&result)
	return r.rt.unpack(r.key, &result, seat.First())
}

// note says where the result of a load came from, after a wait: the load is shared if
// another call has begun it, in this process (then the calls collapse) or in another.
func (r *read[K, V]) note(ctx context.Context, result *fill.Result[V], first bool, waited time.Duration) {
	source := SourceLoaded
	if result.Shared || !first {
		source = SourceShared
		if !result.Shared {
			r.rt.meter.note(ctx, EventCollapsed, r.key, waited, nil)
		}
		r.rt.meter.note(ctx, EventShared, r.key, waited, nil)
	}
	if !result.Failed() {
		r.info.fill(source, &result.Header, result.Stored, r.rt.cache.settings.clock)
	}
}

// Peek returns what Get would return without a load. The error is ErrMiss if Get would
// load, and that of a negative entry if there is one. If Redis could not be asked it is
// ErrUnavailable; besides, ErrEmptyKey, ErrClosed, and the context's.
func (rt *ReadThrough[K, V]) Peek(ctx context.Context, k K) (V, error) {
	if rt.copies != nil {
		if v, err := rt.getCopy(ctx, k, nil); v != nil {
			return *v, err
		}
	}
	call, err := rt.cache.enter(ctx)
	defer call.End()
	if err != nil {
		return zero[V](), err
	}
	key, err := rt.RedisKey(k)
	if err != nil {
		return zero[V](), err
	}
	r := read[K, V]{rt: rt, k: k, key: key}
	r.lookup(ctx)
	switch {
	case r.found.failed != nil && ctx.Err() != nil:
		return zero[V](), ctx.Err()
	case r.found.failed != nil:
		return zero[V](), failed("peek "+key, redisError(ctx, r.found.failed))
	case r.found.is(missing):
		rt.meter.note(ctx, EventMiss, key, 0, nil)
		return zero[V](), ErrMiss
	}
	return r.hit(ctx)
}

// Refresh loads the value of k now, whatever the cache holds, stores it and returns it.
// Concurrent calls share a load that begins after they did. The errors are those of Get.
func (rt *ReadThrough[K, V]) Refresh(ctx context.Context, k K) (V, error) {
	call, err := rt.cache.enter(ctx)
	defer call.End()
	if err != nil {
		return zero[V](), err
	}
	key, err := rt.RedisKey(k)
	if err != nil {
		return zero[V](), err
	}
	for {
		seat := rt.engine.JoinFresh(ctx, fill.Miss[K]{K: rt.keep(k), Key: key, Alone: rt.cache.disabled()})
		result, err := seat.Wait(ctx)
		if err != nil {
			return zero[V](), err
		}
		if !result.Changed || !rt.isKeyOf(k, key) { // else it was another caller's K
			rt.refreshed(ctx, key, &result, seat.First())
			return rt.unpack(key, &result, seat.First())
		}
	}
}

// RedisKey returns the key under which the value of k is stored. The error is ErrEmptyKey
// if the extracted key is empty.
func (rt *ReadThrough[K, V]) RedisKey(k K) (string, error) {
	return joinKey(rt.namespace, rt.key(k))
}

// Stats returns what was counted for this wrapper.
func (rt *ReadThrough[K, V]) Stats() Stats {
	var s Stats
	rt.addTo(&s)
	return s
}

func (rt *ReadThrough[K, V]) addTo(s *Stats) {
	rt.meter.addTo(s)
	if rt.copies != nil {
		rt.copies.addTo(s)
	}
}

func zero[V any]() (v V) { return v }
