// Package lease is the fill lease in Redis: the right to store what one is about
// to load. It keeps a cold key from being loaded by more than one process, and a
// value loaded before an invalidation from being stored after it, because
// invalidating an entry deletes its lease too. The idea is that of memcached's
// leases (Nishtala et al., Scaling Memcache at Facebook, NSDI 2013).
//
// The lease of an entry K is the key {K}:lease, which is in K's hash slot on
// every cluster. Its value is a token that only the holder knows.
package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// Doer sends commands to Redis in one round trip. When the error is nil, each
// command has its own result, which on a cluster may be that its node failed; else
// the commands must not be looked at.
type Doer interface {
	Do(ctx context.Context, cmds ...redis.Cmder) error
	Force(ctx context.Context, cmds ...redis.Cmder) error
}

// Store is the leases, and the entries that they protect, in one Redis.
type Store struct {
	redis  Doer
	taught sync.Map // the hashes of the scripts that were sent by their text
	placed placed

	// FailoverSafe has what is stored served by the primary alone that has taken it: see
	// failover.go. It is to be set before the first call.
	FailoverSafe bool
}

// NewStore returns the leases in the Redis that do speaks to.
func NewStore(do Doer) *Store { return &Store{redis: do} }

// Key is the key of the lease of the entry at key.
func Key(key string) string { return "{" + key + "}:lease" }

// Protects reports whether the entry at key can have a lease. Braces in the key
// would move the lease to another slot; no wrapper makes such keys.
func Protects(key string) bool { return !strings.ContainsAny(key, "{}") }

// NewToken returns a token that nobody can guess and that no other lease has.
func NewToken() string { return rand.Text() }

// maxKeys is how many keys one round trip is about.
const maxKeys = 1000

// Request asks for the lease of one entry.
type Request struct {
	Key   string
	Token string
	TTL   time.Duration
	Steal bool // take the lease whoever holds it: the holder's fill will be refused
}

// Acquired is the answer to a Request.
type Acquired struct {
	Held  bool   // the lease is now the caller's
	Found bool   // the entry exists,
	Entry []byte // and this is it; it is not asked for by a Request that steals
	Err   error  // nothing of this is known
}

// Acquire asks for the leases of all requests, and for the entries, in one round trip.
func (s *Store) Acquire(ctx context.Context, requests []Request) []Acquired {
	if s.FailoverSafe {
		return s.acquireSafely(ctx, requests)
	}
	answers, asked := make([]Acquired, len(requests)), make([]acquire, len(requests))
	send(ctx, s.redis.Do, len(requests), func(i int) []redis.Cmder {
		asked[i] = newAcquire(ctx, requests[i])
		return asked[i].cmds()
	}, func(i int, err error) {
		if answers[i].Err = err; err == nil {
			answers[i] = asked[i].answer()
		}
	})
	return answers
}

// acquire is the commands of one Request.
type acquire struct {
	set           *redis.Cmd
	entry, holder *redis.StringCmd // nil if the lease is stolen
	token         string
}

func newAcquire(ctx context.Context, r Request) acquire {
	lease := Key(r.Key)
	if r.Steal {
		return acquire{set: redis.NewCmd(ctx, "set", lease, r.Token, "px", millis(r.TTL))}
	}
	return acquire{
		set:    redis.NewCmd(ctx, "set", lease, r.Token, "nx", "px", millis(r.TTL)),
		entry:  redis.NewStringCmd(ctx, "get", r.Key),
		holder: redis.NewStringCmd(ctx, "get", lease),
		token:  r.Token,
	}
}

func (a *acquire) cmds() []redis.Cmder {
	if a.entry == nil {
		return []redis.Cmder{a.set}
	}
	return []redis.Cmder{a.set, a.entry, a.holder}
}

func (a *acquire) answer() Acquired {
	err := a.set.Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return Acquired{Err: err}
	}
	if a.entry == nil {
		return Acquired{Held: err == nil}
	}
	for _, get := range []*redis.StringCmd{a.entry, a.holder} {
		err := get.Err()
		if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
			return Acquired{Err: err} // the connection was lost in between, say
		}
	}
	var r Acquired
	// A client that lost the answer sends the commands again, and then SET NX
	// fails for the lease that the first attempt got. So the holder decides too.
	r.Held = err == nil || a.holder.Val() == a.token
	// An entry that cannot be read (WRONGTYPE) is none: the fill overwrites it.
	if b, err := a.entry.Bytes(); err == nil {
		r.Found, r.Entry = true, b
	}
	return r
}

// Settlement is how a load ends: with an entry to store, if its lease is still
// held, or without; the lease is given back either way.
type Settlement struct {
	Key   string
	Token string
	Entry []byte        // nil: nothing is stored
	TTL   time.Duration // zero: until it is deleted
}

// Outcome is what became of one key of a call.
type Outcome struct {
	Kept bool  // the lease was still held
	Err  error // what became of it is unknown
}

