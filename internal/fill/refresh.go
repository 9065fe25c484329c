package fill

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/readthrough-go/readthrough/internal/clock"
	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

const (
	// maxParallel is how many loads of one call for many keys are under way at a time,
	// where there is no batch loader.
	maxParallel = 16
	// maxBatches is how many batches of one call are under way at a time.
	maxBatches = 4
)

// Groups cuts the keys of one call into those that are loaded together, and returns how
// many groups may be under way at a time: batches for the batch loader, or else single
// keys. A key's lease and flight are to begin when its group's turn has come, so that
// nobody waits behind a queue for them.
func Groups[K, V, T any](e *Engine[K, V], keys []T) (groups [][]T, parallel int) {
	size, parallel := 1, maxParallel
	if e.wrapper.LoadMany != nil {
		size, parallel = e.settings.BatchSize, maxBatches
	}
	return slices.Collect(slices.Chunk(keys, size)), parallel
}

// DueEarly decides whether this hit of e is the one that refreshes it before it becomes
// stale: XFetch of Vattani, Chierichetti and Lowenstein (VLDB 2015), with the time that the
// load took from the entry.
func DueEarly(now *clock.Clock, beta float64, e *entry.Entry) bool {
	if beta == 0 || e.FreshUntil.IsZero() {
		return false
	}
	ahead := -beta * float64(e.LoadTime) * math.Log(1-rand.Float64())
	return ahead >= float64(now.Until(e.FreshUntil))
}

// Stale is a read whose entry is to be replaced.
type Stale[K any] struct {
	K        K
	Key      string // its Redis key
	LoadedAt time.Time
}

// Allows reports whether the pause after key's last failed load is over.
func (e *Engine[K, V]) Allows(key string) bool { return e.backoff.allows(key) }

// Refresh loads the keys of reads in the background, but for those that are being
// loaded or whose last load has failed too recently; and none of them if too many
// refreshes are under way.
func (e *Engine[K, V]) Refresh(ctx context.Context, reads ...Stale[K]) {
	due := e.due(reads)
	if len(due) == 0 {
		return
	}
	if !e.refreshes.tryAcquire() {
		for _, read := range due {
			e.wrapper.Note(ctx, RefreshSkipped, read.Key, 0, nil)
		}
		return
	}
	groups, parallel := Groups(e, due)
	if len(groups) > 1 {
		e.spawnRefresh(func() {
			Parallel(e.wrapper.Go, groups, parallel, func(g []Stale[K]) { e.runRefresh(ctx, g, e.startRefresh(ctx, g)) })
		})
		return
	}
	begun := e.startRefresh(ctx, due)
	if len(begun) == 0 { // what is being loaded already costs no goroutine
		e.refreshes.release()
		return
	}
	e.spawnRefresh(func() { e.runRefresh(ctx, due, begun) })
}

// due returns those of reads that are to be refreshed, each key once.
func (e *Engine[K, V]) due(reads []Stale[K]) []Stale[K] {
	if len(reads) == 1 && e.backoff.allows(reads[0].Key) {
		return reads
	}
	seen := make(map[string]bool, len(reads))
	return slices.DeleteFunc(reads, func(read Stale[K]) bool {
		again := seen[read.Key]
		seen[read.Key] = true
		return again || !e.backoff.allows(read.Key)
	})
}

// spawnRefresh runs refresh in the background and then releases its slot.
func (e *Engine[K, V]) spawnRefresh(refresh func()) {
	e.wrapper.Go(func() { // ends with the loads, which the load timeout bounds
		defer e.refreshes.release()
		refresh()
	})
}

// startRefresh begins flights of those keys that have none.
func (e *Engine[K, V]) startRefresh(ctx context.Context, reads []Stale[K]) []*flight.Flight[Result[V]] {
	keys := make([]string, len(reads))
	for i, read := range reads {
		keys[i] = read.Key
	}
	return e.flights.Start(ctx, keys...)
}

// runRefresh takes the flights that a refresh has begun to their end.
func (e *Engine[K, V]) runRefresh(ctx context.Context, reads []Stale[K], begun []*flight.Flight[Result[V]]) {
	byKey := make(map[string]Stale[K], len(reads))
	for _, read := range reads {
		byKey[read.Key] = read
	}
	rs := make([]*loadRun[K, V], len(begun))
	for i, f := range begun {
		e.wrapper.Note(ctx, Refreshing, f.Key, 0, nil)
		read := byKey[f.Key]
		rs[i] = e.newRun(f, read.K, lease.Protocol{Yields: true})
		rs[i].batched, rs[i].replace = len(begun) > 1, read.LoadedAt
	}
	if e.gather != nil && len(rs) == 1 {
		e.runGathered(rs)
		return
	}
	e.run(rs)
}
