package readthrough

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/mux"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

var (
	// ErrMiss says that the cache holds no value for a key.
	ErrMiss = errors.New("readthrough: miss")
	// ErrClosed says that the Cache was closed.
	ErrClosed = errors.New("readthrough: cache is closed")
)

const (
	// maxKeys is how many keys of a call for many are dealt with at a time.
	maxKeys = 1000
	// closeTimeout is how long Close waits for what is under way.
	closeTimeout = 5 * time.Second
)

// Cache is one Redis client with what its wrappers share: settings, pipelines,
// breaker and statistics. It is safe for concurrent use.
type Cache struct {
	settings  cacheSettings
	mux       *mux.Mux
	leases    *lease.Store
	meter     *meter // what concerns no wrapper
	pending   pending
	refreshes chan struct{}

	closing context.Context // ends when Close begins: background work stops
	close   context.CancelFunc

	mu       sync.Mutex
	closed   bool
	work     sync.WaitGroup // every goroutine that the Cache and its wrappers start
	wrappers map[string]wrapped
}

// wrapped is what the Cache knows of a wrapper.
type wrapped struct {
	meter      *meter
	awaitFills func(ctx context.Context, key string)
}

// NewCache returns a Cache on client, which stays the caller's to close, after the
// Cache. It does not speak to Redis. The client must read from the primary, and
// without a cache of its own: else a value could be served after it was invalidated.
func NewCache(client redis.UniversalClient, opts ...CacheOption) (*Cache, error) {
	if err := checkClient(client); err != nil {
		return nil, fmt.Errorf("readthrough: NewCache: %w", err)
	}
	settings := defaultSettings()
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("readthrough: NewCache: an option is nil")
		}
		if err := opt.applyToCache(&settings); err != nil {
			return nil, fmt.Errorf("readthrough: NewCache: %w", err)
		}
	}
	c := &Cache{
		settings:  settings,
		meter:     &meter{observers: settings.observers},
		refreshes: make(chan struct{}, settings.maxRefreshes),
		wrappers:  make(map[string]wrapped),
	}
	c.closing, c.close = context.WithCancel(context.Background())
	c.mux = mux.New(client, mux.Config{
		Timeout:  settings.redisTimeout,
		Failures: settings.failures,
		OpenFor:  settings.openFor,
		OnState:  c.onBreaker,
	})
	c.leases = lease.NewStore(c.mux)
	return c, nil
}

// checkClient refuses clients that answer from elsewhere than the primary.
func checkClient(client redis.UniversalClient) error {
	errNil := errors.New("the client is nil")
	switch client := client.(type) {
	case nil:
		return errNil
	case *redis.Client:
		if client == nil {
			return errNil
		}
		o := client.Options()
		if o.ClientSideCache != nil || o.ClientSideCacheConfig != nil {
			return errors.New("the client has a client-side cache, which may serve what was invalidated")
		}
	case *redis.ClusterClient:
		if client == nil {
			return errNil
		}
		o := client.Options()
		if o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return errors.New("the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), which may still have what was invalidated")
		}
	}
	return nil
}

// register makes the name of a wrapper known. Names are unique in a Cache: two
// wrappers of one name would take each other's entries for their own.
func (c *Cache) register(name string, w wrapped) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	for other := range c.wrappers {
		if other == name {
			return fmt.Errorf("the Cache has a wrapper of the name %q already", other)
		}
		// "a" with the key "b:1" and "a:b" with the key "1" would be one entry.
		if strings.HasPrefix(other, name+":") || strings.HasPrefix(name, other+":") {
			return fmt.Errorf("the Cache has a wrapper of the name %q, whose keys could be those of %q", other, name)
		}
	}
	c.wrappers[name] = w
	return nil
}

// spawn runs f on a goroutine that Close waits for. It reports false, and does not
// run f, after Close.
func (c *Cache) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.work.Go(f)
	return true
}

// spawnOrRun runs f on a goroutine that wg waits for too; after Close on this one.
func (c *Cache) spawnOrRun(wg *sync.WaitGroup, f func()) {
	wg.Add(1)
	counted := func() {
		defer wg.Done()
		f()
	}
	if !c.spawn(counted) {
		counted()
	}
}

// sideBySide calls f with all of xs, up to size at a time, in up to n calls at a
// time, and returns when all have. If there are several, they run on goroutines of
// their own: what f does must not panic.
func sideBySide[T any](c *Cache, xs []T, size, n int, f func([]T)) {
	if len(xs) <= size {
		f(xs)
		return
	}
	var wg sync.WaitGroup
	calls := make(turns, n)
	for some := range slices.Chunk(xs, size) {
		calls <- struct{}{}
		c.spawnOrRun(&wg, func() { // ends with f
			defer calls.give()
			f(some)
		})
	}
	wg.Wait()
}

// Close ends background work and waits for it, and for the calls under way, up to
// 5 seconds; use Shutdown for another limit. Invalidations that could not reach
// Redis are tried a last time. The client stays open. Later calls get ErrClosed.
func (c *Cache) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.Shutdown(ctx)
}

