package readthrough

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/local"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// WithLocal keeps copies of entries in this process, up to about maxBytes for each wrapper, and
// answers reads from them without asking Redis. Default: none are kept. Whatever is written through
// any process of the fleet is dropped by all before the write returns (see WithLocalMode), so all
// processes that write must have WithLocal: those that only write have WithLocal(0), which keeps
// nothing. The processes of a prefix hear of each other over Pub/Sub; where Redis refuses that, or
// scripts, nothing is kept. See docs/local-tier.md.
func WithLocal(maxBytes int64) Option {
	return option(func(s *settings) error {
		s.local.on, s.local.maxBytes = true, maxBytes
		if maxBytes < 0 {
			return fmt.Errorf("WithLocal: %d is negative", maxBytes)
		}
		return nil
	})
}

// WithLocalTTL sets how long a copy of WithLocal is served at most, if it is fresh for that long.
// Default 1 minute, at least 1 ms. It bounds what a writer without WithLocal can do.
func WithLocalTTL(d time.Duration) Option {
	return option(func(s *settings) error {
		s.local.ttl = d
		return checkTTL("WithLocalTTL", d)
	})
}

// WithSharedValues has all hits of WithLocal share one value, also if V has pointers, slices or maps.
// Callers must not change what they are given. Default: each decodes a value of its own, unless V
// has nothing in it that could be changed.
func WithSharedValues() Option {
	return option(func(s *settings) error {
		s.local.shared = true
		return nil
	})
}

// WithLocalLease sets for how long a process may serve its copies without hearing of Redis, and so
// the longest that a process that hangs or dies holds writers up. Default 1 second, from 100 ms to
// 30 s, and the same in all processes of a prefix: one of another lease keeps nothing.
func WithLocalLease(d time.Duration) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.tier.lease = d
		if d < 100*time.Millisecond || d > 30*time.Second {
			return fmt.Errorf("WithLocalLease: %v is not from 100ms to 30s", d)
		}
		return nil
	})
}

// LocalMode is when a write returns, where processes keep copies.
type LocalMode uint8

const (
	// LocalStrict has a write return when no process serves a copy of before any more.
	LocalStrict LocalMode = iota
	// LocalEventual has it return at once. The copies are gone within milliseconds as a rule, and
	// within WithLocalLease in any case.
	LocalEventual
)

// WithLocalMode sets when writes of this Cache return. Default LocalStrict.
func WithLocalMode(m LocalMode) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.tier.mode = m
		if m > LocalEventual {
			return fmt.Errorf("WithLocalMode: %d is neither LocalStrict nor LocalEventual", m)
		}
		return nil
	})
}

// localSettings are those of a wrapper's copies.
type localSettings struct {
	on       bool
	maxBytes int64
	ttl      time.Duration
	shared   bool
}

// tierSettings are those of all copies of a Cache.
type tierSettings struct {
	lease time.Duration
	mode  LocalMode
}

// copies is what a wrapper keeps in this process.
type copies[V any] struct {
	store  *local.Store[held[V]]
	shared bool // a copy's value is given to all as it is
	quick  bool // a hit runs no code of the user's but the key extractor: Close need not wait for it
	hits   striped
}

// held is a copy.
type held[V any] struct {
	value  V      // if it is shared,
	raw    []byte // or else what it is decoded from
	err    error  // a negative entry's
	header entry.Entry
	size   int // of the encoded value
}

// newCopies gives rt room for copies, if it is to keep some.
func (rt *ReadThrough[K, V]) newCopies() {
	s := &rt.settings.local
	if !s.on || rt.cache.disabled() || s.maxBytes == 0 {
		return
	}
	shared := rt.types.shareable || s.shared
	rt.copies = &copies[V]{shared: shared, quick: shared && len(rt.meter.audience.observers) == 0}
	rt.copies.store = local.NewStore(rt.cache.tier, rt.namespace, s.maxBytes, func(h *held[V]) int {
		return int(unsafe.Sizeof(*h)) + h.size
	})
}

