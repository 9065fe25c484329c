package readthrough

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/mux"
)

// Loader is a repository function: it returns the value of key from where it is kept.
type Loader[K, V any] func(ctx context.Context, key K) (V, error)

// ReadThrough is a Loader with a cache before it. It is safe for concurrent use.
type ReadThrough[K, V any] struct {
	cache     *Cache
	settings  settings
	namespace string // prefix:name:
	loader    Loader[K, V]
	key       func(K) string
	ttlFor    func(V) time.Duration
	batch     func(context.Context, []K) (map[string]V, error) // by extracted key
	gather    *gather[K, V]                                    // nil: each miss loads for itself
	turns     turns                                            // to load
	shareable bool                                             // V can be given to several callers as it is
	flights   flight.Group[outcome[V]]
	refreshed flight.Group[outcome[V]] // the flights of Refresh, which let nobody in late
	backoff   backoff
	meter     *meter
}

// New wraps load. name is the namespace of its keys and its label in statistics:
// printable ASCII without spaces, braces and percent signs, and unique in c. key
// makes the cache key of a K: String and Int are ready made. The options override
// those given to NewCache; an option out of range is an error that names it.
func New[K, V any](c *Cache, name string, load Loader[K, V], key func(K) string, opts ...Option) (*ReadThrough[K, V], error) {
	rt, err := newReadThrough(c, name, load, key, opts)
	if err != nil {
		return nil, fmt.Errorf("readthrough: New %q: %w", name, err)
	}
	return rt, nil
}

func newReadThrough[K, V any](c *Cache, name string, load Loader[K, V], key func(K) string, opts []Option) (*ReadThrough[K, V], error) {
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
		meter: &meter{wrapper: name, observers: c.settings.observers},
	}
	if c.settings.prefix != "" {
		rt.namespace = c.settings.prefix + ":" + rt.namespace
	}
	if err := rt.apply(opts); err != nil {
		return nil, err
	}
	rt.flights.Go, rt.refreshed.Go = c.spawn, c.spawn
	return rt, c.register(name, wrapped{rt.meter, rt.awaitFills})
}

// apply applies the options, and checks what only the wrapper can: those that have types.
func (rt *ReadThrough[K, V]) apply(opts []Option) error {
	for _, opt := range opts {
		if opt == nil {
			return errors.New("an option is nil")
		}
		if err := opt.applyToWrapper(&rt.settings); err != nil {
			return err
		}
	}
	v := reflect.TypeFor[V]()
	rt.shareable = shareable(v)
	if err := checkCodec(rt.settings.codec, v); err != nil {
		return err
	}
	if f := rt.settings.ttlFor; f != nil {
		var ok bool
		if rt.ttlFor, ok = f.(func(V) time.Duration); !ok {
			return fmt.Errorf("WithTTLFor: %T does not take the wrapper's value, %v", f, v)
		}
	}
	if b := rt.settings.batch; b != nil {
		var err error
		if rt.batch, err = adaptBatch[K, V](b, rt.key); err != nil {
			return err
		}
	}
	if n := rt.settings.loadLimit; n > 0 {
		rt.turns = make(turns, n)
	}
	if rt.settings.gatherWindow > 0 {
		if rt.batch == nil {
			return errors.New("WithGather: there is no WithBatchLoader to gather for")
		}
		rt.gather = &gather[K, V]{rt: rt}
	}
	return nil
}

// Must returns v, or panics if err is not nil: for wrappers made at start-up.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Get returns the value of k: from Redis, or else from the loader, whose value is
// then stored. It has the loader's signature, and returns the loader's errors as
// they are. If Redis cannot be asked, the loader is. The error is the context's as
// soon as ctx ends; ErrEmptyKey, ErrClosed and context.DeadlineExceeded after
// WithLoadTimeout are the cache's own. A loader's panic is raised again, as a
// PanicError, in each caller.
//
// Each caller gets a value of its own, as decoded from the stored bytes; only the
// caller whose call began the load gets what the loader returned. What cannot be
// encoded is given to all as it is.
func (rt *ReadThrough[K, V]) Get(ctx context.Context, k K) (V, error) {
	return rt.get(ctx, k, nil)
}

func (rt *ReadThrough[K, V]) get(ctx context.Context, k K, info *Info) (V, error) {
	key, err := rt.RedisKey(k)
	if err != nil {
		return zero[V](), err
	}
	found := rt.lookup(ctx, key)
	if found.failed != nil && ctx.Err() != nil {
		return zero[V](), ctx.Err()
	}
	switch rt.judge(ctx, key, &found) {
	case serveAndRefresh:
		rt.refresh(ctx, staleRead[K]{k, key, found.entry.LoadedAt})
		fallthrough
	case serve:
		return *found.value, rt.hit(ctx, key, &found, info)
	}
	began := time.Now()
	seat := rt.flights.Join(ctx, key, rt.course(k, courseAfter(&found)))
	if seat == nil {
		return zero[V](), ErrClosed
	}
	return rt.land(ctx, key, seat, &found, began, info)
}

