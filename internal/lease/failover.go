package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// A failover, or a restart from a snapshot, can bring back an entry or a lease that was deleted.
// So a FailoverSafe Store has each stamped with the replication ID of the primary that took it,
// and no other primary gives it out. Redis makes a new ID whenever a server is promoted or starts
// as a primary (its documentation of replication, "Replication ID explained").
//
// Scripts ask for the ID where it is used, in one atomic step on one server. What a client had
// asked for before may be another server's by then: a connection was replaced, a slot has moved, a
// server was demoted and promoted again.

// stamping begins the scripts of a FailoverSafe Store. A replica answers as it does to writes, so
// that clients which follow the primary do that.
var stamping = fmt.Sprintf(`
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then return redis.error_reply('READONLY this is a replica') end
local id = string.match(info, 'master_replid:(%%x+)')
if not id or #id ~= %[1]d then
  return redis.error_reply('ERR failover safety is not supported: INFO replication has no master_replid')
end
local function stamped(entry)
  return '%[2]s' .. string.sub(entry, %[3]d + 1, %[4]d) .. id .. string.sub(entry, %[4]d + 1)
end
`, entry.PrimarySize, luaEscaped(entry.StampedMagic), len(entry.Magic), entry.PrimaryOffset)

// stampedToken has a script compare tokens with the stamp behind them. They begin with the load all
// the same.
const stampedToken = "ARGV[1] = ARGV[1] .. '" + endOfLoad + "' .. id\n"

// luaEscaped returns s as it is written between quotes in Lua.
func luaEscaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\%03d`, c)
	}
	return b.String()
}

var (
	// safeVersions are the scripts that stand for others in a FailoverSafe Store.
	safeVersions = map[lua.Script]lua.Script{
		fill:    lua.New(stamping + stampedToken + "ARGV[2] = stamped(ARGV[2])" + fill.Source),
		put:     lua.New(stamping + stampedToken + "ARGV[2] = stamped(ARGV[2])" + put.Source),
		renew:   lua.New(stamping + stampedToken + renew.Source),
		release: lua.New(stamping + stampedToken + release.Source),
		drop:    lua.New(stamping + stampedToken + drop.Source),
	}
	safeSet = lua.New(stamping + `
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], stamped(ARGV[1]))
else
  redis.call('SET', KEYS[1], stamped(ARGV[1]), 'PX', ARGV[2])
end
return 1`)
	safeGet = lua.New(stamping + fmt.Sprintf(`
local entry, at = redis.pcall('GET', KEYS[1]), %[1]d
if type(entry) == 'string' and string.sub(entry, at + 1, at + #id) == id and string.sub(entry, 1, %[2]d) == '%[3]s' then
  return entry
end
return false`, entry.PrimaryOffset, len(entry.StampedMagic), luaEscaped(entry.StampedMagic)))
	// safeAcquire takes a lease that another primary gave for none: its holder cannot fill.
	safeAcquire = lua.New(stamping + `
local holder = redis.pcall('GET', KEYS[1])
if ARGV[3] == '1' or type(holder) ~= 'string' or string.sub(holder, -#id) ~= id then
  holder = ARGV[1] .. '.' .. id
  redis.call('SET', KEYS[1], holder, 'PX', ARGV[2])
end
return {string.sub(holder, 1, -#id - 2), redis.pcall('GET', KEYS[2]), redis.pcall('GET', KEYS[3]) and 1 or 0}`)
)

// Found is an entry, or why there is none.
type Found struct {
	Entry []byte
	Err   error // redis.Nil: there is none that may be served
}

// Get returns the entries at keys that this Store may serve if it is FailoverSafe; else a GET
// does. It sends its commands, which are of the type of a GET, by do.
func (s *Store) Get(ctx context.Context, do func(context.Context, ...redis.Cmder) error, keys ...string) []Found {
	if !s.scripts.open() {
		return slices.Repeat([]Found{{Err: redis.Nil}}, len(keys))
	}
	found, gets := make([]Found, len(keys)), make([]*redis.StringCmd, len(keys))
	outcomes := s.run(ctx, do, len(keys), func(i int, again bool) []redis.Cmder {
		gets[i] = redis.NewStringCmd(ctx, s.words(again, safeGet, keys[i:i+1])...)
		return []redis.Cmder{gets[i]}
	})
	for i := range found {
		f := &found[i]
		switch f.Err = s.check(&s.scripts, outcomes[i].Err, s.withoutScripts()); {
		case errors.Is(f.Err, ErrRefused):
			f.Err = redis.Nil
		case f.Err == nil:
			f.Entry, f.Err = gets[i].Bytes()
		}
	}
	return found
}

// acquireSafely is Acquire of a FailoverSafe Store. Lease and entry are asked for by commands of
// their own, as they are without: a proxy that splits them hides what was stored, and brings back
// nothing that was invalidated.
func (s *Store) acquireSafely(ctx context.Context, do do, requests []Request) []Acquired {
	answers, asked := make([]Acquired, len(requests)), make([]acquireCmds, len(requests))
	outcomes := s.run(ctx, do, len(requests), func(i int, again bool) []redis.Cmder {
		r, steal := requests[i], 0
		if r.Steal {
			steal = 1
		}
		set := &setLease{token: attempts{of: r.Token}, release: s.releaser(ctx, r)}
		keys := []string{s.Key(r.Key), s.failedKey(r.Key), s.writingKey(r.Key)}
		set.Cmd = redis.NewCmd(ctx, s.words(again, safeAcquire, keys, &set.token, millis(r.TTL), steal)...)
		asked[i] = acquireCmds{Request: r, set: set}
		if !r.Steal {
			asked[i].entry = redis.NewStringCmd(ctx, s.words(again, safeGet, []string{r.Key})...)
		}
		return asked[i].cmds()
	})
	for i := range answers {
		err := s.check(&s.scripts, outcomes[i].Err, s.withoutScripts())
		if err != nil && !errors.Is(err, redis.Nil) { // there is no entry
			answers[i].Err = err
			asked[i].set.giveUp()
			continue
		}
		answers[i] = asked[i].answerSafely()
	}
	return answers
}

var errReply = errors.New("redis answered a script with what it does not return")

func (a *acquireCmds) answerSafely() (r Acquired) {
	values, err := a.set.Slice()
	if err != nil || len(values) != 3 {
		return Acquired{Err: cmp.Or(err, errReply)}
	}
	holder, _ := values[0].(string)
	r.Written = values[2] != int64(0)
	if r.Held = sameLoad(holder, a.Token); r.Held {
		r.Token = holder
	} else {
		failed, _ := values[1].(string)
		r.Holder, r.Failed = holder, a.WaitsFor != "" && sameLoad(failed, a.WaitsFor)
	}
	if a.entry != nil && a.entry.Err() == nil {
		r.Found = true
		r.Entry, _ = a.entry.Bytes()
	}
	return r
}
