// Package readthroughtest is for the tests of code that uses readthrough: a Cache on a Redis
// inside the process, whose time the test moves and which it can take down, and checks that
// say what is cached, how often something was loaded, and where an Invalidate was forgotten.
//
//	func TestRename(t *testing.T) {
//		fake := readthroughtest.New(t)
//		service := NewUserService(fake.Cache, db)        // the code under test, as it is
//		readthroughtest.Audit(service.users, db.FindUser) // every hit is compared with the database
//		...
//		fake.FastForward(time.Hour) // TTLs end, without waiting
//	}
//
// In a bubble of testing/synctest the time is the bubble's: New works there as well, and
// time.Sleep does what FastForward does elsewhere.
//
// The Redis is miniredis, which is compiled into no program but tests that import this package.
package readthroughtest

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/clock"
	"github.com/readthrough-go/readthrough/internal/hook"
)

const (
	// redisTimeout is long, so that a busy machine fails no test: a Redis that is down
	// refuses at once.
	redisTimeout = 5 * time.Second
	// never is so many failures that the circuit breaker does not open.
	never = 1 << 30
)

// Fake is a Cache with a Redis of its own inside the process.
type Fake struct {
	// Cache is for the code under test.
	Cache *readthrough.Cache
	// Client is the client of Cache, for code that uses Redis besides, and to look what is there.
	Client redis.UniversalClient

	t     testing.TB
	redis *miniredis.Miniredis
	clock *clock.Clock
	down  atomic.Bool

	mu     sync.Mutex
	closed bool // t must not be told anything any more
}

// New returns a Fake that is closed when t ends. Its defaults differ from those of NewCache in
// what makes a test certain: TTLs are exact (WithJitter is 0), a call waits 5 seconds for Redis,
// and the circuit breaker never opens, so that Up takes effect at once. opts override them.
func New(t testing.TB, opts ...readthrough.CacheOption) *Fake {
	t.Helper()
	f := &Fake{t: t, redis: miniredis.NewMiniRedis(), clock: new(clock.Clock)}
	f.redis.ClockTTL(true)
	client := redis.NewClient(&redis.Options{
		ContextTimeoutEnabled: true,
		Dialer:                func(context.Context, string, string) (net.Conn, error) { return dial(f.redis) },
		MaxRetries:            -1,
		// To ask for them, the client would look a host name up.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	client.AddHook(outage{&f.down})
	f.Client = client
	cache, err := readthrough.NewCache(client, append([]readthrough.CacheOption{
		readthrough.WithJitter(0), readthrough.WithRedisTimeout(redisTimeout), readthrough.WithBreaker(never, time.Second),
		hook.WithClock(f.clock).(readthrough.CacheOption),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	f.Cache = cache
	fakes.Store(cache, f)
	t.Cleanup(f.close)
	return f
}

// close ends what New has begun. A test may end while its Redis is down.
func (f *Fake) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.down.Store(false)
	fakes.Delete(f.Cache)
	if err := f.Cache.Close(); err != nil {
		f.t.Error(err)
	}
	if err := f.Client.Close(); err != nil {
		f.t.Error(err)
	}
	f.redis.Close()
}

// errorf fails the test, if it has not ended.
func (f *Fake) errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.t.Errorf(format, args...)
	}
}

// FastForward lets d pass: for TTLs, stale windows, early refreshes, leases, and the pause after a
// failed load. Who waits at this moment goes on waiting by the machine's clock: callers, timeouts,
// a loader. A load under way for which d is longer than WithLeaseTTL has lost its lease, like that
// of a process that was paused for as long, and its value is not stored.
func (f *Fake) FastForward(d time.Duration) {
	f.clock.Advance(d)
	f.redis.FastForward(d)
}

// Now returns the time of the Fake: the machine's, and what FastForward has added. It is for code
// under test that is given its clock.
func (f *Fake) Now() time.Time { return f.clock.Now() }

// Down has Redis refuse all calls at once, until Up: reads go to the loader, writes fail with
// readthrough.ErrUnavailable. What it holds stays.
func (f *Fake) Down() { f.down.Store(true) }

// Up ends what Down began. It returns when the invalidations that have failed meanwhile are made up
// for in the background, which takes up to a second: until then, as in production, reads may be
// served what they were to delete.
func (f *Fake) Up() {
	f.t.Helper()
	f.down.Store(false)
	for deadline := time.Now().Add(redisTimeout); f.Cache.Stats().PendingInvalidations > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("readthroughtest: invalidations are still pending %v after Up", redisTimeout)
		}
	}
}

// outage is a hook of the client that refuses commands while its flag is up.
type outage struct{ down *atomic.Bool }

// refused is what a client gets that dials a port where nobody listens.
func (o outage) refused() error {
	if o.down.Load() {
		return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	return nil
}

func (o outage) DialHook(next redis.DialHook) redis.DialHook { return next }

func (o outage) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := o.refused(); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (o outage) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := o.refused(); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return next(ctx, cmds)
	}
}
