package lease

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
)

// maxPlaced is how many keys a Store remembers to have stored. Behind a proxy that places keys by
// hash, on n servers, all of them are on the server of their lease once in n^maxPlaced times.
const maxPlaced = 16

// placed remembers the first keys that were stored, and until when each is to be there.
type placed struct {
	n     atomic.Int32
	until sync.Map // of time.Time, by key
}

// add remembers that key was stored for ttl; zero: until it is deleted.
func (p *placed) add(key string, ttl time.Duration) {
	if p.n.Load() >= maxPlaced || !Protects(key) || p.n.Add(1) > maxPlaced {
		return
	}
	if ttl == 0 {
		ttl = time.Hour
	}
	p.until.Store(key, time.Now().Add(ttl))
}

// forget says that key was deleted, or is about to be.
func (p *placed) forget(key string) {
	if p.n.Load() > 0 {
		p.until.Delete(key)
	}
}

// Misses reports whether key, which a GET has just not found, is one that this Store has stored and
// not deleted. It reports so once.
func (s *Store) Misses(key string) bool {
	if s.placed.n.Load() == 0 {
		return false
	}
	until, ok := s.placed.until.LoadAndDelete(key)
	return ok && time.Now().Before(until.(time.Time))
}

var findByLease = lua.New(`return redis.call('GETRANGE', KEYS[2], 0, 0)`)

// IsSplit reports whether a script finds the entry at key, and a command before it and one after
// it do not: then a proxy has sent the script to the server of the lease, and them to another one.
func (s *Store) IsSplit(ctx context.Context, key string) bool {
	script := redis.NewStringCmd(ctx, "eval", findByLease.Source, 2, s.Key(key), key)
	before, after := redis.NewStringCmd(ctx, "getrange", key, 0, 0), redis.NewStringCmd(ctx, "getrange", key, 0, 0)
	if s.redis.Do(ctx, before, script, after) != nil {
		return false
	}
	missing := func(cmd *redis.StringCmd) bool { return cmd.Err() == nil && cmd.Val() == "" }
	return script.Err() == nil && script.Val() != "" && missing(before) && missing(after)
}
