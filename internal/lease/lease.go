// Package lease is the fill lease in Redis: the right to store what one is about
// to load. It keeps a cold key from being loaded by more than one process, and a
// value loaded before an invalidation from being stored after it, because
// invalidating an entry deletes its lease too. The idea is that of memcached's
// leases (Nishtala et al., Scaling Memcache at Facebook, NSDI 2013).
//
// The lease of an entry K is the key prefix:{K}:lease, which is in K's hash slot on every
// cluster and begins like K, for access rules that go by the prefix. Its value is a token
// that only the holder knows.
package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// Doer sends commands to Redis, in one round trip unless they are too many for that. When
// the error is nil, each command has its own result; else the commands must not be
// looked at. An error with a method Of(i int) error is about some commands only: Of
// returns nil for those that have their own result.
type Doer interface {
	Do(ctx context.Context, cmds ...redis.Cmder) error
	Force(ctx context.Context, cmds ...redis.Cmder) error
}

// Store is the leases, and the entries that they protect, in one Redis.
type Store struct {
	redis       Doer
	config      Config
	scriptsSent lua.Sent
	placed      placed

	// What Redis may refuse: unlinks stands for UNLINK, hashes for EVALSHA, expiries for
	// the script of Expire, writes for that of BeginWrite.
	scripts, transactions, unlinks, hashes, expiries, writes way
}

// Config holds the settings of a Store.
type Config struct {
	Prefix string // the keys of leases begin with it and a colon; empty: with a brace
	// Watch runs a transaction for as long as ctx allows. The Store uses it where Redis
	// refuses scripts. Nil: there are no transactions.
	Watch func(ctx context.Context, f func(*redis.Tx) error, keys ...string) error
	// OnRefused is called once when Redis begins to refuse a command, with the reply and
	// what the Store does instead. It tries the command again each 30 seconds.
	OnRefused func(err error)
	// FailoverSafe has what is stored served by no other primary than the one that took it:
	// see failover.go. It cannot do without scripts: where Redis refuses them, nothing is
	// stored and nothing found.
	FailoverSafe bool
	// Go runs f on a goroutine. Nil: one that nobody waits for.
	Go func(f func())
}

// NewStore returns the leases in the Redis that do speaks to.
func NewStore(do Doer, c Config) *Store {
	if c.Prefix != "" {
		c.Prefix += ":"
	}
	if c.Go == nil {
		c.Go = func(f func()) { go f() }
	}
	if c.FailoverSafe {
		c.Watch = nil // a transaction cannot stamp
	}
	return &Store{redis: do, config: c}
}

// Key returns the key of the lease of the entry at key.
func (s *Store) Key(key string) string { return s.config.Prefix + "{" + key + "}:lease" }

// failedKey returns the key that holds the token of the last load of the entry at key that
// has brought nothing to store. Only those who wait for a lease read it.
func (s *Store) failedKey(key string) string { return s.config.Prefix + "{" + key + "}:failed" }

// failedFor is the TTL of that key: longer than anybody pauses between two looks.
const failedFor = 200 * time.Millisecond

// Protects reports whether the entry at key can have a lease. Braces in the key
// would move the lease to another slot; no wrapper makes such keys.
func Protects(key string) bool { return !strings.ContainsAny(key, "{}") }

// NewToken returns a token that nobody can guess and that no other lease has.
func NewToken() string { return rand.Text() }

// Settlement is how a load ends: with an entry to store, if its lease is still
// held, or without; the lease is given back either way.
type Settlement struct {
	Key    string
	Token  string
	Entry  []byte        // nil: nothing is stored
	TTL    time.Duration // zero: until it is deleted
	Failed bool          // those who wait for this lease are to learn that its load has brought nothing
	Drop   bool          // without an Entry: the one that is there is older, and deleted
}

// Outcome is what became of one key of a call.
type Outcome struct {
	Kept bool  // the lease was still held
	Err  error // what became of it is unknown

	transacted bool // by a transaction, since Redis refuses scripts
}

// Settle stores the entries whose token still is the lease, and releases the
// leases, in one round trip. Where it cannot, the lease is deleted all the same, and the
// Outcome is ErrRefused.
func (s *Store) Settle(ctx context.Context, settlements []Settlement) []Outcome {
	outcomes := s.underLease(ctx, s.redis.Do, len(settlements), func(i int, again bool) []redis.Cmder {
		e := &settlements[i]
		if e.Entry == nil {
			release := s.call(ctx, again, release, []string{s.Key(e.Key)}, e.Token)
			return slices.Concat(s.tell(ctx, e), s.drop(ctx, again, e), release)
		}
		return s.call(ctx, again, fill, []string{s.Key(e.Key), e.Key}, e.Token, e.Entry, millis(e.TTL))
	}, func(i int) transaction {
		e, lease := &settlements[i], s.Key(settlements[i].Key)
		cmds := [][]any{s.unlink(lease)}
		switch {
		case e.Entry != nil:
			cmds = append(cmds, setting(e.Key, e.Entry, e.TTL))
		case e.Failed:
			cmds = append(cmds, setting(s.failedKey(e.Key), e.Token, failedFor))
		}
		if e.Drop && e.Entry == nil {
			cmds = append(cmds, s.unlink(e.Key))
		}
		return transaction{lease, e.Token, e.Entry == nil, cmds}
	})
	s.abandon(ctx, settlements, outcomes)
	for i, e := range settlements {
		if outcomes[i].Kept && e.Entry != nil {
			s.placed.add(e.Key, e.TTL)
		}
	}
	return outcomes
}

