package readthrough

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/drain"
	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/local"
	"github.com/readthrough-go/readthrough/internal/mux"
	"github.com/readthrough-go/readthrough/internal/retry"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// maxKeys is how many keys of a call for many are dealt with at a time.
const maxKeys = 1000

// Cache is one Redis client with what its wrappers share: settings, pipelines,
// breaker and statistics. It is safe for concurrent use.
type Cache struct {
	settings cacheSettings
	mux      *mux.Mux // nil: the Cache is Disabled
	kept
	meter     *meter        // what concerns no wrapper
	retries   *retry.Queue  // invalidations that Redis has not heard of
	refreshes fill.Slots    // background refreshes of all wrappers
	replySize mux.ReplySize // of the raw Get

	server  *server
	work    *drain.Group // every call, and every goroutine that one has started
	closing closing

	mu       sync.Mutex
	wrappers map[string]wrapped
}

// kept is where entries are: in Redis, and as copies in this process.
type kept struct {
	leases *lease.Store
	tier   *local.Tier
}

// wrapped is what the Cache knows of a wrapper.
type wrapped struct {
	addTo func(*Stats) // adds what was counted for it
	stop  func()       // cancels the loads that nobody waits for
}

// NewCache returns a Cache on client, which stays the caller's to close, after the
// Cache. It does not speak to Redis. The client must read from the primary, and
// without a cache of its own: else a value could be served after it was invalidated. The
// error says so of clients that show that they do not; others are found in use, and said
// in an EventFinding: docs/redis.md says which are which, and what a client must do. The
// client gets a hook that only sees how its new connections come along.
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
	c := unconnected(settings)
	c.mux = mux.New(client, mux.Config{
		Timeout:  settings.redisTimeout,
		Failures: settings.breaker.failures,
		OpenFor:  settings.breaker.openFor,
		OnState:  c.onBreaker,
	})
	c.server = newServer(client)
	c.leases = lease.NewStore(writer{c}, lease.Config{
		Prefix: settings.prefix, Watch: c.watcher(client), OnRefused: c.onRefused, FailoverSafe: settings.failoverSafe,
		Go: c.work.Go,
	})
	c.tier = c.newTier(client.Subscribe)
	c.retries = retry.New(c.invalidateAgain, c.work.Go)
	c.checkDeadlines(client)
	return c, nil
}

// unconnected returns a Cache that has no Redis yet.
func unconnected(settings cacheSettings) *Cache {
	c := &Cache{
		settings:  settings,
		refreshes: fill.NewSlots(settings.maxRefreshes),
		work:      drain.New(),
		closing:   closing{ended: make(chan struct{})},
		wrappers:  make(map[string]wrapped),
	}
	c.meter = &meter{audience: &audience{observers: settings.observers, work: c.work}}
	return c
}

// register makes the name of a wrapper known. Names are unique in a Cache: two
// wrappers of one name would take each other's entries for their own.
func (c *Cache) register(name string, w wrapped) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.phase.Load() != open {
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

// Stats sums what was counted for the Cache and all its wrappers.
func (c *Cache) Stats() Stats {
	s := Stats{PendingInvalidations: int64(c.retries.Len()), LocalMembers: c.tier.Members()}
	c.meter.addTo(&s)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wrappers {
		w.addTo(&s)
	}
	return s
}

// Delete deletes the entries at the given Redis keys, as RedisKey returns them,
// like Invalidate of the wrapper would, and with the same errors.
func (c *Cache) Delete(ctx context.Context, keys ...string) error {
	var empty error
	if slices.Contains(keys, "") {
		empty = failed("delete", ErrEmptyKey)
		keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key == "" })
	}
	if len(keys) == 0 {
		return empty
	}
	return joined(empty, c.writeRaw(ctx, "delete", keys, c.invalidator(ctx)))
}

// sender changes the entries at keys in Redis, and returns the keys that it may not have reached.
type sender func(keys []string) (left []string, err error)

// invalidator returns what invalidates keys in Redis.
func (c *Cache) invalidator(ctx context.Context) sender {
	return func(keys []string) ([]string, error) { return c.leases.Invalidate(ctx, keys...) }
}

// writeRaw changes the entries at keys, which may be anybody's, by send.
func (c *Cache) writeRaw(ctx context.Context, op string, keys []string, send sender) error {
	call, closed := c.enter(ctx)
	defer call.End()
	left, err := keys, closed
	if closed == nil {
		left, err = c.fenced(ctx, keys, send)
	}
	if err := c.written(ctx, c.meter, NoExpiry, keys, left, err); err != nil {
		return &WriteError{Op: op, Keys: left, Err: err}
	}
	return nil
}

