package readthrough

import (
	"sync"
	"time"
)

// gather brings together the misses of single Gets that come within a short time,
// for the batch loader: the idea of Facebook's DataLoader.
type gather[K, V any] struct {
	rt *ReadThrough[K, V]

	mu    sync.Mutex
	group *group[K, V] // the one that can be joined
}

type group[K, V any] struct {
	runs []*run[K, V]
	full chan struct{}
}

// add has r driven to its end together with others. The first of a group waits for
// the others, for the window of WithGather or until there are as many as its size.
func (g *gather[K, V]) add(r *run[K, V]) {
	r.batched = true
	group, first := g.join(r)
	if !first {
		return
	}
	timer := time.NewTimer(g.rt.settings.gatherWindow)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-group.full:
	}
	g.rt.driveTogether(g.leave(group))
}

// join takes r into the group that gathers, or into a new one.
func (g *gather[K, V]) join(r *run[K, V]) (joined *group[K, V], first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first = g.group == nil
	if first {
		g.group = &group[K, V]{full: make(chan struct{})}
	}
	joined = g.group
	joined.runs = append(joined.runs, r)
	if len(joined.runs) >= g.rt.settings.gatherSize {
		close(joined.full)
		g.group = nil
	}
	return joined, first
}

// leave closes the group to those who come later, and returns its runs.
func (g *gather[K, V]) leave(group *group[K, V]) []*run[K, V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.group == group {
		g.group = nil
	}
	return group.runs
}
