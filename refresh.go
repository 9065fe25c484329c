package readthrough

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/readthrough-go/readthrough/internal/flight"
)

// refreshesEarly decides whether this hit is the one that refreshes its entry
// before it becomes stale: XFetch of Vattani, Chierichetti and Lowenstein (VLDB
// 2015), with the time that the load took from the entry.
func (rt *ReadThrough[K, V]) refreshesEarly(found lookup[V]) bool {
	if rt.settings.beta == 0 || found.entry.FreshUntil.IsZero() {
		return false
	}
	ahead := -rt.settings.beta * float64(found.entry.LoadTime) * math.Log(1-rand.Float64())
	return ahead >= float64(time.Until(found.entry.FreshUntil))
}

// refresh loads k in the background, unless that is under way, too many others
// are, or the last attempt has failed too recently.
func (rt *ReadThrough[K, V]) refresh(ctx context.Context, k K, key string, found lookup[V]) {
	if !rt.backoff.allows(key) {
		return
	}
	c := rt.cache
	select {
	case c.refreshes <- struct{}{}:
	default:
		rt.meter.note(ctx, EventSkipped, key, 0, nil)
		return
	}
	begun := rt.flights.Start(ctx, key, func(f *flight.Flight[outcome[V]]) {
		defer func() { <-c.refreshes }()
		stop := context.AfterFunc(c.closing, f.Cancel)
		defer stop()
		rt.run(f, k, run[K, V]{background: true, seen: found.entry.LoadedAt})
	})
	if !begun {
		<-c.refreshes
		return
	}
	rt.meter.note(ctx, EventRefresh, key, 0, nil)
}

const (
	firstBackoff = time.Second
	// maxBackoffs bounds the memory of failures; past it, all are forgotten.
	maxBackoffs = 10_000
)

// backoff remembers the keys whose load has failed, so that a database in trouble
// is not asked for each stale hit. The pause after a failure doubles from 1 second
// to the TTL.
type backoff struct {
	mu   sync.Mutex
	keys map[string]setback
}

type setback struct {
	until time.Time
	pause time.Duration
}

func (b *backoff) allows(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, failed := b.keys[key]
	return !failed || !time.Now().Before(f.until)
}

func (b *backoff) failed(key string, ttl time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.keys) >= maxBackoffs || b.keys == nil {
		b.keys = make(map[string]setback)
	}
	pause := max(firstBackoff, min(2*b.keys[key].pause, ttl))
	b.keys[key] = setback{time.Now().Add(pause), pause}
}

func (b *backoff) forget(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, key)
}
