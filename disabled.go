package readthrough

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/mux"
	"github.com/readthrough-go/readthrough/internal/retry"
)

// Disabled returns a Cache that keeps nothing, so that each read loads: to switch caching off in a
// tool or a test, or to find out whether the cache is at fault. It needs no Redis, starts nothing in
// the background, and need not be closed.
//
// Wrappers are made and used as on any other Cache, with the same options and errors: key checks, load
// timeout, WithLoadLimit, batch loader, panics. Only callers who come before the load of their key has
// begun share it. Peek and the function Get find nothing (ErrMiss), writes succeed, and Stats counts
// misses and loads.
func Disabled() *Cache {
	c := unconnected(defaultSettings())
	c.leases = lease.NewStore(discard{c})
	c.retries = retry.New(c.leases.Invalidate, c.spawn)
	return c
}

// disabled reports whether the Cache has no Redis.
func (c *Cache) disabled() bool { return c.mux == nil }

// discard answers the commands of writes as if Redis had carried them out. There is nothing that they
// could change: no entry is ever kept, and no load takes a lease.
type discard struct{ cache *Cache }

// Do answers like Force.
func (d discard) Do(ctx context.Context, cmds ...redis.Cmder) error { return d.Force(ctx, cmds...) }

// Force answers each script with 1, and leaves other commands without an error.
func (d discard) Force(_ context.Context, cmds ...redis.Cmder) error {
	d.cache.mu.Lock()
	defer d.cache.mu.Unlock()
	if d.cache.closed {
		return mux.ErrClosed
	}
	for _, cmd := range cmds {
		if script, ok := cmd.(*redis.Cmd); ok {
			script.SetVal(int64(1))
		}
	}
	return nil
}
