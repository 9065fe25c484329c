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
func (rt *ReadThrough[K, V]) refreshesEarly(found *lookup[V]) bool {
	if rt.settings.beta == 0 || found.entry.FreshUntil.IsZero() {
		return false
	}
	ahead := -rt.settings.beta * float64(found.entry.LoadTime) * math.Log(1-rand.Float64())
	return ahead >= float64(time.Until(found.entry.FreshUntil))
}

// staleRead is a read whose entry is to be replaced.
type staleRead[K any] struct {
	k        K
	key      string
	loadedAt time.Time
}

// refresh loads the keys of reads in the background, but for those that are being
// loaded or whose last load has failed too recently; and none of them if too many
// refreshes are under way.
func (rt *ReadThrough[K, V]) refresh(ctx context.Context, reads ...staleRead[K]) {
	due := make(map[string]staleRead[K], len(reads))
	keys := make([]string, 0, len(reads))
	for _, read := range reads {
		if _, again := due[read.key]; !again && rt.backoff.allows(read.key) {
			due[read.key] = read
			keys = append(keys, read.key)
		}
	}
	if len(keys) == 0 {
		return
	}
	c := rt.cache
	select {
	case c.refreshes <- struct{}{}:
	default:
		for _, key := range keys {
			rt.meter.note(ctx, EventSkipped, key, 0, nil)
		}
		return
	}
	if !rt.flights.Start(ctx, keys, func(begun []*flight.Flight[outcome[V]]) { rt.runRefresh(ctx, due, begun) }) {
		<-c.refreshes
	}
}

// runRefresh takes the flights of a refresh to their end, and then gives its place
// to another.
func (rt *ReadThrough[K, V]) runRefresh(ctx context.Context, due map[string]staleRead[K], begun []*flight.Flight[outcome[V]]) {
	stop := context.AfterFunc(rt.cache.closing, func() {
		for _, f := range begun {
			f.CancelUnlessAwaited()
		}
	})
	ended := countdown(len(begun), func() {
		stop()
		<-rt.cache.refreshes
	})
	rs := make([]*run[K, V], len(begun))
	for i, f := range begun {
		rt.meter.note(ctx, EventRefresh, f.Key, 0, nil)
		read := due[f.Key]
		rs[i] = rt.prime(f, read.k, run[K, V]{background: true, batched: len(begun) > 1, seen: read.loadedAt, ended: ended})
	}
	rt.drive(rs)
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
	last := b.keys[key]
	if time.Now().Before(last.until) {
		return // of what fails during a pause, a reader who had nothing to be served with, say
	}
	pause := max(firstBackoff, min(2*last.pause, ttl))
	b.keys[key] = setback{time.Now().Add(pause), pause}
}

func (b *backoff) forget(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, key)
}
