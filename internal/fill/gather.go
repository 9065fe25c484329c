package fill

import (
	"slices"
	"sync"
	"time"
)

// gather brings together the misses that come within a short time, for the batch
// loader: the batch window of Facebook's DataLoader.
type gather[K, V any] struct {
	window time.Duration
	size   int

	mu    sync.Mutex
	batch *batch[K, V] // the one that can be joined
}

// batch is the runs that have come within one window.
type batch[K, V any] struct {
	runs []*loadRun[K, V]
	full chan struct{}
}

// runGathered takes rs to their end together with the runs that come within the window:
// the first waits for the others and runs them all, in batches side by side.
func (e *Engine[K, V]) runGathered(rs []*loadRun[K, V]) {
	g := e.gather
	b, first := g.join(rs)
	if !first {
		return
	}
	timer := time.NewTimer(g.window)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.full:
	}
	groups := slices.Collect(slices.Chunk(g.close(b), e.settings.BatchSize))
	Parallel(e.wrapper.Go, groups, maxBatches, e.run)
}

// join adds rs to the batch that can be joined, or to a new one.
func (g *gather[K, V]) join(rs []*loadRun[K, V]) (b *batch[K, V], first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first = g.batch == nil
	if first {
		g.batch = &batch[K, V]{full: make(chan struct{})}
	}
	b = g.batch
	for _, r := range rs {
		r.batched = true
		b.runs = append(b.runs, r)
	}
	if len(b.runs) >= g.size {
		close(b.full)
		g.batch = nil
	}
	return b, first
}

// close keeps newcomers from joining b, and returns its runs.
func (g *gather[K, V]) close(b *batch[K, V]) []*loadRun[K, V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.batch == b {
		g.batch = nil
	}
	return b.runs
}
