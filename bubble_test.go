package readthrough_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// bubble is a Redis in a synctest bubble: nothing leaves the process, so that time is virtual, for the TTLs of Redis
// too, and hours pass at once.
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

// cache is a Cache with a client of its own: one process of a fleet. Its TTLs are exact, and its values stay stale for
// a minute.
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

func (b *bubble) client(t *testing.T) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Dialer:     func(context.Context, string, string) (net.Conn, error) { return b.redis.Dial() },
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

// process is a Cache with a wrapper of db.
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

// change is a change of the database, for loads that begin later.
func (d *database) change(change func(*database)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// loads is when each load began, once all that is under way waits for time to pass.
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

// asking is ask by a caller for whom nobody waits yet, who by now has come as far as he can.
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