// written notes that the entries at keys were changed, but for those left by err, which
// it returns as the caller's. These are invalidated in the background, for as long as an
// entry can live.
func (c *Cache) written(ctx context.Context, m *meter, lifetime time.Duration, keys, left []string, err error) error {
	if err != nil {
		err = c.retry(ctx, lifetime, left, redisError(ctx, err))
	}
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
	if err != nil && !errors.Is(err, ErrClosed) {
		m.note(ctx, EventRedisError, "", 0, err)
	}
	return err
}

// retry has keys, whose invalidation has failed with err, invalidated in the background,
// and returns err, which says so if they are not.
func (c *Cache) retry(ctx context.Context, lifetime time.Duration, keys []string, err error) error {
	dropped, kept := c.retries.Add(keys, lifetime)
	if !kept {
		return &unretried{err}
	}
	for _, key := range dropped {
		c.meter.note(ctx, EventDroppedInvalidation, key, 0, errTooManyPending)
	}
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
	call, err := c.enter(ctx)
	defer call.End()
	if err != nil {
		return zero[V](), err
	}
	if c.disabled() {
		return zero[V](), ErrMiss
	}
	raw, err := c.read(ctx, key, &c.replySize)
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
	c.checkRole()
	v, err := decodeRaw[V](&c.settings.wrapper, key, raw, c.settings.clock.Now())
	if err != nil && err != ErrMiss { //nolint:errorlint // the very one
		c.meter.note(ctx, EventCorrupt, key, 0, err)
		err = ErrMiss
	}
	return v, err
}

// decodeRaw returns the value of a raw entry, or ErrMiss if it has none that is fresh at now.
func decodeRaw[V any](s *settings, key string, raw []byte, now time.Time) (V, error) {
	e, err := entry.Parse(raw)
	if err != nil {
		return zero[V](), err
	}
	if e.Negative || e.Version != s.version || !e.Fresh(now) {
		return zero[V](), ErrMiss
	}
	var v V
	if err := s.decodeEntry(key, &e, valueTypeOf[V](s), &v); err != nil {
		return zero[V](), err
	}
	return v, nil
}

// Set stores v at a raw Redis key with the Cache's codec for ttl, which is at
// least 1 ms; NoExpiry: until it is deleted. The error says that v cannot be stored, and the
// key is deleted, or is a *WriteError: then the key is deleted as soon as Redis can be reached.
func Set[V any](ctx context.Context, c *Cache, key string, v V, ttl time.Duration) error {
	if key == "" {
		return failed("set", ErrEmptyKey)
	}
	if err := checkTTL("ttl", ttl); err != nil {
		return failed("set "+key, err)
	}
	header, keep := expiring(c.settings.clock.Now(), ttl, 0)
	b, err := c.settings.wrapper.appendEntry(key, &header, valueTypeOf[V](&c.settings.wrapper), v)
	if err != nil { // what was there is out of date all the same
		return joined(failed("set "+key, err), c.writeRaw(ctx, "set", []string{key}, c.invalidator(ctx)))
	}
	return c.writeRaw(ctx, "set", []string{key}, func([]string) ([]string, error) {
		return c.leases.Set(ctx, lease.Item{Key: key, Entry: b, TTL: keep})
	})
}

// watcher returns what runs transactions, of three round trips, on client. A caller waits no
// longer than those may take, whatever the client does.
func (c *Cache) watcher(client redis.UniversalClient) func(context.Context, func(*redis.Tx) error, ...string) error {
	return func(ctx context.Context, f func(*redis.Tx) error, keys ...string) error {
		ctx, cancel := context.WithTimeout(ctx, 3*c.settings.redisTimeout)
		defer cancel()
		ended := make(chan error, 1)
		c.work.Go(func() { ended <- client.Watch(ctx, f, keys...) }) // ends with the client's own timeouts
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Cache) onRefused(err error) {
	c.meter.noteApart(context.Background(), EventRefusedCommand, "", 0, err)
}

func (c *Cache) onBreaker(open bool) {
	kind := EventBreakerClosed
	if open {
		kind = EventBreakerOpen
	} else {
		c.server.recovered()
	}
	c.meter.noteApart(context.Background(), kind, "", 0, nil)
}
