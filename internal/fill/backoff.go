package fill

import (
	"sync"
	"time"

	"github.com/readthrough-go/readthrough/internal/clock"
)

const (
	firstBackoff = time.Second
	// maxBackoffs bounds the memory of failures; past it, each new one takes the place of another.
	maxBackoffs = 10_000
)

// backoff remembers the keys whose load has failed, so that a database in trouble is
// not asked for each stale hit. The pause after a failure doubles from 1 second to the
// TTL.
type backoff struct {
	clock *clock.Clock
	mu    sync.Mutex
	keys  map[string]setback
}

// setback is the pause after the last failure of a key.
type setback struct {
	until time.Time
	pause time.Duration
}

// allows reports whether the pause of key is over.
func (b *backoff) allows(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, failed := b.keys[key]
	return !failed || !b.clock.Now().Before(s.until)
}

// failed begins a pause of key, twice as long as the last but no longer than ttl.
func (b *backoff) failed(key string, ttl time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, again := b.keys[key]
	now := b.clock.Now()
	if now.Before(last.until) {
		return // of what fails during a pause, a reader who had nothing to be served with, say
	}
	if !again {
		b.makeRoom()
	}
	pause := max(firstBackoff, min(2*last.pause, ttl))
	b.keys[key] = setback{now.Add(pause), pause}
}

// makeRoom makes room for one more key. The lock is held.
func (b *backoff) makeRoom() {
	if b.keys == nil {
		b.keys = make(map[string]setback)
	}
	for key := range b.keys { // in no order
		if len(b.keys) < maxBackoffs {
			break
		}
		delete(b.keys, key)
	}
}

// forget ends the pause of key.
func (b *backoff) forget(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, key)
}
