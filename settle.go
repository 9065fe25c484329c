package readthrough

import (
	"context"
	"time"

	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/lease"
)

// conclude settles and finishes rs after their load.
func (rt *ReadThrough[K, V]) conclude(rs []*run[K, V]) {
	rt.settle(append(at(rs, lease.Fill), at(rs, lease.Release)...))
	finishAll(rs)
}

// settle stores the values, or gives the leases back: either shows whether
// anything was invalidated since the lease was acquired.
func (rt *ReadThrough[K, V]) settle(rs []*run[K, V]) {
	if len(rs) == 0 {
		return
	}
	ctx, cancel := rs[0].redisContext(rs[0].asked)
	defer cancel()
	if rt.settings.noLease {
		put(ctx, rt.cache.leases, rs)
		return
	}
	settlements := make([]lease.Settlement, len(rs))
	began := time.Now()
	for i, r := range rs {
		settlements[i] = lease.Settlement{Key: r.flight.Key, Token: r.token}
		if r.Step == lease.Fill {
			settlements[i].Entry, settlements[i].TTL = r.fill.bytes, r.fill.keep
		}
		r.sent, _ = r.flight.Leave()
	}
	for i, o := range rt.cache.leases.Settle(ctx, settlements) {
		rs[i].settled(o.Kept, o.Err, time.Since(began))
	}
}

// put is settle without a lease: what was forgotten meanwhile is not stored.
func put[K, V any](ctx context.Context, leases *lease.Store, rs []*run[K, V]) {
	var storing []*run[K, V]
	var items []lease.Item
	for _, r := range rs {
		var forgotten bool
		r.sent, forgotten = r.flight.Leave()
		if forgotten || r.Step != lease.Fill {
			r.settled(!forgotten, nil, 0)
			continue
		}
		storing = append(storing, r)
		items = append(items, lease.Item{Key: r.flight.Key, Entry: r.fill.bytes, TTL: r.fill.keep})
	}
	began := time.Now()
	for i, o := range leases.Put(ctx, items...) {
		storing[i].settled(o.Err == nil, o.Err, time.Since(began))
	}
}

func (r *run[K, V]) settled(kept bool, err error, took time.Duration) {
	r.redisFailed(err)
	switch {
	case err != nil || r.Step != lease.Fill:
	case kept:
		r.out.stored = true
		r.rt.meter.note(r.flight.Context(), EventFill, r.flight.Key, took, nil)
	default:
		r.rt.meter.note(r.flight.Context(), EventRefusedFill, r.flight.Key, took, nil)
	}
	r.OnSettle(kept, err != nil)
}

// finishAll hands out the results of rs. Those who came too late for them start
// over, together.
func finishAll[K, V any](rs []*run[K, V]) {
	var again []*run[K, V]
	for _, r := range rs {
		r.finish(func(successor *run[K, V]) { again = append(again, successor) })
	}
	if len(again) > 0 {
		rt := again[0].rt
		if !rt.cache.spawn(func() { rt.drive(again) }) {
			// Even a closed Cache finishes what it has begun.
			go rt.drive(again) // ends as every flight does: the load timeout bounds it
		}
	}
	release(rs)
	for _, r := range rs {
		if r.ended != nil {
			r.ended()
		}
	}
}

// finish hands the result to those who came early enough for it, and the flight of
// the others to again.
func (r *run[K, V]) finish(again func(*run[K, V])) {
	before := r.loadBegan
	switch {
	case r.skipped:
		before = 0
	case r.Audience == lease.BeforeSend && !(r.now && !r.out.failed()):
		before = r.sent
	case r.loadBegan == 0:
		before = flight.Everyone // every caller has gone while the flight waited
	}
	r.flight.Finish(r.out, before, func(f *flight.Flight[outcome[V]]) {
		successor := run[K, V]{now: r.now, batched: r.batched}
		if r.Down {
			successor.Course = lease.Alone()
		}
		again(r.rt.prime(f, r.key, successor))
	})
}

// release gives leases back that came with an entry, or whose fate is unknown.
// Nobody waits for this: it only keeps others from being held up.
func release[K, V any](rs []*run[K, V]) {
	var settlements []lease.Settlement
	var last *run[K, V]
	for _, r := range rs {
		if !r.rt.settings.noLease && (r.Held || r.Down && r.sent > 0) {
			settlements = append(settlements, lease.Settlement{Key: r.flight.Key, Token: r.token})
			last = r
		}
	}
	if last == nil {
		return
	}
	ctx, cancel := last.redisContext(0)
	defer cancel()
	_ = last.rt.cache.leases.Settle(ctx, settlements) // else they expire
}

func (r *run[K, V]) redisFailed(err error) {
	if err != nil {
		r.rt.meter.note(r.flight.Context(), EventRedisError, r.flight.Key, 0, err)
	}
}
