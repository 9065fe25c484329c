package readthrough

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/mux"
)

const (
	firstRetry = 50 * time.Millisecond
	maxRetry   = time.Second
)

// pending is the keys whose invalidation did not reach Redis. It is retried until
// it does, or until the entries have expired, so that an outage at the wrong
// moment does not leave a stale value behind.
type pending struct {
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

func (p *pending) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.keys)
}

// written notes that the entries at keys were changed, but for those left by err.
// These are invalidated in the background, for as long as an entry can live, and
// the caller learns it at once.
func (c *Cache) written(ctx context.Context, m *meter, lifetime time.Duration, keys, left []string, err error) error {
	failed := make(map[string]bool, len(left))
	for _, key := range left {
		failed[key] = true
	}
	for _, key := range keys {
		if failed[key] {
			m.note(ctx, EventInvalidation, key, 0, err)
		} else {
			m.note(ctx, EventInvalidation, key, 0, nil)
		}
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, mux.ErrClosed) {
		err = ErrClosed
	}
	m.note(ctx, EventRedisError, "", 0, err)
	c.retryLater(left, lifetime)
	return lease.KeysError(left, err)
}

// retryLater has the invalidation of keys retried in the background.
func (c *Cache) retryLater(keys []string, lifetime time.Duration) {
	p := &c.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys == nil {
		p.keys = make(map[string]overdue)
	}
	var until time.Time
	if lifetime != NoExpiry {
		until = time.Now().Add(lifetime)
	}
	for _, key := range keys {
		p.added++
		later := until
		if old, again := p.keys[key]; again && !until.IsZero() && (old.until.IsZero() || old.until.After(until)) {
			later = old.until // an entry of then may live for longer
		}
		p.keys[key] = overdue{later, p.added}
	}
	if !p.retrying {
		p.retrying = c.spawn(c.retryPending)
	}
}

// retryPending tries until nothing is pending or the Cache is closed.
func (c *Cache) retryPending() {
	pause := firstRetry
	for {
		select {
		case <-time.After(pause):
		case <-c.closing.Done():
			return // Close tries a last time
		}
		_ = c.tryPending(c.closing) // what failed stays pending
		if c.pending.rest() {
			return
		}
		pause = min(2*pause, maxRetry)
	}
}

// rest reports whether nothing is left to retry.
func (p *pending) rest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retrying = len(p.keys) > 0
	return !p.retrying
}

// tryPending tries all that is pending once. The error names the keys that are left.
func (c *Cache) tryPending(ctx context.Context) error {
	p := &c.pending
	p.mu.Lock()
	now := time.Now()
	maps.DeleteFunc(p.keys, func(_ string, o overdue) bool { return !o.until.IsZero() && now.After(o.until) })
	tried := maps.Clone(p.keys)
	p.mu.Unlock()
	if len(tried) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(tried))
	left, err := c.leases.Invalidate(ctx, keys...)
	for _, key := range left {
		delete(tried, key)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, o := range tried {
		if p.keys[key] == o { // else it was invalidated again, after this attempt was sent
			delete(p.keys, key)
		}
	}
	if err == nil {
		return nil
	}
	return lease.KeysError(left, err)
}
