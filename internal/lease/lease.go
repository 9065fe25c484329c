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
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Doer sends commands to Redis in one round trip. When the error is nil, each
// command has its own result; else the commands must not be looked at.
type Doer interface {
	Do(ctx context.Context, cmds ...redis.Cmder) error
	Force(ctx context.Context, cmds ...redis.Cmder) error
}

// Store is the leases, and the entries that they protect, in one Redis.
type Store struct{ redis Doer }

// NewStore returns the leases in the Redis that do speaks to.
func NewStore(do Doer) *Store { return &Store{do} }

// Key is the key of the lease of the entry at key.
func Key(key string) string { return "{" + key + "}:lease" }

// Protects reports whether the entry at key can have a lease. Braces in the key
// would move the lease to another slot; no wrapper makes such keys.
func Protects(key string) bool { return !strings.ContainsAny(key, "{}") }

// NewToken returns a token that nobody can guess and that no other lease has.
func NewToken() string { return rand.Text() }

// Acquired is the answer to an attempt to get a lease.
type Acquired struct {
	Held  bool   // the lease is now the caller's
	Found bool   // the entry exists,
	Entry []byte // and this is it
}

type acquire struct {
	set           *redis.Cmd
	entry, holder *redis.StringCmd
	token         string
}

func newAcquire(ctx context.Context, key, token string, ttl time.Duration) acquire {
	lease := Key(key)
	return acquire{
		set:    redis.NewCmd(ctx, "set", lease, token, "nx", "px", millis(ttl)),
		entry:  redis.NewStringCmd(ctx, "get", key),
		holder: redis.NewStringCmd(ctx, "get", lease),
		token:  token,
	}
}

func (a *acquire) cmds() []redis.Cmder { return []redis.Cmder{a.set, a.entry, a.holder} }

func (a *acquire) result() (Acquired, error) {
	if err := a.set.Err(); err != nil && !errors.Is(err, redis.Nil) {
		return Acquired{}, err
	}
	var r Acquired
	// A client that lost the answer sends the commands again, and then SET NX
	// fails for the lease that the first attempt got. So the holder decides too.
	r.Held = a.set.Err() == nil || a.holder.Val() == a.token
	// An entry that cannot be read (WRONGTYPE) is none: the fill overwrites it.
	if b, err := a.entry.Bytes(); err == nil {
		r.Found, r.Entry = true, b
	}
	return r, nil
}

// Acquire asks for the lease of key, and for the entry, in one round trip.
func (s *Store) Acquire(ctx context.Context, key, token string, ttl time.Duration) (Acquired, error) {
	a := newAcquire(ctx, key, token, ttl)
	if err := s.redis.Do(ctx, a.cmds()...); err != nil {
		return Acquired{}, err
	}
	return a.result()
}

// Steal takes the lease of key whoever holds it: the holder's fill will be refused.
func (s *Store) Steal(ctx context.Context, key, token string, ttl time.Duration) error {
	return put(ctx, s.redis.Do, Key(key), token, ttl)
}

// script is a Lua script and the name that Redis knows it by.
type script struct{ source, sha1 string }

func newScript(source string) script {
	return script{source, redis.NewScript(source).Hash()}
}

// The scripts. KEYS[1] is the lease everywhere, so that one rule routes them all.
var (
	fill = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[1])
return 1`)
	renew = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`)
	release = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`)
	set = newScript(`
if ARGV[2] == '0' then
  redis.call('SET', KEYS[2], ARGV[1])
else
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
return redis.call('DEL', KEYS[1]) + 1`)
)

// Fill stores entry at key for ttl (zero: until it is deleted) if token still is
// the lease, and releases the lease. It reports whether it was.
func (s *Store) Fill(ctx context.Context, key, token string, entry []byte, ttl time.Duration) (bool, error) {
	return s.run(ctx, s.redis.Do, fill, []string{Key(key), key}, token, entry, millis(ttl))
}

// Renew makes the lease last for ttl from now, if token still is the lease.
func (s *Store) Renew(ctx context.Context, key, token string, ttl time.Duration) (bool, error) {
	return s.run(ctx, s.redis.Do, renew, []string{Key(key)}, token, millis(ttl))
}

// Release gives the lease back, if token still is the lease, and reports whether it was.
func (s *Store) Release(ctx context.Context, key, token string) (bool, error) {
	return s.run(ctx, s.redis.Do, release, []string{Key(key)}, token)
}

// Set stores entry at key for ttl (zero: until it is deleted) and deletes the
// lease: what was being loaded is older.
func (s *Store) Set(ctx context.Context, key string, entry []byte, ttl time.Duration) error {
	if !Protects(key) {
		return put(ctx, s.redis.Force, key, entry, ttl)
	}
	_, err := s.run(ctx, s.redis.Force, set, []string{Key(key), key}, entry, millis(ttl))
	return err
}

// Put is Set for those who do without leases: it leaves them alone.
func (s *Store) Put(ctx context.Context, key string, entry []byte, ttl time.Duration) error {
	return put(ctx, s.redis.Do, key, entry, ttl)
}

type do func(ctx context.Context, cmds ...redis.Cmder) error

// put sets key to value, for ttl if that is not zero.
func put(ctx context.Context, do do, key string, value any, ttl time.Duration) error {
	cmd := redis.NewStatusCmd(ctx, "set", key, value)
	if ttl > 0 {
		cmd = redis.NewStatusCmd(ctx, "set", key, value, "px", millis(ttl))
	}
	if err := do(ctx, cmd); err != nil {
		return err
	}
	return cmd.Err()
}

// run runs a script by its hash, and by its text where Redis does not know it yet.
func (s *Store) run(ctx context.Context, do do, script script, keys []string, args ...any) (bool, error) {
	cmd := scriptCmd(ctx, "evalsha", script.sha1, keys, args)
	if err := do(ctx, cmd); err != nil {
		return false, err
	}
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd = scriptCmd(ctx, "eval", script.source, keys, args)
		if err := do(ctx, cmd); err != nil {
			return false, err
		}
	}
	n, err := cmd.Int64()
	return n > 0, err
}

func scriptCmd(ctx context.Context, name, script string, keys []string, args []any) *redis.Cmd {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	return redis.NewCmd(ctx, append(all, args...)...)
}

// maxDeletes is how many keys one round trip deletes.
const maxDeletes = 200

// Invalidate deletes the entries at keys and their leases, so that no load that
// began before can be stored. The keys in left may still have their entry.
func (s *Store) Invalidate(ctx context.Context, keys ...string) (left []string, err error) {
	for start := 0; start < len(keys); start += maxDeletes {
		some := keys[start:min(start+maxDeletes, len(keys))]
		cmds := make([]redis.Cmder, len(some))
		for i, key := range some {
			if Protects(key) {
				cmds[i] = redis.NewIntCmd(ctx, "unlink", key, Key(key))
			} else {
				cmds[i] = redis.NewIntCmd(ctx, "unlink", key)
			}
		}
		if failed := s.redis.Force(ctx, cmds...); failed != nil {
			// Nothing is known of any of them; the rest would fail alike.
			return append(left, keys[start:]...), failed
		}
		for i, cmd := range cmds {
			if failed := cmd.Err(); failed != nil {
				left, err = append(left, some[i]), failed
			}
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

// KeysError names the keys of a call that may have failed for some of them.
func KeysError(keys []string, err error) error {
	const named = 10
	if len(keys) > named {
		return fmt.Errorf("%s and %d more: %w", strings.Join(keys[:named], ", "), len(keys)-named, err)
	}
	return fmt.Errorf("%s: %w", strings.Join(keys, ", "), err)
}
