package lease

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

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
	// set writes first: a Redis that is full refuses only the first write of a script.
	set = newScript(`
if ARGV[2] == '0' then
  redis.call('SET', KEYS[2], ARGV[1])
else
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
if KEYS[1] ~= KEYS[2] then redis.call('DEL', KEYS[1]) end
return 1`)
	// expire compares times as numbers, which hold 48 bits exactly: the order of
	// strings in Lua depends on the server's locale.
	expire = newScript(`
redis.call('DEL', KEYS[1])
local old = redis.pcall('GETRANGE', KEYS[2], 0, ARGV[2] + 5)
if type(old) ~= 'string' or #old < ARGV[2] + 6 or string.sub(old, 1, #ARGV[1]) ~= ARGV[1] then
  return redis.call('DEL', KEYS[2]) + 1
end
local function number(s, at)
  local n = 0
  for i = at, at + 5 do n = n * 256 + string.byte(s, i) end
  return n
end
if number(old, ARGV[2] + 1) > number(ARGV[3], 1) then
  redis.call('SETRANGE', KEYS[2], ARGV[2], ARGV[3])
end
local left = redis.call('PTTL', KEYS[2])
if left < 0 or left > tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return 1`)
)

// call is one run of a script.
type call struct {
	script script
	keys   []string
	args   []any
}

func (c *call) cmd(ctx context.Context, name, script string) *redis.Cmd {
	all := make([]any, 0, 3+len(c.keys)+len(c.args))
	all = append(all, name, script, len(c.keys))
	for _, key := range c.keys {
		all = append(all, key)
	}
	return redis.NewCmd(ctx, append(all, c.args...)...)
}

type do func(ctx context.Context, cmds ...redis.Cmder) error

// run runs a script for each of items, all in one round trip: by its text for the
// first, by its hash from then on. What Redis does not know all the same (a restart,
// another node of the cluster) is sent again, by its text.
func run[T any](ctx context.Context, s *Store, do do, items []T, callFor func(T) call) []Outcome {
	outcomes := make([]Outcome, 0, len(items))
	var err error
	for some := range slices.Chunk(items, maxKeys) {
		if err != nil { // the rest would fail alike
			outcomes = append(outcomes, slices.Repeat([]Outcome{{Err: err}}, len(some))...)
			continue
		}
		calls := make([]call, len(some))
		for i, item := range some {
			calls[i] = callFor(item)
		}
		var ended []Outcome
		ended, err = s.runCalls(ctx, do, calls)
		outcomes = append(outcomes, ended...)
	}
	return outcomes
}

// runCalls is run for one round trip, whose error it returns as well.
func (s *Store) runCalls(ctx context.Context, do do, calls []call) ([]Outcome, error) {
	cmds := make([]redis.Cmder, len(calls))
	for i := range calls {
		if _, known := s.taught.LoadOrStore(calls[i].script.sha1, true); known {
			cmds[i] = calls[i].cmd(ctx, "evalsha", calls[i].script.sha1)
		} else {
			cmds[i] = calls[i].cmd(ctx, "eval", calls[i].script.source)
		}
	}
	err := do(ctx, cmds...)
	outcomes := make([]Outcome, len(calls))
	var unknown []int
	for i, cmd := range cmds {
		switch {
		case err != nil:
			outcomes[i] = Outcome{Err: err}
		case redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT"):
			unknown = append(unknown, i)
		default:
			outcomes[i] = outcomeOf(cmd)
		}
	}
	if len(unknown) == 0 {
		return outcomes, err
	}
	again := make([]redis.Cmder, len(unknown))
	for j, i := range unknown {
		again[j] = calls[i].cmd(ctx, "eval", calls[i].script.source)
	}
	err = do(ctx, again...)
	for j, i := range unknown {
		if err != nil {
			outcomes[i] = Outcome{Err: err}
		} else {
			outcomes[i] = outcomeOf(again[j])
		}
	}
	return outcomes, err
}

func outcomeOf(cmd redis.Cmder) Outcome {
	n, err := cmd.(*redis.Cmd).Int64()
	return Outcome{Kept: n > 0, Err: err}
}