// Settle stores the entries whose token still is the lease, and releases the
// leases, in one round trip.
func (s *Store) Settle(ctx context.Context, settlements []Settlement) []Outcome {
	outcomes := run(ctx, s, s.redis.Do, settlements, func(e Settlement) call {
		if e.Entry == nil {
			return call{s.version(release), []string{Key(e.Key)}, []any{e.Token}}
		}
		return call{s.version(fill), []string{Key(e.Key), e.Key}, []any{e.Token, e.Entry, millis(e.TTL)}}
	})
	for i, e := range settlements {
		if outcomes[i].Kept && e.Entry != nil {
			s.placed.add(e.Key, e.TTL)
		}
	}
	return outcomes
}

// Renew makes the leases last for their TTL from now, where their token still is
// the lease.
func (s *Store) Renew(ctx context.Context, requests []Request) []Outcome {
	return run(ctx, s, s.redis.Do, requests, func(r Request) call {
		return call{s.version(renew), []string{Key(r.Key)}, []any{r.Token, millis(r.TTL)}}
	})
}

// Item is an entry to be stored.
type Item struct {
	Key   string
	Entry []byte
	TTL   time.Duration // zero: until it is deleted
}

// Set stores the entries and deletes their leases: what was being loaded is older.
// The keys in left may not have got their entry.
func (s *Store) Set(ctx context.Context, items ...Item) (left []string, err error) {
	outcomes := run(ctx, s, s.redis.Force, items, func(item Item) call {
		keys := []string{Key(item.Key), item.Key}
		if !Protects(item.Key) {
			keys[0] = item.Key // it has no lease to be deleted
		}
		return call{s.version(set), keys, []any{item.Entry, millis(item.TTL)}}
	})
	for i, item := range items {
		if outcomes[i].Kept {
			s.placed.add(item.Key, item.TTL)
		}
	}
	return failures(outcomes, func(i int) string { return items[i].Key })
}

// Expire makes the entries at keys stale as of now, keeps them for no longer than
// stale from now, and deletes their leases: what was being loaded is as old as
// they are. The keys in left may still have a fresh entry.
func (s *Store) Expire(ctx context.Context, now time.Time, stale time.Duration, keys ...string) (left []string, err error) {
	magic := entry.Magic
	if s.FailoverSafe {
		magic = entry.StampedMagic
	}
	args := []any{magic, len(magic) + entry.FreshUntilOffset - len(entry.Magic), entry.Stamp(now), millis(stale)}
	outcomes := run(ctx, s, s.redis.Force, keys, func(key string) call {
		s.placed.forget(key)
		return call{expire, []string{Key(key), key}, args}
	})
	return failures(outcomes, func(i int) string { return keys[i] })
}

// failures is the keys of the outcomes that failed, and the last of their errors.
func failures(outcomes []Outcome, key func(int) string) (left []string, err error) {
	for i, o := range outcomes {
		if o.Err != nil {
			left, err = append(left, key(i)), o.Err
		}
	}
	return left, err
}

// Invalidate deletes the entries at keys and their leases, so that no load that
// began before can be stored. The keys in left may still have their entry.
func (s *Store) Invalidate(ctx context.Context, keys ...string) (left []string, err error) {
	outcomes := sendEach(ctx, s.redis.Force, keys, func(key string) redis.Cmder {
		s.placed.forget(key)
		if !Protects(key) {
			return redis.NewIntCmd(ctx, "unlink", key)
		}
		return redis.NewIntCmd(ctx, "unlink", key, Key(key))
	})
	return failures(outcomes, func(i int) string { return keys[i] })
}

// send sends the commands of n items, maxKeys of them in each round trip, and tells
// answer how that of each went. After one that failed the rest is not sent: it would
// fail alike.
func send(ctx context.Context, do do, n int, cmdsOf func(i int) []redis.Cmder, answer func(i int, err error)) {
	var err error
	for start := 0; start < n; start += maxKeys {
		end := min(start+maxKeys, n)
		if err == nil {
			var cmds []redis.Cmder
			for i := start; i < end; i++ {
				cmds = append(cmds, cmdsOf(i)...)
			}
			err = do(ctx, cmds...)
		}
		for i := start; i < end; i++ {
			answer(i, err)
		}
	}
}

// sendEach is send for items of one command each, whose error is the Outcome's.
func sendEach[T any](ctx context.Context, do do, items []T, cmdFor func(T) redis.Cmder) []Outcome {
	cmds, outcomes := make([]redis.Cmder, len(items)), make([]Outcome, len(items))
	send(ctx, do, len(items), func(i int) []redis.Cmder {
		cmds[i] = cmdFor(items[i])
		return cmds[i : i+1]
	}, func(i int, err error) {
		if err == nil {
			err = cmds[i].Err()
		}
		outcomes[i] = Outcome{err == nil, err}
	})
	return outcomes
}

// millis is d in whole milliseconds, at least one if it is anything at all: Redis
// takes no smaller TTL, and zero would mean for ever.
func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(1, d.Milliseconds())
}