// Shutdown is Close with the caller's limit. Its error says what had not ended
// when ctx did, or which keys may still hold what was invalidated.
func (c *Cache) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.close()

	ended := make(chan struct{})
	go func() { // ends with the last goroutine of the Cache, which the load timeouts bound
		c.work.Wait()
		close(ended)
	}()
	var waited error
	select {
	case <-ended:
	case <-ctx.Done():
		waited = fmt.Errorf("readthrough: close: calls are still under way: %w", ctx.Err())
	}
	// The last time has a limit of its own: the wait may have used up that of ctx.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.settings.redisTimeout)
	defer cancel()
	left := c.tryPending(last)
	if left != nil {
		left = fmt.Errorf("readthrough: close: invalidate %w", left)
	}
	if err := c.mux.Close(ctx); err != nil && waited == nil {
		waited = fmt.Errorf("readthrough: close: %w", err)
	}
	return errors.Join(waited, left)
}

// Stats sums what was counted for the Cache and all its wrappers.
func (c *Cache) Stats() Stats {
	s := Stats{PendingInvalidations: int64(c.pending.size())}
	c.meter.addTo(&s)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wrappers {
		w.meter.addTo(&s)
	}
	return s
}

// Delete deletes the entries at the given Redis keys, as RedisKey returns them,
// like Invalidate of the wrapper would, and with the same error.
func (c *Cache) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if key == "" {
			return fmt.Errorf("readthrough: delete: %w", ErrEmptyKey)
		}
	}
	c.awaitFills(ctx, keys...)
	if len(keys) == 0 {
		return nil
	}
	left, err := c.leases.Invalidate(ctx, keys...)
	if err := c.written(ctx, c.meter, NoExpiry, keys, left, err); err != nil {
		return fmt.Errorf("readthrough: delete %w", err)
	}
	return nil
}

// awaitFills keeps fills without a lease from landing behind what is about to be
// sent, whichever wrapper the keys belong to.
func (c *Cache) awaitFills(ctx context.Context, keys ...string) {
	c.mu.Lock()
	wrappers := slices.Collect(maps.Values(c.wrappers))
	c.mu.Unlock()
	for _, w := range wrappers {
		for _, key := range keys {
			w.awaitFills(ctx, key)
		}
	}
}

// Get returns the value at a raw Redis key, as Set or a wrapper stored it with the
// Cache's codec. It is ErrMiss if there is none, if it is stale or negative, or if
// the bytes are no such value; any other error says that Redis could not be asked.
func Get[V any](ctx context.Context, c *Cache, key string) (V, error) {
	var v V
	if key == "" {
		return v, fmt.Errorf("readthrough: get: %w", ErrEmptyKey)
	}
	raw, err := c.mux.Get(ctx, key)
	if unreadable(err) {
		return v, ErrMiss
	}
	if err != nil {
		return v, c.redisError(ctx, "get", key, err)
	}
	e, err := entry.Parse(raw)
	if err == nil && (e.Negative || !e.Fresh(time.Now())) {
		return v, ErrMiss
	}
	if err == nil {
		err = decodeValue(c.settings.wrapper.codec, e.Value, &v)
	}
	if err != nil {
		c.meter.note(ctx, EventCorrupt, key, 0, err)
		var zero V
		return zero, ErrMiss
	}
	return v, nil
}

// Set stores v at a raw Redis key with the Cache's codec for ttl, which is at
// least 1 ms; NoExpiry: until it is deleted. The error says that v cannot be stored,
// or that Redis could not be asked: then the key is deleted as soon as it can be.
func Set[V any](ctx context.Context, c *Cache, key string, v V, ttl time.Duration) error {
	if key == "" {
		return fmt.Errorf("readthrough: set: %w", ErrEmptyKey)
	}
	if err := checkTTL("ttl", ttl); err != nil {
		return fmt.Errorf("readthrough: set %s: %w", key, err)
	}
	e, keep := expiring(time.Now(), ttl, 0)
	b, err := c.settings.wrapper.appendEntry(&e, v)
	if err != nil {
		return fmt.Errorf("readthrough: set %s: %w", key, err)
	}
	c.awaitFills(ctx, key)
	left, err := c.leases.Set(ctx, lease.Item{Key: key, Entry: b, TTL: keep})
	if err := c.written(ctx, c.meter, NoExpiry, []string{key}, left, err); err != nil {
		return fmt.Errorf("readthrough: set %w", err)
	}
	return nil
}

// redisError counts a failure to reach Redis, unless it is the caller's own doing.
func (c *Cache) redisError(ctx context.Context, op, key string, err error) error {
	if errors.Is(err, mux.ErrClosed) {
		return ErrClosed
	}
	if ctx.Err() == nil {
		c.meter.note(ctx, EventRedisError, key, 0, err)
	}
	return fmt.Errorf("readthrough: %s %s: %w", op, key, err)
}

// unreadable reports whether err says that a key holds nothing that GET could read.
func unreadable(err error) bool {
	return err != nil && (errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "WRONGTYPE"))
}

func (c *Cache) onBreaker(open bool) {
	kind := EventBreakerClosed
	if open {
		kind = EventBreakerOpen
	}
	c.meter.note(context.Background(), kind, "", 0, nil)
}
