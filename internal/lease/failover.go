package lease

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// A failover, or a restart from a snapshot, can bring back an entry or a lease that was deleted. So
// a FailoverSafe Store has each stamped with the replication ID of the primary that took it, and no
// other primary gives it out. Redis makes a new ID whenever a server is promoted or starts as a
// primary (its documentation of replication, "Replication ID explained").
//
// Scripts ask for the ID where it is used, in one atomic step on one server. What a client had asked
// for before may be another server's by then: a connection was replaced, a slot has moved, a server
// was demoted and promoted again.

// stamping begins the scripts of a FailoverSafe Store. A replica answers as it does to writes, so
// that clients which follow the primary do that.
var stamping = fmt.Sprintf(`
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then return redis.error_reply('READONLY this is a replica') end
local id = string.match(info, 'master_replid:(%%x+)')
if not id or #id ~= %[1]d then return redis.error_reply('ERR INFO replication has no master_replid') end
local function stamped(entry)
  return '%[2]s' .. string.sub(entry, %[3]d + 1, %[4]d) .. id .. string.sub(entry, %[4]d + 1)
end
local function unlessForeign(entry)
  local at = %[5]d - #id
  if type(entry) == 'string' and string.sub(entry, at + 1, at + #id) == id and string.sub(entry, 1, %[6]d) == '%[2]s' then
    return entry
  end
  return false
end
`, entry.PrimarySize, luaEscaped(entry.StampedMagic), len(entry.Magic), entry.HeaderSize, entry.StampedHeaderSize, len(entry.StampedMagic))

// luaEscaped returns s as it is written between quotes in Lua.
func luaEscaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\%03d`, c)
	}
	return b.String()
}

// The scripts of a FailoverSafe Store. Those that others have, too, have stamped what they are given.
var (
	safeVersion = map[script]script{
		fill:    newScript(stamping + "ARGV[1], ARGV[2] = ARGV[1] .. id, stamped(ARGV[2])" + fill.source),
		renew:   newScript(stamping + "ARGV[1] = ARGV[1] .. id" + renew.source),
		release: newScript(stamping + "ARGV[1] = ARGV[1] .. id" + release.source),
		set:     newScript(stamping + "ARGV[1] = stamped(ARGV[1])" + set.source),
	}
	safeRead = newScript(stamping + `return unlessForeign(redis.pcall('GET', KEYS[1]))`)
	// safeAcquire takes a lease that another primary gave for none: its holder cannot fill.
	safeAcquire = newScript(stamping + `
local holder = redis.pcall('GET', KEYS[1])
if ARGV[3] == '1' or type(holder) ~= 'string' or string.sub(holder, -#id) ~= id then
  holder = ARGV[1] .. id
  redis.call('SET', KEYS[1], holder, 'PX', ARGV[2])
end
return {string.sub(holder, 1, -#id - 1), ARGV[3] == '0' and unlessForeign(redis.pcall('GET', KEYS[2]))}`)
)

// version returns the script that does in this Store what sc does.
func (s *Store) version(sc script) script {
	if s.FailoverSafe {
		return safeVersion[sc]
	}
	return sc
}

// NewGet returns the command that asks a FailoverSafe Store for the entry at key, for Get to send. Its
// error is redis.Nil if there is none that may be served.
func (s *Store) NewGet(ctx context.Context, key string) *redis.StringCmd {
	return redis.NewStringCmd(ctx, "evalsha", safeRead.sha1, 1, key)
}

// Get sends commands of NewGet. Its error means what that of a Doer does.
func (s *Store) Get(ctx context.Context, gets ...redis.Cmder) error {
	return s.sendScript(ctx, safeRead, gets)
}

// acquireSafely is Acquire of a FailoverSafe Store.
func (s *Store) acquireSafely(ctx context.Context, requests []Request) []Acquired {
	answers, asked := make([]Acquired, len(requests)), make([]*redis.SliceCmd, len(requests))
	do := func(ctx context.Context, cmds ...redis.Cmder) error { return s.sendScript(ctx, safeAcquire, cmds) }
	send(ctx, do, len(requests), func(i int) []redis.Cmder {
		r, steal := requests[i], 0
		if r.Steal {
			steal = 1
		}
		asked[i] = redis.NewSliceCmd(ctx, "evalsha", safeAcquire.sha1, 2, Key(r.Key), r.Key, r.Token, millis(r.TTL), steal)
		return []redis.Cmder{asked[i]}
	}, func(i int, err error) {
		answer := &answers[i]
		if answer.Err = err; err != nil {
			return
		}
		var values []any
		if values, answer.Err = asked[i].Result(); answer.Err != nil {
			return
		}
		stored, found := values[1].(string)
		*answer = Acquired{Held: values[0] == requests[i].Token, Found: found}
		if found {
			answer.Entry = []byte(stored)
		}
	})
	return answers
}

// sendScript sends commands that run sc by its hash, and by its text those to which Redis answers that
// it does not know it. It does so at once for the first of all.
func (s *Store) sendScript(ctx context.Context, sc script, cmds []redis.Cmder) error {
	if _, known := s.taught.LoadOrStore(sc.sha1, true); !known {
		teach(sc, cmds[0])
	}
	err := s.redis.Do(ctx, cmds...)
	if err != nil {
		return err
	}
	var unknown []redis.Cmder
	for _, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			teach(sc, cmd)
			cmd.SetErr(nil)
			unknown = append(unknown, cmd)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return s.redis.Do(ctx, unknown...)
}

// teach has cmd send the text of sc.
func teach(sc script, cmd redis.Cmder) {
	args := cmd.Args()
	args[0], args[1] = "eval", sc.source
}
