package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

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

func TestOptionsOutOfRangeAreNamed(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer func() { require.NoError(t, client.Close()) }()
	for want, opt := range map[string]readthrough.CacheOption{
		"WithTTL":           readthrough.WithTTL(time.Microsecond),
		"WithJitter":        readthrough.WithJitter(math.NaN()),
		"WithStale":         readthrough.WithStale(-1),
		"WithEarlyRefresh":  readthrough.WithEarlyRefresh(math.Inf(1)),
		"WithPatience":      readthrough.WithPatience(-1),
		"WithNotFound":      readthrough.WithNotFound(time.Minute),
		"one of the errors": readthrough.WithNotFound(time.Minute, nil),
		"WithTTLFor":        readthrough.WithTTLFor[int](nil),
		"WithCodec":         readthrough.WithCodec(nil),
		"WithLoadTimeout":   readthrough.WithLoadTimeout(0),
		"WithLeaseTTL":      readthrough.WithLeaseTTL(time.Millisecond),
		"WithLeaseWait":     readthrough.WithLeaseWait(-1),
		"WithBatchLoader":   readthrough.WithBatchLoader[int, int](nil),
		"WithMaxEntryBytes": readthrough.WithMaxEntryBytes(0),
		"WithPrefix":        readthrough.WithPrefix("a{b"),
		"WithRedisTimeout":  readthrough.WithRedisTimeout(0),
		"WithBreaker":       readthrough.WithBreaker(0, time.Second),
		"positive":          readthrough.WithBreaker(1, 0),
		"WithObserver":      readthrough.WithObserver(nil),
		"WithLogger":        readthrough.WithLogger(nil),
		"an option is nil":  nil,
	} {
		_, err := readthrough.NewCache(client, opt)
		require.ErrorContains(t, err, want)
	}
}

func TestClientsThatMayServeWhatWasInvalidatedAreRefused(t *testing.T) {
	replicas := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, ReadOnly: true})
	defer func() { require.NoError(t, replicas.Close()) }()
	_, err := readthrough.NewCache(replicas)
	require.ErrorContains(t, err, "replicas")
	_, err = readthrough.NewCache((*redis.Client)(nil))
	require.ErrorContains(t, err, "nil")
}

func TestGoexitInTheLoaderIsAnError(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil })
	_, err := rows.Get(t.Context(), 1)
	require.ErrorContains(t, err, "Goexit")
	require.Empty(t, server.Keys())
}

func TestLoadTimeoutHoldsEvenForALoaderThatIgnoresIt(t *testing.T) {
	cache, _ := newCache(t)
	goOn := make(chan struct{})
	rows := wrapper(t, cache, func(context.Context, int) (int, error) { <-goOn; return 0, nil }, readthrough.WithLoadTimeout(time.Millisecond))
	_, err := rows.Get(t.Context(), 1)
	close(goOn)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "load row:1")
}

func TestTheLoadIsCancelledWhenItsLastCallerLeaves(t *testing.T) {
	cache, server := newCache(t)
	loading, cancelled := make(chan struct{}), make(chan error)
	rows := wrapper(t, cache, func(ctx context.Context, _ int) (int, error) {
		close(loading)
		<-ctx.Done()
		cancelled <- ctx.Err()
		return 0, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-loading; cancel() }()
	_, err := rows.Get(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, <-cancelled, context.Canceled)
	require.Eventually(t, func() bool { return len(server.Keys()) == 0 }, 5*time.Second, time.Millisecond, "the lease is given back")
}

func TestUnstorableValuesAreReturnedAndCounted(t *testing.T) {
	cache, server := newCache(t)
	big := wrapper(t, cache, constant(strings.Repeat("x", 100)), readthrough.WithMaxEntryBytes(50))
	v, err := big.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, v, 100)
	require.ErrorContains(t, big.Set(t.Context(), 1, v), "WithMaxEntryBytes")
	funcs := readthrough.Must(readthrough.New(cache, "func", constant(func() {}), readthrough.Int))
	f, err := funcs.Get(t.Context(), 1)
	require.NoError(t, err)
	require.NotNil(t, f)
	require.EqualValues(t, 2, cache.Stats().Unstorable)
	require.Empty(t, server.Keys())
}

