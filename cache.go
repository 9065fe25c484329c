package readthrough

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/mux"
	"github.com/readthrough-go/readthrough/internal/retry"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
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
	meter     *meter       // what concerns no wrapper
	retries   *retry.Queue // invalidations that Redis has not heard of
	refreshes fill.Slots   // background refreshes of all wrappers

	mu       sync.Mutex
	closed   bool
	work     sync.WaitGroup // every goroutine that the Cache and its wrappers start
	wrappers map[string]wrapped

	role  atomic.Int32 // a roleState
	found sync.Map     // the findings that were noted
}

// wrapped is what the Cache knows of a wrapper.
type wrapped struct {
	meter *meter
	stop  func() // cancels the loads that nobody waits for
}

// NewCache returns a Cache on client, which stays the caller's to close, after the
// Cache. It does not speak to Redis. The client must read from the primary, and
// without a cache of its own: else a value could be served after it was invalidated. The
// error says so of clients that show that they do not; others are found in use, and said
// in an EventFinding. docs/redis.md says which are which, and what a client must do.
func NewCache(client redis.UniversalClient, opts ...CacheOption) (*Cache, error) {
	c, err := newCache(client, opts)
	return c, failed("NewCache", err)
}

func newCache(client redis.UniversalClient, opts []CacheOption) (*Cache, error) {
	if err := checkClient(client); err != nil {
		return nil, err
	}
	settings := defaultSettings()
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("an option is nil")
		}
		if err := opt.applyToCache(&settings); err != nil {
			return nil, err
		}
	}
	c := &Cache{
		settings:  settings,
		meter:     &meter{observers: settings.observers},
		refreshes: fill.NewSlots(settings.maxRefreshes),
		wrappers:  make(map[string]wrapped),
	}
	c.mux = mux.New(client, mux.Config{
		Timeout:  settings.redisTimeout,
		Failures: settings.breaker.failures,
		OpenFor:  settings.breaker.openFor,
		OnState:  c.onBreaker,
	})
	c.leases = lease.NewStore(writer{c})
	c.leases.FailoverSafe = settings.failoverSafe
	if _, single := innermost(client).(*redis.Client); !single {
		c.role.Store(roleMoot)
	}
	c.retries = retry.New(c.leases.Invalidate, c.spawn)
	return c, nil
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

// spawnOrRun runs f on a goroutine that Close waits for, or after Close on this one.
func (c *Cache) spawnOrRun(f func()) {
	if !c.spawn(f) {
		f()
	}
}

// goOn runs f on a goroutine that Close waits for, even after Close: for what goes on
// with something begun before. Its caller is such a goroutine itself.
func (c *Cache) goOn(f func()) { c.work.Go(f) }

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
	if !c.beginClose() {
		return nil
	}
	waited := c.awaitWork(ctx)
	// The last time has a limit of its own: the wait may have used up that of ctx.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.settings.redisTimeout)
	defer cancel()
	var pending error
	if left, err := c.retries.Try(last); err != nil {
		pending = &WriteError{Op: "close: invalidate", Keys: left, Err: redisError(last, err)}
	}
	if err := c.mux.Close(ctx); err != nil && waited == nil {
		waited = failed("close", err)
	}
	return errors.Join(waited, pending)
}

// beginClose refuses new work and stops what nobody waits for. It reports false if the
// Cache was closed before.
func (c *Cache) beginClose() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.closed = true
	c.retries.Stop()
	for _, w := range c.wrappers {
		w.stop()
	}
	return true
}

// awaitWork waits until the goroutines of the Cache have ended, or ctx has.
func (c *Cache) awaitWork(ctx context.Context) error {
	ended := make(chan struct{})
	go func() { // ends with the last goroutine of the Cache, which the load timeouts bound
		c.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return failed("close", fmt.Errorf("calls are still under way: %w", ctx.Err()))
	}
}

// Stats sums what was counted for the Cache and all its wrappers.
func (c *Cache) Stats() Stats {
	s := Stats{PendingInvalidations: int64(c.retries.Len())}
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
	if slices.Contains(keys, "") {
		return failed("delete", ErrEmptyKey)
	}
	if len(keys) == 0 {
		return nil
	}
	return c.writeRaw(ctx, "delete", keys, c.invalidator(ctx))
}

