package lease

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
)

// The write lease of an entry K says that the database is being written to: whoever loads K meanwhile
// must not store it. It is a key of its own, beside the fill lease, so that an Invalidate by somebody
// else, which deletes that one, does not end it: the sorted set of the writes under way, each by its
// token, with the time on Redis's clock at which it is over in any case. An empty set is no key.
//
// BeginWrite sets it first, and then deletes the fill lease: so a lease that is held after that was
// asked for together with the write lease, and its holder knows.

// writingKey returns the key of the write lease of the entry at key.
func (s *Store) writingKey(key string) string { return s.config.Prefix + "{" + key + "}:writing" }

// beginWrite adds a write, and removes those that were not ended in their time: their process has
// died, and others would keep the key for as long as they go on.
var beginWrite = lua.New(`
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
if left < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1`)

// BeginWrite puts write leases of this token on keys for ttl, and invalidates their entries, in one
// round trip. The keys in left may still have their entry, or have no write lease. Where Redis refuses
// the script, they are invalidated, and have none.
func (s *Store) BeginWrite(
	ctx context.Context, token string, ttl time.Duration, keys ...string,
) (left []string, err error) {
	if !s.begins() {
		return s.Invalidate(ctx, keys...)
	}
	outcomes := s.run(ctx, s.redis.Force, len(keys), func(i int, again bool) []redis.Cmder {
		s.placed.forget(keys[i])
		begin := newAhead(ctx, s.words(again, beginWrite, []string{s.writingKey(keys[i])}, token, millis(ttl)))
		return []redis.Cmder{begin, newAhead(ctx, s.unlink(s.Key(keys[i]))), redis.NewCmd(ctx, s.unlink(keys[i])...)}
	})
	for i := range outcomes {
		o := &outcomes[i]
		o.Err = s.check(&s.writes, o.Err, "Update invalidates, and does not outlive a crash")
		if errors.Is(o.Err, ErrRefused) {
			o.Err = nil
		}
	}
	return failures(keys, outcomes)
}

// begins reports whether Redis takes what begins a write.
func (s *Store) begins() bool { return s.scripts.open() && s.writes.open() }

// EndWrite invalidates keys and takes the write leases of token from them, in one round trip. The key
// can be stored again when the last write has ended. The keys in left may still have an entry that is
// older than the write, if their write lease was lost.
func (s *Store) EndWrite(ctx context.Context, token string, keys ...string) (left []string, err error) {
	begun := s.begins()
	return failures(keys, s.write(ctx, keys, func(i int, _ bool) []redis.Cmder {
		cmds := []redis.Cmder{redis.NewCmd(ctx, s.unlink(keys[i])...)}
		if begun {
			cmds = append(cmds, redis.NewCmd(ctx, "zrem", s.writingKey(keys[i]), token))
		}
		return cmds
	}))
}
