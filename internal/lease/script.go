package lease

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
)

// store ends the scripts that store an entry and give its lease back.
const store = `
if ARGV[3] == '0' then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[1])
return 1`

// The scripts. Only those of fill, put and drop have two keys, the lease and the entry: they have
// to look at the one and change the other at once.
var (
	fill = lua.New(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end -- the lease is lost` + store)
	// put deletes what is there if it may not store: that can be older than the Set.
	put = lua.New(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  redis.call('DEL', KEYS[2])
  return 0
end` + store)
	renew = lua.New(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if type(redis.pcall('PEXPIRE', KEYS[1], ARGV[2])) == 'table' then -- refused
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1`)
	// release gives back what another attempt of the load got as well, though that is not the
	// lease of its fill.
	release = lua.New(`
local holder = redis.call('GET', KEYS[1])
if not holder or string.match(holder, '^[^.]*') ~= string.match(ARGV[1], '^[^.]*') then return 0 end
redis.call('DEL', KEYS[1])
return holder == ARGV[1] and 1 or 0`)
	drop = lua.New(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[2])`)
	// expire compares times as numbers, which hold 48 bits exactly: the order of
	// strings in Lua depends on the server's locale.
	expire = lua.New(`
local old = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[2] + 5)
if type(old) == 'table' and not string.find(old.err, 'WRONGTYPE', 1, true) then return old end
local function begins(magic) return type(old) == 'string' and string.sub(old, 1, #magic) == magic end
if not (begins(ARGV[1]) or begins(ARGV[5])) or #old < ARGV[2] + 6 then
  return redis.call('DEL', KEYS[1]) + 1
end
local function number(s, at)
  local n = 0
  for i = at, at + 5 do n = n * 256 + string.byte(s, i) end
  return n
end
if number(old, ARGV[2] + 1) > number(ARGV[3], 1) then
  redis.call('SETRANGE', KEYS[1], ARGV[2], ARGV[3])
end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1`)
)

// call returns the command that runs sc: see words.
func (s *Store) call(ctx context.Context, forgotten bool, sc lua.Script, keys []string, args ...any) []redis.Cmder {
	return []redis.Cmder{redis.NewCmd(ctx, s.words(forgotten, sc, keys, args...)...)}
}

// words returns the words of the command that runs sc, or what stands for it in a Store
// that is FailoverSafe: by its hash if Redis was sent its text before, and has not forgotten it.
func (s *Store) words(forgotten bool, sc lua.Script, keys []string, args ...any) []any {
	if s.config.FailoverSafe {
		if safe, other := safeVersions[sc]; other {
			sc = safe
		}
	}
	return s.scriptsSent.Words(sc, forgotten || !s.hashes.open(), keys, args...)
}

// drop returns the command that deletes the entry of e while its lease is held: so a value that
// was set meanwhile, or filled by a later load, stays.
func (s *Store) drop(ctx context.Context, again bool, e *Settlement) []redis.Cmder {
	if !e.Drop {
		return nil
	}
	return s.call(ctx, again, drop, []string{s.Key(e.Key), e.Key}, e.Token)
}