func TestTTLForDecidesPerValue(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, func(_ context.Context, id int) (time.Duration, error) { return time.Duration(id) * time.Second, nil },
		readthrough.WithTTLFor(func(v time.Duration) time.Duration { return v }), readthrough.WithJitter(0))
	for _, id := range []int{0, 7} {
		_, err := rows.Get(t.Context(), id)
		require.NoError(t, err)
	}
	require.False(t, server.Exists("row:0"))
	require.Equal(t, 7*time.Second, server.TTL("row:7"))
	require.NoError(t, rows.Set(t.Context(), 7, 0))
	require.False(t, server.Exists("row:7"), "a value that is not to be kept leaves none")
}

func TestNoExpiryKeepsAnEntryForGood(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant(1), readthrough.WithTTL(readthrough.NoExpiry))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Zero(t, server.TTL("row:1"))
	server.FastForward(10000 * time.Hour)
	v, err := rows.Peek(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, 1, v)
}

func TestCodecsOnAWrapper(t *testing.T) {
	cache, _ := newCache(t)
	raw := readthrough.Must(readthrough.New(cache, "raw", constant([]byte(nil)), readthrough.Int, readthrough.WithCodec(readthrough.Raw)))
	json := readthrough.Must(readthrough.New(cache, "json", constant(user{Name: "Ada"}), readthrough.Int, readthrough.WithCodec(readthrough.JSON)))
	for range 2 {
		b, err := raw.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Nil(t, b)
		u, err := json.Get(t.Context(), -1)
		require.NoError(t, err)
		require.Equal(t, user{Name: "Ada"}, u)
	}
	require.EqualValues(t, 2, cache.Stats().Hits)
	_, err := readthrough.New(cache, "bad", constant(1), readthrough.Int, readthrough.WithCodec(readthrough.Raw))
	require.ErrorContains(t, err, "int")
}

func TestALongLoadKeepsItsLease(t *testing.T) {
	server := redistest.Start(t)
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client() })[0]
	client := server.Client()
	rows := wrapper(t, cache, func(ctx context.Context, _ int) (int, error) {
		token := client.Get(ctx, "{row:1}:lease").Val()
		for began := time.Now(); time.Since(began) < 700*time.Millisecond; { // more than two lease TTLs
			if token == "" || client.Get(ctx, "{row:1}:lease").Val() != token {
				return 0, errors.New("lost")
			}
		}
		return 1, nil
	}, readthrough.WithLeaseTTL(300*time.Millisecond))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, rows.Stats().Fills)
}

func TestAHolderThatDiesDelaysOthersForOneLease(t *testing.T) {
	cache, server := newCache(t)
	require.NoError(t, server.Set("{row:1}:lease", "of a process that died"))
	rows := wrapper(t, cache, constant(1), readthrough.WithLeaseWait(time.Millisecond))
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, 1, v)
	require.False(t, server.Exists("row:1"), "loaded without a lease: not stored")
	server.Del("{row:1}:lease")
	_, err = rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.True(t, server.Exists("row:1"))
}

func TestPatienceGivesTheStaleValueWhileTheLoadGoesOn(t *testing.T) {
	cache, _ := newCache(t)
	goOn := make(chan struct{}, 9)
	goOn <- struct{}{}
	var loads atomic.Int64
	rows := wrapper(t, cache, func(context.Context, int) (int64, error) { <-goOn; return loads.Add(1), nil },
		readthrough.WithTTL(5*time.Millisecond), readthrough.WithStale(time.Hour), readthrough.WithPatience(time.Millisecond))
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v)
	require.Eventually(t, func() bool {
		v, err := rows.Get(t.Context(), 1)
		return err == nil && v == 1 && rows.Stats().StaleHits > 0
	}, 5*time.Second, time.Millisecond)
	goOn <- struct{}{}
	require.Eventually(t, func() bool { return rows.Stats().Fills == 2 }, 5*time.Second, time.Millisecond)
}

func TestEarlyRefreshHappensInTheBackground(t *testing.T) {
	cache, _ := newCache(t)
	var loads atomic.Int64
	rows := wrapper(t, cache, func(context.Context, int) (int64, error) {
		began := time.Now()
		for time.Since(began) < 2*time.Millisecond { // a load time that the entry can hold
			runtime.Gosched()
		}
		return loads.Add(1), nil
	}, readthrough.WithEarlyRefresh(1e12))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v, "the hit does not wait")
	require.Eventually(t, func() bool { return loads.Load() > 1 }, 5*time.Second, time.Millisecond)
}

type recorder struct {
	mu    sync.Mutex
	kinds map[readthrough.EventKind]readthrough.Event
}

func (r *recorder) Observe(_ context.Context, e readthrough.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds[e.Kind] = e
}

