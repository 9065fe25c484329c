package local

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
)

// names are the keys and channels of the members of one prefix: all in one hash slot, and beginning
// with the prefix, for access rules that go by it.
type names struct{ state, table, fences, acks string }

func namesOf(prefix string) names {
	tag := "{local}"
	if prefix != "" {
		tag = prefix + ":{" + prefix + ":local}"
	}
	return names{tag + ":state", tag + ":table", tag + ":f", tag + ":a"}
}

// of returns the channel of one member.
func (n *names) of(member string) string { return n.fences + ":" + member }

func newScript(body string) lua.Script { return lua.New(prelude + body) }

// prelude is the beginning of all scripts. KEYS are state (gen, seq, young, T) and table (member ->
// the fence that it has acknowledged; one that is being removed begins with a !, and #gen is there
// so that the loss of either key shows). Numbers are below 2^53, but Lua would write them with an
// exponent.
var prelude = `
local state, t = KEYS[1], KEYS[2]
local function text(n) return string.format('%.0f', n) end
local function alive()
  local gen = redis.call('HGET', state, 'gen')
  return gen and redis.call('ZSCORE', t, '#' .. gen) and gen
end
local function create(gen, lease)
  local now = redis.call('TIME')
  redis.call('DEL', state, t)
  redis.call('HSET', state, 'gen', gen, 'seq', text(now[1] * 1000000 + now[2]), 'young', '1', 'T', lease)
  redis.call('ZADD', t, '+inf', '#' .. gen)
  return gen
end
local function least()
  local first = redis.call('ZRANGE', t, 0, 0, 'WITHSCORES')
  if string.sub(first[1], 1, 1) == '#' then return tonumber(redis.call('HGET', state, 'seq')) end
  return tonumber(first[2])
end
local function tell(before, channel, gen)
  local now = least()
  if now > before then redis.call('PUBLISH', channel, 'A ' .. text(now) .. ' ' .. gen) end
end
`

var (
	// join: member, new gen, lease, channel of member, channel of acks, old members...
	join = newScript(`
local gen = alive()
if gen and redis.call('HGET', state, 'T') ~= ARGV[3] then
  if redis.call('ZCARD', t) > 1 then return {'other', redis.call('HGET', state, 'T')} end
  gen = false
end
gen = gen or create(ARGV[2], ARGV[3])
local before = least()
for i = 6, #ARGV do redis.call('ZREM', t, ARGV[i], '!' .. ARGV[i]) end
local seq = redis.call('HGET', state, 'seq')
redis.call('ZADD', t, seq, ARGV[1])
redis.call('PUBLISH', ARGV[4], 'J ' .. seq)
tell(before, ARGV[5], gen)
return {gen, redis.call('HGET', state, 'young') or ''}`)

	// renew: member, time sent, channel of member. Publishing needs no room in a full Redis.
	renew = newScript(`
if not alive() or not redis.call('ZSCORE', t, ARGV[1]) then return 0 end
redis.call('PUBLISH', ARGV[3], 'E ' .. ARGV[2] .. ' ' .. redis.call('HGET', state, 'seq'))
return 1`)

	// fence: member, new gen, lease, channel of fences, whether to acknowledge, keys.
	fence = newScript(`
local gen = alive() or create(ARGV[2], ARGV[3])
local prev = redis.call('HGET', state, 'seq')
local seq = text(redis.call('HINCRBY', state, 'seq', 1))
redis.call('PUBLISH', ARGV[4], 'F ' .. prev .. ' ' .. seq .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
local others = redis.call('ZCARD', t) - 1
if redis.call('ZSCORE', t, ARGV[1]) then others = others - 1 end
local rest = redis.call('HMGET', state, 'young', 'T')
return {seq, gen, rest[1] or '', rest[2], text(others)}`)

	// ack: member, number, channel of acks.
	ack = newScript(`
local gen = alive()
if not gen or not redis.call('ZSCORE', t, ARGV[1]) then return 0 end
local before = least()
redis.call('ZADD', t, ARGV[2], ARGV[1])
tell(before, ARGV[3], gen)
return 1`)

	// mark: gen, number. Members that have not acknowledged it can renew and acknowledge nothing
	// any more, and still count.
	mark = newScript(`
if alive() ~= ARGV[1] then return {'0'} end
local late = {text(least())}
for _, m in ipairs(redis.call('ZRANGEBYSCORE', t, '-inf', '(' .. ARGV[2])) do
  if string.sub(m, 1, 1) ~= '!' then
    redis.call('ZADD', t, redis.call('ZSCORE', t, m), '!' .. m)
    redis.call('ZREM', t, m)
    m = '!' .. m
  end
  late[#late + 1] = m
end
return late`)

	// remove: gen, channel of acks, members... They leave, or were marked one lease ago; "young"
	// stands for the table's youth.
	remove = newScript(`
if alive() ~= ARGV[1] and ARGV[1] ~= '' then return 0 end
local gen = alive()
if not gen then return 0 end
local before = least()
for i = 3, #ARGV do
  if ARGV[i] == 'young' then redis.call('HDEL', state, 'young') else redis.call('ZREM', t, ARGV[i], '!' .. ARGV[i]) end
end
tell(before, ARGV[2], gen)
return 1`)
)

// run runs sc, with its keys, and returns what it answered. It goes by its hash if Redis was sent
// its text before, and has not forgotten it.
func (t *Tier) run(ctx context.Context, sc lua.Script, args ...any) (any, error) {
	replies, err := t.runAll(ctx, sc, [][]any{args})
	if err != nil {
		return nil, err
	}
	return replies[0], nil
}

// runAll runs sc once for each of calls, in one round trip if it can.
func (t *Tier) runAll(ctx context.Context, sc lua.Script, calls [][]any) ([]any, error) {
	cmds := make([]redis.Cmder, len(calls))
	for i, args := range calls {
		cmds[i] = t.command(ctx, sc, false, args)
	}
	if err := t.config.Redis.Force(ctx, cmds...); err != nil {
		return nil, err
	}
	replies := make([]any, len(calls))
	for i, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			cmd = t.command(ctx, sc, true, calls[i])
			if err := t.config.Redis.Force(ctx, cmd); err != nil {
				return nil, err
			}
		}
		reply, err := cmd.(*redis.Cmd).Result()
		if err != nil {
			return nil, err
		}
		replies[i] = reply
	}
	return replies, nil
}

func (t *Tier) command(ctx context.Context, sc lua.Script, forgotten bool, args []any) redis.Cmder {
	return redis.NewCmd(ctx, t.scriptsSent.Words(sc, forgotten, []string{t.names.state, t.names.table}, args...)...)
}

// listOf returns the strings of a script's answer.
func listOf(reply any) []string {
	list, _ := reply.([]any)
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = fmt.Sprint(item)
	}
	return texts
}

// isRefusal reports whether err is the reply of a Redis that will not do otherwise next time.
func isRefusal(err error) bool {
	if _, replied := err.(redis.Error); !replied || err == redis.Nil { //nolint:errorlint // replies come as they are
		return false
	}
	return lua.IsRefusal(err.Error(), "noperm", "permission", "executing the script can't")
}
