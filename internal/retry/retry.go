// Package retry keeps the invalidations that Redis has not heard of, and repeats them
// until it has: so that an outage at the wrong moment does not leave a stale value behind.
package retry

import (
	"container/list"
	"context"
	"sync"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
	// MaxKeys is how many keys a Queue keeps. Past it, the oldest are dropped.
	MaxKeys = 100_000
	// chunk is how many keys are tried at a time.
	chunk = 1000
)

// Forever is the lifetime of an invalidation that is retried until it succeeds.
const Forever time.Duration = 1<<63 - 1

// Invalidate carries out the invalidation of keys, and returns those that it may not have
// reached.
type Invalidate func(ctx context.Context, keys ...string) (left []string, err error)

// Queue is the keys whose invalidation is still to be carried out. It is safe for
// concurrent use.
type Queue struct {
	invalidate Invalidate
	start      func()             // starts the retries
	stop       context.CancelFunc // ends them

	mu       sync.Mutex
	keys     map[string]*list.Element // of order
	order    list.List                // of overdue, the oldest first
	next     *list.Element            // where the next attempt begins; nil: with the oldest
	added    int
	retrying bool
	stopped  bool // nothing is retried in the background any more
	closed   bool // nothing is retried any more
}

// overdue is one invalidation to be retried.
type overdue struct {
	key   string
	until time.Time // the zero Time: for ever
	nth   int       // tells it from a later one of the same key
}

// New returns an empty Queue. spawn runs the retries on a goroutine.
func New(invalidate Invalidate, spawn func(func())) *Queue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &Queue{invalidate: invalidate, stop: cancel, keys: make(map[string]*list.Element)}
	q.start = func() { spawn(func() { q.retry(ctx) }) } // ends when nothing is left, or by Stop
	return q
}

// Len returns how many keys are waiting.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.keys)
}

// Add has the invalidation of keys retried in the background, for as long as an entry
// can live: past that there is nothing left to invalidate. It returns the keys that were
// dropped to make room. It reports false, and keeps nothing, after the Last attempt.
func (q *Queue) Add(keys []string, lifetime time.Duration) (dropped []string, kept bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, false
	}
	var until time.Time
	if lifetime != Forever {
		until = time.Now().Add(lifetime)
	}
	for _, key := range keys {
		q.added++
		q.add(overdue{key, until, q.added})
		if len(q.keys) > MaxKeys {
			dropped = append(dropped, q.remove(q.order.Front()))
		}
	}
	if !q.retrying && !q.stopped {
		q.retrying = true
		q.start()
	}
	return dropped, true
}

// add adds o, in the place of an earlier one of its key. The lock is held.
func (q *Queue) add(o overdue) {
	e := q.keys[o.key]
	if e == nil {
		q.keys[o.key] = q.order.PushBack(o)
		return
	}
	if old := e.Value.(overdue).until; old.IsZero() || old.After(o.until) && !o.until.IsZero() {
		o.until = old // an entry of then may live for longer
	}
	e.Value = o
}

// remove removes e, and returns its key. The lock is held.
func (q *Queue) remove(e *list.Element) string {
	if q.next == e {
		q.next = e.Next()
	}
	key := q.order.Remove(e).(overdue).key
	delete(q.keys, key)
	return key
}

// retry tries until nothing is waiting, or until ctx ends.
func (q *Queue) retry(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		_ = q.try(ctx) // what failed keeps waiting
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

// Stop ends the retries in the background. What is waiting is kept for the Last attempt.
func (q *Queue) Stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.stop()
}

// Last tries all that is waiting a last time, and returns the keys that are left with the
// reason.
func (q *Queue) Last(ctx context.Context) (left []string, err error) {
	q.mu.Lock()
	q.closed, q.next = true, nil
	q.mu.Unlock()
	err = q.try(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.order.Front(); e != nil; e = e.Next() {
		left = append(left, e.Value.(overdue).key)
	}
	return left, err
}

// try tries each key that is waiting once, the oldest first, until a whole chunk fails:
// Redis is still down. The next try begins behind that chunk, since it may be only the
// node of those keys that is.
func (q *Queue) try(ctx context.Context) (err error) {
	for untried := q.Len(); untried > 0; {
		due, seen := q.nextChunk(time.Now())
		if untried -= seen; len(due) == 0 {
			return err // the rest is over, or others have dealt with it
		}
		keys := make([]string, len(due))
		for i, o := range due {
			keys[i] = o.key
		}
		left, failed := q.invalidate(ctx, keys...)
		q.reached(due, left)
		if failed != nil {
			err = failed
		}
		if len(left) == len(keys) {
			break
		}
	}
	return err
}

// nextChunk returns what is to be tried next at now, and drops what is over. It says how
// many keys it has seen.
func (q *Queue) nextChunk(now time.Time) (due []overdue, seen int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		q.next = q.order.Front()
	}
	for e := q.next; e != nil && len(due) < chunk; e = q.next {
		seen++
		o := e.Value.(overdue)
		q.next = e.Next()
		if !o.until.IsZero() && now.After(o.until) {
			q.remove(e)
			continue
		}
		due = append(due, o)
	}
	return due, seen
}

// reached removes what was tried and is not left.
func (q *Queue) reached(tried []overdue, left []string) {
	missed := make(map[string]bool, len(left))
	for _, key := range left {
		missed[key] = true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range tried {
		// If it is another by now, it was invalidated again after this attempt was sent.
		if e := q.keys[o.key]; e != nil && e.Value.(overdue) == o && !missed[o.key] {
			q.remove(e)
		}
	}
}