func TestObserverAndLoggerAreToldWithoutValues(t *testing.T) {
	seen := &recorder{kinds: map[readthrough.EventKind]readthrough.Event{}}
	var log bytes.Buffer
	cache, _ := newCache(t, readthrough.WithObserver(seen), readthrough.WithPrefix("p"),
		readthrough.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	failure := errors.New("database down")
	rows := wrapper(t, cache, func(_ context.Context, id int) (string, error) {
		if id == 2 {
			return "", failure
		}
		return "s3cr3t", nil
	})
	for _, id := range []int{1, 1, 2} {
		_, _ = rows.Get(t.Context(), id)
	}
	require.NoError(t, cache.Close())
	require.Equal(t, readthrough.Event{Wrapper: "row", Key: "p:row:1", Kind: readthrough.EventHit}, seen.kinds[readthrough.EventHit])
	require.Equal(t, failure, seen.kinds[readthrough.EventLoadError].Err)
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "database down")
	require.NotContains(t, log.String(), "s3cr3t")
	require.Equal(t, "unknown", readthrough.EventKind(200).String())

	_, err := rows.Get(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	_, err = rows.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	_, err = rows.Refresh(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	require.ErrorIs(t, rows.Set(t.Context(), 1, "v"), readthrough.ErrClosed)
	require.ErrorIs(t, rows.Invalidate(t.Context(), 1), readthrough.ErrClosed)
	_, err = readthrough.Get[string](t.Context(), cache, "k")
	require.ErrorIs(t, err, readthrough.ErrClosed)
}

func TestRawKeys(t *testing.T) {
	cache, server := newCache(t)
	ctx := t.Context()
	for _, key := range []string{"plain", "with{braces}"} {
		require.NoError(t, readthrough.Set(ctx, cache, key, 7, readthrough.NoExpiry))
		v, err := readthrough.Get[int](ctx, cache, key)
		require.NoError(t, err)
		require.Equal(t, 7, v)
		_, err = readthrough.Get[string](ctx, cache, key)
		require.ErrorIs(t, err, readthrough.ErrMiss, "not a string")
		require.NoError(t, readthrough.Set(ctx, cache, key, 8, time.Minute))
		require.Equal(t, time.Minute, server.TTL(key))
		require.NoError(t, cache.Delete(ctx, key))
		_, err = readthrough.Get[int](ctx, cache, key)
		require.ErrorIs(t, err, readthrough.ErrMiss)
	}
	require.ErrorIs(t, readthrough.Set(ctx, cache, "", 1, time.Minute), readthrough.ErrEmptyKey)
	require.ErrorIs(t, cache.Delete(ctx, ""), readthrough.ErrEmptyKey)
	require.ErrorContains(t, readthrough.Set(ctx, cache, "k", 1, 0), "ttl")
	require.ErrorContains(t, readthrough.Set(ctx, cache, "k", func() {}, time.Minute), "k")
	server.Close()
	require.Error(t, readthrough.Set(ctx, cache, "k", 1, time.Minute))
	_, err := readthrough.Get[int](ctx, cache, "k")
	require.Error(t, err)
	require.NotErrorIs(t, err, readthrough.ErrMiss)
	require.NoError(t, server.Start())
}

func TestLongKeysAreHashed(t *testing.T) {
	cache, _ := newCache(t)
	rows := readthrough.Must(readthrough.New(cache, "s", func(context.Context, string) (int, error) { return 1, nil }, readthrough.String))
	key, err := rows.RedisKey(strings.Repeat("k", 1025))
	require.NoError(t, err)
	require.Len(t, key, len("s:")+64)
	key, err = rows.RedisKey(strings.Repeat("k", 1024))
	require.NoError(t, err)
	require.Len(t, key, len("s:")+1024)
}

// TestABitFlipNeverHarmsTheCaller flips each bit of an entry. The format has no
// checksum, so a flip inside the value may show in it; it is never an error.
func TestABitFlipNeverHarmsTheCaller(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant("Ada"))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	good, err := server.Get("row:1")
	require.NoError(t, err)
	value := len(good) - len("Ada")
	for bit := range 8 * len(good) {
		flipped := []byte(good)
		flipped[bit/8] ^= 1 << (bit % 8)
		require.NoError(t, server.Set("row:1", string(flipped)))
		v, err := rows.Get(t.Context(), 1)
		require.NoError(t, err, "bit %d", bit)
		if bit/8 < value {
			require.Equal(t, "Ada", v, "bit %d", bit)
		}
		server.Del("{row:1}:lease")
	}
}