// invalidator returns what invalidates keys in Redis.
func (c *Cache) invalidator(ctx context.Context) func(keys []string) (left []string, err error) {
	return func(keys []string) ([]string, error) { return c.leases.Invalidate(ctx, keys...) }
}

// writeRaw changes the entries at keys, which may be anybody's, by send.
func (c *Cache) writeRaw(ctx context.Context, op string, keys []string, send func(keys []string) (left []string, err error)) error {
	left, err := send(keys)
	if err := c.written(ctx, c.meter, NoExpiry, keys, left, err); err != nil {
		return &WriteError{Op: op, Keys: left, Err: err}
	}
	return nil
}

// written notes that the entries at keys were changed, but for those left by err, which
// it returns as the caller's. These are invalidated in the background, for as long as an
// entry can live.
func (c *Cache) written(ctx context.Context, m *meter, lifetime time.Duration, keys, left []string, err error) error {
	unreached := make(map[string]bool, len(left))
	for _, key := range left {
		unreached[key] = true
	}
	for _, key := range keys {
		if unreached[key] {
			m.note(ctx, EventInvalidation, key, 0, err)
		} else {
			m.note(ctx, EventInvalidation, key, 0, nil)
		}
	}
	if err == nil {
		return nil
	}
	err = redisError(ctx, err)
	m.note(ctx, EventRedisError, "", 0, err)
	c.retries.Add(left, lifetime)
	return err
}

// Get returns the value at a raw Redis key, as Set or a wrapper stored it with the
// Cache's codec. The error is ErrMiss if there is none, if it is stale or negative, or if
// the bytes are no such value; ErrUnavailable if Redis could not be asked; besides,
// ErrEmptyKey, ErrClosed, and the context's.
func Get[V any](ctx context.Context, c *Cache, key string) (V, error) {
	if key == "" {
		return zero[V](), failed("get", ErrEmptyKey)
	}
	raw, err := c.read(ctx, key)
	switch {
	case unreadable(err):
		c.missed(key)
		return zero[V](), ErrMiss
	case err != nil && ctx.Err() == nil && !errors.Is(err, mux.ErrClosed):
		c.meter.note(ctx, EventRedisError, key, 0, err)
	}
	if err != nil {
		return zero[V](), failed("get "+key, redisError(ctx, err))
	}
	c.lookedUp(true)
	v, err := decodeRaw[V](c.settings.wrapper.codec, raw)
	if err != nil && err != ErrMiss { //nolint:errorlint // the very one
		c.meter.note(ctx, EventCorrupt, key, 0, err)
		err = ErrMiss
	}
	return v, err
}

// decodeRaw returns the value of a raw entry, or ErrMiss if it has none that is fresh.
func decodeRaw[V any](codec Codec, raw []byte) (V, error) {
	e, err := entry.Parse(raw)
	if err != nil {
		return zero[V](), err
	}
	if e.Negative || !e.Fresh(time.Now()) {
		return zero[V](), ErrMiss
	}
	var v V
	if err := decodeValue(codec, e.Value, &v); err != nil {
		return zero[V](), err
	}
	return v, nil
}

// Set stores v at a raw Redis key with the Cache's codec for ttl, which is at
// least 1 ms; NoExpiry: until it is deleted. The error says that v cannot be stored, or
// is a *WriteError: then the key is deleted as soon as Redis can be reached.
func Set[V any](ctx context.Context, c *Cache, key string, v V, ttl time.Duration) error {
	if key == "" {
		return failed("set", ErrEmptyKey)
	}
	if err := checkTTL("ttl", ttl); err != nil {
		return failed("set "+key, err)
	}
	header, keep := expiring(time.Now(), ttl, 0)
	b, err := c.settings.wrapper.appendEntry(&header, v)
	if err != nil {
		return failed("set "+key, err)
	}
	return c.writeRaw(ctx, "set", []string{key}, func([]string) ([]string, error) {
		return c.leases.Set(ctx, lease.Item{Key: key, Entry: b, TTL: keep})
	})
}

func (c *Cache) onBreaker(open bool) {
	kind := EventBreakerClosed
	if open {
		kind = EventBreakerOpen
	} else {
		c.role.CompareAndSwap(roleAsked, roleUnknown) // it may have changed
	}
	c.meter.note(context.Background(), kind, "", 0, nil)
}