// verdict is what becomes of a read after its lookup.
type verdict uint8

const (
	serve           verdict = iota // answer with what was found
	serveAndRefresh                // and load it anew in the background
	await                          // wait for a load
)

// judge decides whether a read is answered with what its lookup found.
func (rt *ReadThrough[K, V]) judge(ctx context.Context, key string, found *lookup[V]) verdict {
	switch {
	case found.is(fresh) && rt.refreshesEarly(found):
		return serveAndRefresh
	case found.is(fresh):
		return serve
	case found.is(stale) && (rt.settings.patience == 0 || rt.turns.full()):
		return serveAndRefresh
	}
	if found.is(stale) && !rt.backoff.allows(key) {
		return serve // the loader has just failed: it is spared, and so is the caller
	}
	rt.meter.note(ctx, EventMiss, key, 0, nil)
	return await
}

// hit counts a hit and returns its error, which is a negative entry's.
func (rt *ReadThrough[K, V]) hit(ctx context.Context, key string, found *lookup[V], info *Info) error {
	kind, source := EventHit, SourceHit
	switch {
	case found.is(stale):
		kind, source = EventStaleHit, SourceStale
	case found.err != nil:
		kind, source = EventNegativeHit, SourceNegative
	}
	info.fill(source, &found.entry, false)
	rt.meter.note(ctx, kind, key, 0, nil)
	return found.err
}

// land waits for the flight and hands out what it brought.
func (rt *ReadThrough[K, V]) land(ctx context.Context, key string, seat *flight.Seat[outcome[V]], found *lookup[V], began time.Time, info *Info) (V, error) {
	var impatient <-chan time.Time
	if found.is(stale) {
		timer := time.NewTimer(time.Until(began.Add(rt.settings.patience)))
		defer timer.Stop()
		impatient = timer.C
	}
	var out outcome[V]
	select {
	case out = <-seat.Result():
	case <-ctx.Done():
		seat.Leave()
		return zero[V](), ctx.Err()
	case <-impatient:
		// The load goes on, and fills; Close ends it.
		f := seat.Abide()
		stop := context.AfterFunc(rt.cache.closing, f.CancelUnlessAwaited)
		context.AfterFunc(f.Context(), func() { stop() })
		return *found.value, rt.hit(ctx, key, found, info)
	}
	if out.failed() && found.is(stale) {
		return *found.value, rt.hit(ctx, key, found, info)
	}
	source := SourceLoaded
	switch {
	case out.shared:
		source = SourceShared
		rt.meter.note(ctx, EventShared, key, time.Since(began), nil)
	case !seat.First():
		source = SourceShared
		rt.meter.note(ctx, EventCollapsed, key, time.Since(began), nil)
	}
	if !out.failed() {
		info.fill(source, &out.entry, out.stored)
	}
	return rt.unpack(out, seat.First())
}

// Peek returns what Get would return without a load. It is ErrMiss if Get would
// load; any other error is a negative entry's, or says that Redis could not be asked.
func (rt *ReadThrough[K, V]) Peek(ctx context.Context, k K) (V, error) {
	key, err := rt.RedisKey(k)
	if err != nil {
		return zero[V](), err
	}
	found := rt.lookup(ctx, key)
	switch {
	case found.failed != nil && ctx.Err() != nil:
		return zero[V](), ctx.Err()
	case errors.Is(found.failed, mux.ErrClosed):
		return zero[V](), ErrClosed
	case found.failed != nil:
		return zero[V](), fmt.Errorf("readthrough: peek %s: %w", key, found.failed)
	case found.is(missing):
		rt.meter.note(ctx, EventMiss, key, 0, nil)
		return zero[V](), ErrMiss
	}
	return *found.value, rt.hit(ctx, key, &found, nil)
}

// Refresh loads the value of k now, whatever the cache holds, stores it and
// returns it. The errors are those of Get.
func (rt *ReadThrough[K, V]) Refresh(ctx context.Context, k K) (V, error) {
	key, err := rt.RedisKey(k)
	if err != nil {
		return zero[V](), err
	}
	seat := rt.refreshed.Join(ctx, key, func(f *flight.Flight[outcome[V]]) {
		rt.begin(f, k, run[K, V]{now: true})
	})
	if seat == nil {
		return zero[V](), ErrClosed
	}
	out, err := seat.Wait(ctx)
	if err != nil {
		return zero[V](), err
	}
	return rt.unpack(out, seat.First())
}

// RedisKey returns the key under which the value of k is stored. It is ErrEmptyKey
// if the extracted key is empty.
func (rt *ReadThrough[K, V]) RedisKey(k K) (string, error) {
	return joinKey(rt.namespace, rt.key(k))
}

// Stats returns what was counted for this wrapper.
func (rt *ReadThrough[K, V]) Stats() Stats {
	var s Stats
	rt.meter.addTo(&s)
	return s
}

func zero[V any]() (v V) { return v }
