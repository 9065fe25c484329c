package readthrough

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/local"
	"github.com/readthrough-go/readthrough/internal/redisurl"
	"github.com/readthrough-go/readthrough/internal/retry"
)

// Open returns a pooled client of the Redis that url names, with limits that suit a cache: they and
// all of url are described in docs/redis.md, "Client limits set by Open". It does not dial, so a
// service starts while Redis is down. The caller closes the client.
//
//	redis://user:password@host:6379/0                         one server; rediss:// with TLS
//	unix://user:password@/path/to/redis.sock?db=0             one server, by its socket
//	redis-cluster://user:password@h1:6379,h2,h3               a cluster; rediss-cluster:// with TLS
//	redis-sentinel://user:password@h1:26379,h2/0?master=name  the master that Sentinel names
//
// The options of go-redis's URLs work in the query and override the limits, but reads from replicas
// are refused. An error says what is wrong with url; it repeats the names of options, and nothing
// else of url, so no password.
func Open(url string) (redis.UniversalClient, error) {
	client, err := redisurl.Open(url)
	if err != nil {
		return nil, fmt.Errorf("readthrough: open: %w", err)
	}
	return client, nil
}

// Default returns the client that the whole process shares. The first call opens it as [Open] does,
// from $REDIS_URL, or from redis://localhost:6379 if that is empty. An error of Open is returned
// and not kept: the next call tries again. Only [CloseDefault] should close the client.
func Default() (redis.UniversalClient, error) {
	defaultClient.Lock()
	defer defaultClient.Unlock()
	if defaultClient.client != nil {
		return defaultClient.client, nil
	}
	client, err := Open(cmp.Or(os.Getenv("REDIS_URL"), "redis://localhost:6379"))
	if err != nil {
		return nil, fmt.Errorf("%w (the URL is $REDIS_URL)", err)
	}
	defaultClient.client = client
	return client, nil
}

// CloseDefault closes the client of [Default], if there is one, and returns the error of its Close.
// A later Default opens anew.
func CloseDefault() error {
	defaultClient.Lock()
	client := defaultClient.client
	defaultClient.client = nil
	defaultClient.Unlock() // before Close, so that no Default waits for it
	if client == nil {
		return nil
	}
	if err := client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) { // ErrClosed: its user closed it
		return fmt.Errorf("readthrough: close the default client: %w", err)
	}
	return nil
}

// defaultClient holds the client of Default; nil until the first call.
var defaultClient struct {
	sync.Mutex
	client redis.UniversalClient
}

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
	c.leases = lease.NewStore(discard{}, lease.Config{})
	c.tier = local.New(local.Config{}) // which is never used
	c.retries = retry.New(c.leases.Invalidate, c.work.Go)
	return c
}

// disabled reports whether the Cache has no Redis.
func (c *Cache) disabled() bool { return c.mux == nil }

// discard answers the commands of writes as if Redis had carried them out. There is nothing that they
// could change: no entry is ever kept, and no load takes a lease.
type discard struct{}

// Do answers like Force.
func (d discard) Do(ctx context.Context, cmds ...redis.Cmder) error { return d.Force(ctx, cmds...) }

// Force answers each script with 1, and leaves other commands without an error.
func (discard) Force(_ context.Context, cmds ...redis.Cmder) error {
	for _, cmd := range cmds {
		if script, ok := cmd.(*redis.Cmd); ok {
			script.SetVal(int64(1))
		}
	}
	return nil
}
