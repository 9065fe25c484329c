package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.Parallel(8)
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}

// newCache returns a Cache on a miniredis, with a client that tries everything once.
func newCache(t testing.TB, opts ...readthrough.CacheOption) (*readthrough.Cache, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	// Where a test has closed the server, one refused dial says as much as several, and sooner.
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1})
	opts = append([]readthrough.CacheOption{readthrough.WithRedisTimeout(5 * time.Second)}, opts...)
	cache, err := readthrough.NewCache(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	})
	return cache, server
}

type user struct {
	Name string
	Tags []string
}

// row is a row of a database whose loader, once it has read "old", says so and waits.
type row struct {
	atomic.Value
	reading, goOn chan struct{}
}

func (r *row) load(context.Context, int) (string, error) {
	v := r.Load().(string)
	if v == "old" {
		r.reading <- struct{}{}
		<-r.goOn
	}
	return v, nil
}

func newRow(v string) *row {
	r := &row{reading: make(chan struct{}), goOn: make(chan struct{})}
	r.Store(v)
	return r
}

// wrapper wraps load of an int key under the name "row".
func wrapper[V any](t *testing.T, cache *readthrough.Cache, load readthrough.Loader[int, V], opts ...readthrough.Option) *readthrough.ReadThrough[int, V] {
	t.Helper()
	rt, err := readthrough.New(cache, "row", load, readthrough.Int, opts...)
	require.NoError(t, err)
	return rt
}

func constant[V any](v V) readthrough.Loader[int, V] {
	return func(context.Context, int) (V, error) { return v, nil }
}

// recorder is an Observer that remembers the last event of each kind.
type recorder struct {
	mu    sync.Mutex
	kinds map[readthrough.EventKind]readthrough.Event
}

func (r *recorder) Observe(_ context.Context, e readthrough.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds[e.Kind] = e
}

// fleet returns n Caches with a client each: what n processes would have.
func fleet(t *testing.T, n int, client func() redis.UniversalClient, opts ...readthrough.CacheOption) []*readthrough.Cache {
	t.Helper()
	caches := make([]*readthrough.Cache, n)
	for i := range caches {
		cache, err := readthrough.NewCache(client(), append([]readthrough.CacheOption{readthrough.WithRedisTimeout(5 * time.Second)}, opts...)...)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, cache.Close()) })
		caches[i] = cache
	}
	return caches
}

// realCache returns a Cache on a redis-server, which is quick enough for thousands of keys.
func realCache(t *testing.T) (*readthrough.Cache, *redis.Client) {
	t.Helper()
	client := redistest.Start(t).Client()
	return fleet(t, 1, func() redis.UniversalClient { return client })[0], client
}

var errDown = errors.New("database down")

// bubble is a Redis in a synctest bubble: nothing leaves the process, so that time is virtual, for
// the TTLs of Redis too, and hours pass at once.
type bubble struct{ redis *miniredis.Miniredis }

// inBubble runs a test in a bubble. All that it starts must end with it, or synctest fails it.
func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{miniredis.NewMiniRedis()}
		b.redis.ClockTTL(true)
		t.Cleanup(b.redis.Close)
		test(t, b)
	})
}

// cache returns a Cache with a client of its own: one process of a fleet. Its TTLs are exact, and
// its values stay stale for a minute.
func (b *bubble) cache(t *testing.T, opts ...readthrough.CacheOption) *readthrough.Cache {
	t.Helper()
	client := b.client(t)
	opts = append([]readthrough.CacheOption{
		readthrough.WithTTL(ttl), readthrough.WithStale(staleFor), readthrough.WithJitter(0),
	}, opts...)
	cache, err := readthrough.NewCache(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

// asyncWriter is an end of a pipe whose writes do not wait for the other end: that answers the first
// command of a long pipeline before it reads the last.
type asyncWriter struct {
	net.Conn
	last chan struct{} // closed when all that was written has been read
}

func (w *asyncWriter) Write(b []byte) (int, error) {
	before, written, b := w.last, make(chan struct{}), bytes.Clone(b)
	w.last = written
	go func() { // ends with the other end's read, or with the pipe
		defer close(written)
		<-before
		_, _ = w.Conn.Write(b)
	}()
	return len(b), nil
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (b *bubble) client(t *testing.T) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			c, err := b.redis.Dial()
			return &asyncWriter{Conn: c, last: closed()}, err
		},
		MaxRetries: -1,
		// To ask for them, the client looks its host name up.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

const (
	ttl      = 10 * time.Second
	staleFor = time.Minute
)

// rows is a wrapper of the database, as each test has one in each process.
type rows = readthrough.ReadThrough[int, int]

// process returns a wrapper of db in a Cache of its own.
func (b *bubble) process(t *testing.T, db *database, opts ...readthrough.CacheOption) *rows {
	t.Helper()
	return wrapper(t, b.cache(t, opts...), db.load)
}

// database has the same version in all rows, and is as slow and as broken as the test says.
type database struct {
	mu      sync.Mutex
	version int
	err     error
	takes   time.Duration
	deaf    bool // does not mind its context

	began         []time.Time // of each load
	running, most int         // loads at a time
}

func (d *database) load(ctx context.Context, _ int) (int, error) {
	d.mu.Lock()
	version, err, takes, heard := d.version, d.err, d.takes, ctx.Done()
	if d.deaf {
		heard = nil
	}
	d.began = append(d.began, time.Now())
	d.running++
	d.most = max(d.most, d.running)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.running--
	}()
	select {
	case <-time.After(takes):
		return version, err
	case <-heard:
		return 0, ctx.Err()
	}
}

// change changes the database, for loads that begin later.
func (d *database) change(change func(*database)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// loads returns when each load began, once all that is under way waits for time to pass.
func (d *database) loads() []time.Time {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]time.Time(nil), d.began...)
}

// pass lets time pass, and what is due by then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// answer is what a caller of GetInfo got, and after what time.
type answer struct {
	value int
	info  readthrough.Info
	err   error
	took  time.Duration
}

func ask(ctx context.Context, rt *rows, k int) answer {
	began := time.Now()
	v, info, err := rt.GetInfo(ctx, k)
	return answer{v, info, err, time.Since(began)}
}

// asking asks on a goroutine of its own, and returns once that waits for time to pass.
func asking(ctx context.Context, rt *rows, k int) <-chan answer {
	answers := make(chan answer, 1)
	go func() { answers <- ask(ctx, rt, k) }() // ends with the load, at the latest
	synctest.Wait()
	return answers
}

// requireValue asks for row 1, and wants the value at once.
func requireValue(t *testing.T, rt *rows, value int, source readthrough.Source) {
	t.Helper()
	got := ask(t.Context(), rt, 1)
	require.NoError(t, got.err)
	require.Equal(t, value, got.value)
	require.Equal(t, source, got.info.Source, "source: %v", got.info.Source)
	require.Zero(t, got.took)
}

// client returns a client of its own for server.
func client(t testing.TB, server *miniredis.Miniredis) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}