// joinTier has rt, which is registered by now, fence, and keep copies if it has room for them.
func (rt *ReadThrough[K, V]) joinTier() {
	if !rt.settings.local.on || rt.cache.disabled() {
		return
	}
	rt.cache.tier.Use()
	if rt.copies != nil {
		rt.copies.store.Open()
	}
	rt.cache.tier.Start()
}

// getCopy returns the value of a copy of k, to be copied, or nil if there is none that may be served.
// err is that of a negative entry.
func (rt *ReadThrough[K, V]) getCopy(ctx context.Context, k K, info *Info) (v *V, err error) {
	if !rt.copies.quick {
		call, closed := rt.cache.enter(ctx)
		defer call.End()
		if closed != nil {
			return nil, nil // the lookup says so
		}
	}
	now, leased := rt.copies.store.Now()
	if !leased || ctx.Err() != nil {
		return nil, nil
	}
	return rt.findCopy(ctx, k, now, info)
}

// findCopy is getCopy for a copy that is fresh at now.
func (rt *ReadThrough[K, V]) findCopy(ctx context.Context, k K, now time.Duration, info *Info) (v *V, err error) {
	key := rt.key(k)
	if !isPlain(key) {
		if key, err = joinKey("", key); err != nil {
			return nil, nil
		}
	}
	h, c := rt.copies.store.Get(key, now), rt.cache.settings.clock
	if h == nil || c != nil && !h.header.Fresh(c.Now()) || fill.DueEarly(c, rt.settings.beta, &h.header) {
		return nil, nil // Redis may have a newer one
	}
	if v = &h.value; h.raw != nil {
		v = new(V) // the caller's own
		if rt.types.values.Decode(forKey(rt.settings.codec, rt.namespace+key), h.raw, v) != nil {
			return nil, nil
		}
	}
	info.fill(SourceLocal, &h.header, false, c)
	rt.copies.hits.add()
	if a := rt.meter.audience; len(a.observers) > 0 {
		rt.meter.note(ctx, EventLocalHit, rt.namespace+key, 0, nil)
	}
	if f := rt.onHit.Load(); f != nil {
		(*f)(ctx, k, *v, h.err)
	}
	return v, h.err
}

// guarded is what a read needs to keep what it gets.
type guarded struct {
	noted local.Guard
	keeps bool
}

// noteGuard has r keep what Redis has, or gets from it, from now on.
func (r *read[K, V]) noteGuard() {
	r.guarded = guarded{r.rt.copies.store.Note(r.localKey()), true}
}

// localKey returns the key in this process.
func (r *read[K, V]) localKey() string { return r.key[len(r.rt.namespace):] }

// keepFound keeps a copy of the fresh entry that a lookup has found.
func (r *read[K, V]) keepFound() {
	if r.keeps {
		r.keep(*r.found.value, r.found.err, r.found.entry)
	}
}

// keepResult keeps a copy of what a load has brought, if Redis has it.
func (r *read[K, V]) keepResult(result *fill.Result[V]) {
	if !r.keeps || result.Failed() || !result.Stored && !result.Shared {
		return
	}
	header := result.Header
	var v V
	var negative error
	if header.Negative {
		negative = r.rt.settings.notFound.errs[header.Reason] // as an entry in Redis says it
	} else {
		e, err := entry.Parse(result.Bytes)
		if err != nil {
			return
		}
		// Not the value itself: its owner may change it.
		header.Value = e.Value
		codec := forKey(r.rt.settings.codec, r.key)
		if r.rt.copies.shared && r.rt.types.values.Decode(codec, e.Value, &v) != nil {
			return
		}
	}
	r.keep(v, negative, header)
}