// tell returns the command by which those who wait for the lease of e learn that they do so
// in vain. It goes before the release, so that whoever finds the lease free, or another's,
// can find out why.
func (s *Store) tell(ctx context.Context, e *Settlement) []redis.Cmder {
	if !e.Failed {
		return nil
	}
	return []redis.Cmder{redis.NewCmd(ctx, setting(s.failedKey(e.Key), e.Token, failedFor)...)}
}

// abandon deletes the leases that could not be given back in a better way. If one has come
// to another process meanwhile, its fill will be refused, which harms nothing else.
func (s *Store) abandon(ctx context.Context, settlements []Settlement, outcomes []Outcome) {
	var refused []int
	for i, o := range outcomes {
		if errors.Is(o.Err, ErrRefused) {
			refused = append(refused, i)
		}
	}
	deleted := s.run(ctx, s.redis.Do, len(refused), func(j int, _ bool) []redis.Cmder {
		e := &settlements[refused[j]]
		cmds := []redis.Cmder{redis.NewCmd(ctx, s.unlink(s.Key(e.Key))...)}
		if e.Drop {
			cmds = append(cmds, redis.NewCmd(ctx, s.unlink(e.Key)...))
		}
		return append(s.tell(ctx, e), cmds...)
	})
	for j, i := range refused {
		if deleted[j].Err != nil {
			outcomes[i].Err = deleted[j].Err
		}
	}
}

// Renew makes the leases last for their TTL from now, where their token still is
// the lease.
func (s *Store) Renew(ctx context.Context, requests []Request) []Outcome {
	return s.underLease(ctx, s.redis.Do, len(requests), func(i int, again bool) []redis.Cmder {
		return s.call(ctx, again, renew, []string{s.Key(requests[i].Key)}, requests[i].Token, millis(requests[i].TTL))
	}, func(i int) transaction {
		lease, token := s.Key(requests[i].Key), requests[i].Token
		return transaction{lease, token, false, [][]any{setting(lease, token, requests[i].TTL)}}
	})
}

// setting returns the command that sets a key; a ttl of zero: until it is deleted.
func setting(key string, value any, ttl time.Duration) []any {
	words := []any{"set", key, value}
	if ttl > 0 {
		words = append(words, "px", millis(ttl))
	}
	return words
}

// Expire makes the entries at keys stale as of now, keeps them for no longer than
// stale from now, and deletes their leases: what was being loaded is as old as
// they are. Entries with which Redis refuses to do so are invalidated. The keys in left
// may still have a fresh entry.
func (s *Store) Expire(
	ctx context.Context, now time.Time, stale time.Duration, keys ...string,
) (left []string, err error) {
	magic, older := entry.Magic, entry.MagicV1
	if s.config.FailoverSafe {
		magic, older = entry.StampedMagic, entry.StampedMagic
	}
	return s.writeByScript(ctx, &s.expiries, "Expire invalidates instead", keys, func(i int, again bool) []redis.Cmder {
		return s.call(ctx, again, expire, keys[i:i+1], magic, entry.FreshUntilOffset, entry.Stamp(now), millis(stale), older)
	})
}

// writeByScript is write by a script. It invalidates the entries with which Redis refuses
// that, which w remembers.
func (s *Store) writeByScript(
	ctx context.Context, w *way, instead string, keys []string, script cmdsFor,
) (left []string, err error) {
	if !w.open() {
		return s.Invalidate(ctx, keys...)
	}
	outcomes := s.write(ctx, keys, script)
	var refused []string
	for i := range outcomes {
		if errors.Is(s.check(w, outcomes[i].Err, instead), ErrRefused) {
			refused, outcomes[i].Err = append(refused, keys[i]), nil
		}
	}
	left, err = failures(keys, outcomes)
	more, failed := s.Invalidate(ctx, refused...)
	return append(left, more...), cmp.Or(failed, err)
}

// Invalidate deletes the entries at keys and their leases, so that no load that
// began before can be stored. The keys in left may still have their entry.
func (s *Store) Invalidate(ctx context.Context, keys ...string) (left []string, err error) {
	return failures(keys, s.write(ctx, keys, func(i int, _ bool) []redis.Cmder {
		return []redis.Cmder{redis.NewCmd(ctx, s.unlink(keys[i])...)}
	}))
}

// write deletes the lease of each of keys and changes its entry by what change returns, in
// one round trip. The lease goes first: from then on no older load can be stored, and what
// a newer one stores before the change has come is no harm to lose. A command has one key,
// since a cluster that moves a slot refuses commands of two (TRYAGAIN).
func (s *Store) write(ctx context.Context, keys []string, change cmdsFor) []Outcome {
	return s.run(ctx, s.redis.Force, len(keys), func(i int, again bool) []redis.Cmder {
		s.placed.forget(keys[i])
		if !Protects(keys[i]) {
			return change(i, again)
		}
		return append([]redis.Cmder{newAhead(ctx, s.unlink(s.Key(keys[i])))}, change(i, again)...)
	})
}

// failures returns the keys of the outcomes that failed, and the last of their errors.
func failures(keys []string, outcomes []Outcome) (left []string, err error) {
	for i, o := range outcomes {
		if o.Err != nil {
			left, err = append(left, keys[i]), o.Err
		}
	}
	return left, err
}

// millis is d in whole milliseconds, at least one if it is anything at all: Redis
// takes no smaller TTL, and zero would mean for ever.
func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(1, d.Milliseconds())
}
