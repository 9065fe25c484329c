// Package retry keeps the invalidations that Redis has not heard of, and repeats them
// until it has: so that an outage at the wrong moment does not leave a stale value behind.
package retry

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// Forever is the lifetime of an invalidation that is retried until it succeeds.
const Forever time.Duration = 1<<63 - 1

// Invalidate invalidates keys in Redis, and returns those that it may not have reached.
type Invalidate func(ctx context.Context, keys ...string) (left []string, err error)

// Queue is the keys whose invalidation is still to be carried out. It is safe for
// concurrent use.
type Queue struct {
	invalidate Invalidate
	spawn      func(func()) bool
	stop       chan struct{}

	mu       sync.Mutex
	keys     map[string]overdue
	added    int
	retrying bool
}

// overdue is one invalidation to be retried.
type overdue struct {
	until time.Time // the zero Time: for ever
	nth   int       // tells it from a later one of the same key
}

// New returns an empty Queue. invalidate returns the keys that it may not have reached;
// spawn runs the retries on a goroutine, or reports false.
func New(invalidate Invalidate, spawn func(func()) bool) *Queue {
	return &Queue{invalidate: invalidate, spawn: spawn, stop: make(chan struct{}), keys: make(map[string]overdue)}
}

// Len returns how many keys are waiting.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.keys)
}

// Add has the invalidation of keys retried in the background, for as long as an entry
// can live: past that there is nothing left to invalidate.
func (q *Queue) Add(keys []string, lifetime time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var until time.Time
	if lifetime != Forever {
		until = time.Now().Add(lifetime)
	}
	for _, key := range keys {
		q.added++
		later := until
		if old, again := q.keys[key]; again && !until.IsZero() && (old.until.IsZero() || old.until.After(until)) {
			later = old.until // an entry of then may live for longer
		}
		q.keys[key] = overdue{later, q.added}
	}
	if !q.retrying {
		q.retrying = q.spawn(q.retry)
	}
}

// retry tries until nothing is waiting, or until Stop.
func (q *Queue) retry() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		select {
		case <-time.After(pause):
		case <-q.stop:
			return
		}
		_, _ = q.Try(ctx) // what failed keeps waiting
		if q.idle() {
			return
		}
	}
}

// idle reports whether nothing is left to retry.
func (q *Queue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.retrying = len(q.keys) > 0
	return !q.retrying
}

// Stop ends the retries. What is waiting can still be tried by Try.
func (q *Queue) Stop() { close(q.stop) }

// Try tries all that is waiting once, and returns the keys that are left with the
// reason.
func (q *Queue) Try(ctx context.Context) (left []string, err error) {
	tried := q.waiting(time.Now())
	if len(tried) == 0 {
		return nil, nil
	}
	left, err = q.invalidate(ctx, slices.Sorted(maps.Keys(tried))...)
	for _, key := range left {
		delete(tried, key)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for key, o := range tried {
		if q.keys[key] == o { // else it was invalidated again, after this attempt was sent
			delete(q.keys, key)
		}
	}
	return left, err
}

// waiting returns what is to be retried at now, and drops what is over.
func (q *Queue) waiting(now time.Time) map[string]overdue {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.keys, func(_ string, o overdue) bool { return !o.until.IsZero() && now.After(o.until) })
	return maps.Clone(q.keys)
}