// keep keeps a copy of an entry: of v if it can be shared, and else of the bytes.
func (r *read[K, V]) keep(v V, err error, e entry.Entry) {
	h := held[V]{err: err, header: e, size: cap(e.Value)}
	switch {
	case err != nil:
		h.size = 0
	case r.rt.copies.shared:
		h.value = v
	default:
		h.raw = e.Value
	}
	h.header.Value = nil
	fresh := r.rt.settings.local.ttl
	if !e.FreshUntil.IsZero() {
		fresh = min(fresh, r.rt.cache.settings.clock.Until(e.FreshUntil))
	}
	r.rt.copies.store.Keep(r.localKey(), r.noted, fresh, h)
}

// newTier returns the Cache's part in the tier, which does nothing until it is used.
func (c *Cache) newTier(subscribe local.Subscribe) *local.Tier {
	t := local.New(local.Config{
		Prefix: c.settings.prefix, Lease: c.settings.tier.lease, Wait: c.settings.tier.mode == LocalStrict,
		Redis: c.mux, Subscribe: subscribe, Note: c.onTier,
	})
	if c.settings.wrapper.local.on {
		t.Use()
	}
	return t
}

// tierEvents are the Events of what the tier notes.
var tierEvents = [...]EventKind{
	local.Ready: EventLocalReady, local.Lost: EventLocalLost, local.Fenced: EventFence, local.Waited: EventFenceWaited,
	local.Refused: EventRefusedCommand,
}

func (c *Cache) onTier(what local.Event, took time.Duration, err error) {
	if what == local.Refused {
		err = fmt.Errorf("%w; no copies are kept in this process", err)
	}
	c.meter.noteApart(context.Background(), tierEvents[what], "", took, err)
}

// fenced changes the entries at keys by send, and then has all processes drop their copies. If that
// may not have happened, all keys are left.
func (c *Cache) fenced(ctx context.Context, keys []string, send sender) (left []string, err error) {
	left, err = send(keys)
	return c.fence(ctx, true, keys, left, err)
}

// invalidateAgain is the invalidation of what is retried. Nobody waits for it.
func (c *Cache) invalidateAgain(ctx context.Context, keys ...string) (left []string, err error) {
	left, err = c.leases.Invalidate(ctx, keys...)
	return c.fence(ctx, false, keys, left, err)
}

// fence has all processes drop their copies of keys, but for those left their entries were changed.
// A Redis that was reached for none of them is not asked again.
func (c *Cache) fence(ctx context.Context, wait bool, keys, left []string, err error) ([]string, error) {
	c.tier.Drop(keys...) // before the fence, which the others acknowledge
	if len(left) == len(keys) {
		return left, err
	}
	if failed := c.tier.Fence(ctx, wait, keys...); failed != nil {
		return keys, failed
	}
	return left, err
}

// refreshed has all processes drop their copies of a key that was refreshed. The others do so soon.
func (rt *ReadThrough[K, V]) refreshed(ctx context.Context, key string, result *fill.Result[V], first bool) {
	if !rt.settings.local.on || !result.Stored {
		return
	}
	rt.cache.tier.Drop(key)
	if first {
		rt.cache.work.Go(func() { // ends within the Redis timeout
			_ = rt.cache.tier.Fence(context.WithoutCancel(ctx), false, key) // else the copies expire
		})
	}
}

// addTo adds what was counted for the copies.
func (c *copies[V]) addTo(s *Stats) {
	s.LocalHits += c.hits.sum()
	s.LocalEvictions += c.store.Evicted()
}

// striped is a counter that many goroutines add to without waiting for one cache line.
type striped [64]struct {
	n atomic.Int64
	_ [56]byte
}

// add takes the stripe of the goroutine, by the place of its stack: a random one would mostly be in
// another processor's cache.
func (s *striped) add() {
	var here byte
	s[uintptr(unsafe.Pointer(&here))>>11%uintptr(len(s))].n.Add(1)
}

func (s *striped) sum() (n int64) {
	for i := range s {
		n += s[i].n.Load()
	}
	return n
}
