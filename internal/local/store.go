package local

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Copy is an entry in this process.
type Copy[T any] struct {
	Payload T
	until   time.Duration // it is fresh
}

// Store keeps the copies of one namespace. It is safe for concurrent use.
type Store[T any] struct {
	tier      *Tier
	namespace string // what its Redis keys begin with
	copies    *otter.Cache[string, *Copy[T]]
	seed      maphash.Seed
	evicted   atomic.Int64
	guards    [guardStripes]guardStripe
}

// guardStripes is how many guards there are: a drop keeps what is under way for other keys of its
// stripe from being kept, too.
const guardStripes = 256

// guardStripe is the guard of some keys. Its lock is held for as long as one of them is dropped, or
// a copy of one is kept: never for a hit.
type guardStripe struct {
	mu    sync.Mutex
	moved Guard
	_     [48]byte
}

// overhead is what a copy costs besides its key and payload: the entry of the table, its place in
// the policy, and the Copy itself.
const overhead = 200

// NewStore returns a Store, which keeps nothing before Open, for Redis keys that begin with
// namespace. It holds about maxBytes: the sum of its keys, of the sizes that size returns, and of
// what it takes to keep them.
func NewStore[T any](t *Tier, namespace string, maxBytes int64, size func(*T) int) *Store[T] {
	s := &Store[T]{tier: t, namespace: namespace, seed: maphash.MakeSeed()}
	s.copies = otter.Must(&otter.Options[string, *Copy[T]]{
		MaximumWeight: uint64(maxBytes),
		Weigher: func(key string, c *Copy[T]) uint32 {
			return uint32(min(len(key)+size(&c.Payload)+overhead, 1<<31))
		},
		OnAtomicDeletion: func(e otter.DeletionEvent[string, *Copy[T]]) {
			if e.Cause == otter.CauseOverflow {
				s.evicted.Add(1)
			}
		},
	})
	return s
}

// Open has the process become a member, and keep copies in s.
func (s *Store[T]) Open() { s.tier.attach(s) }

// Now returns the time for a Get, if the lease is in force.
func (s *Store[T]) Now() (now time.Duration, leased bool) {
	now = s.tier.now()
	return now, holds(now, time.Duration(s.tier.end.Load()))
}

// Get returns the fresh copy of a key, without its namespace. now is that of a Now before.
func (s *Store[T]) Get(key string, now time.Duration) *T {
	c, ok := s.copies.GetIfPresent(key)
	if !ok || now >= c.until {
		return nil
	}
	return &c.Payload
}

// Note returns the guard of a key. It is noted before Redis is asked for what is to be kept.
func (s *Store[T]) Note(key string) Guard {
	g := s.guardOf(key)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.moved
}

// Keep keeps a copy of what Redis had for a key, for as long as it is fresh, unless there is no
// lease or the guard has moved since it was noted.
func (s *Store[T]) Keep(key string, noted Guard, fresh time.Duration, payload T) {
	now, leased := s.Now()
	if !leased || fresh <= 0 {
		return
	}
	g := s.guardOf(key)
	g.mu.Lock()
	defer g.mu.Unlock()
	if noted.keeps(g.moved) {
		s.copies.Set(strings.Clone(key), &Copy[T]{payload, now + fresh})
	}
}

func (s *Store[T]) guardOf(key string) *guardStripe {
	return &s.guards[maphash.String(s.seed, key)%guardStripes]
}

func (s *Store[T]) dropKey(redisKey string) {
	key, mine := strings.CutPrefix(redisKey, s.namespace)
	if !mine {
		return
	}
	g := s.guardOf(key)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved++
	s.copies.Invalidate(key)
}

func (s *Store[T]) flush() {
	for i := range s.guards {
		g := &s.guards[i]
		g.mu.Lock()
		g.moved++
		g.mu.Unlock()
	}
	s.copies.InvalidateAll()
}

// Evicted returns how many copies have made room for others.
func (s *Store[T]) Evicted() int64 { return s.evicted.Load() }

// Len returns about how many copies there are.
func (s *Store[T]) Len() int { return s.copies.EstimatedSize() }
