package readthrough_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func newCache(t testing.TB, opts ...readthrough.CacheOption) (*readthrough.Cache, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
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

func newRow(v string) *row {
	r := &row{reading: make(chan struct{}), goOn: make(chan struct{})}
	r.Store(v)
	return r
}

func (r *row) load(context.Context, int) (string, error) {
	v := r.Load().(string)
	if v == "old" {
		r.reading <- struct{}{}
		<-r.goOn
	}
	return v, nil
}

func TestGetLoadsOnceAndThenHits(t *testing.T) {
	cache, server := newCache(t)
	var loads atomic.Int64
	users := readthrough.Must(readthrough.New(cache, "user", func(_ context.Context, id int) (user, error) {
		loads.Add(1)
		return user{"Ada", []string{"x"}}, nil
	}, readthrough.Int, readthrough.WithTTL(time.Minute)))
	for range 3 {
		u, err := users.Get(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, user{"Ada", []string{"x"}}, u)
	}
	require.EqualValues(t, 1, loads.Load())
	require.True(t, server.Exists("user:7"))
	require.False(t, server.Exists("{user:7}:lease"), "the lease is given back")
	require.InDelta(t, time.Minute, server.TTL("user:7"), float64(7*time.Second))
	s := users.Stats()
	require.EqualValues(t, []int64{2, 1, 1, 1}, []int64{s.Hits, s.Misses, s.Loads, s.Fills})
}

func TestZeroValuesAreValues(t *testing.T) {
	cache, _ := newCache(t)
	var loads atomic.Int64
	counts := readthrough.Must(readthrough.New(cache, "count", func(context.Context, string) (int, error) {
		loads.Add(1)
		return 0, nil
	}, readthrough.String))
	nils := readthrough.Must(readthrough.New(cache, "nil", func(context.Context, string) (*user, error) {
		loads.Add(1)
		return nil, nil
	}, readthrough.String))
	for range 2 {
		n, err := counts.Get(t.Context(), "a")
		require.NoError(t, err)
		require.Zero(t, n)
		u, err := nils.Get(t.Context(), "a")
		require.NoError(t, err)
		require.Nil(t, u)
	}
	require.EqualValues(t, 2, loads.Load())
}

func TestNotFoundIsCachedAsTheRegisteredError(t *testing.T) {
	errNone, errGone := errors.New("none"), errors.New("gone")
	cache, _ := newCache(t)
	var loads atomic.Int64
	users := readthrough.Must(readthrough.New(cache, "user", func(context.Context, int) (user, error) {
		loads.Add(1)
		return user{}, errors.Join(errors.New("row 7"), errGone)
	}, readthrough.Int, readthrough.WithNotFound(time.Minute, errNone, errGone)))
	_, err := users.Get(t.Context(), 7)
	require.ErrorIs(t, err, errGone)
	_, err = users.Get(t.Context(), 7)
	require.True(t, err == errGone, "the very sentinel: %v", err)
	require.EqualValues(t, 1, loads.Load())
}

func TestOtherErrorsAreReturnedAsTheyAreAndNotCached(t *testing.T) {
	cache, server := newCache(t)
	failure := errors.New("database down")
	users := readthrough.Must(readthrough.New(cache, "user", func(context.Context, int) (user, error) {
		return user{}, failure
	}, readthrough.Int))
	_, err := users.Get(t.Context(), 7)
	require.True(t, err == failure)
	require.Empty(t, server.Keys(), "neither the entry nor the lease stays")
}

func TestConcurrentCallersShareOneLoad(t *testing.T) {
	cache, _ := newCache(t)
	var loads atomic.Int64
	users := readthrough.Must(readthrough.New(cache, "user", func(context.Context, int) (user, error) {
		loads.Add(1)
		return user{"Ada", []string{"x"}}, nil
	}, readthrough.Int))
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() {
			u, err := users.Get(t.Context(), 1)
			if err != nil || u.Tags[0] != "x" {
				t.Errorf("got %v, %v", u, err)
				return
			}
			u.Tags[0] = "mine" // nobody else may see it
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, loads.Load())
}

// TestGetAfterInvalidateNeverJoinsAnOlderLoad is the join rule.
func TestGetAfterInvalidateNeverJoinsAnOlderLoad(t *testing.T) {
	for name, opts := range map[string][]readthrough.Option{"lease": nil, "without lease": {readthrough.WithoutLease()}} {
		t.Run(name, func(t *testing.T) {
			cache, _ := newCache(t)
			row := newRow("old")
			rows := readthrough.Must(readthrough.New(cache, "row", row.load, readthrough.Int, opts...))
			early := make(chan string)
			go func() { v, _ := rows.Get(context.Background(), 1); early <- v }()
			<-row.reading
			row.Store("new")
			require.NoError(t, rows.Invalidate(t.Context(), 1))
			late := make(chan string)
			go func() { v, _ := rows.Get(context.Background(), 1); late <- v }()
			if name == "lease" {
				require.Equal(t, "new", <-late, "not even by waiting for the older load")
			}
			close(row.goOn)
			require.Equal(t, "old", <-early)
			if name != "lease" {
				require.Equal(t, "new", <-late)
			}
			v, err := rows.Get(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, "new", v)
		})
	}
}

func TestCancellationIsPerCaller(t *testing.T) {
	cache, _ := newCache(t)
	loading, goOn := make(chan struct{}), make(chan struct{})
	users := readthrough.Must(readthrough.New(cache, "user", func(ctx context.Context, _ int) (string, error) {
		close(loading)
		select {
		case <-goOn:
			return "Ada", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}, readthrough.Int))
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { _, err := users.Get(ctx, 1); first <- err }()
	<-loading
	second := make(chan string)
	go func() { v, _ := users.Get(context.Background(), 1); second <- v }()
	require.Eventually(t, func() bool { return users.Stats().Misses == 2 }, 5*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	close(goOn)
	require.Equal(t, "Ada", <-second)
}

func TestPanicOfTheLoaderSurfacesInTheCaller(t *testing.T) {
	cache, _ := newCache(t)
	users := readthrough.Must(readthrough.New(cache, "user", func(context.Context, int) (user, error) {
		panic("boom")
	}, readthrough.Int))
	defer func() {
		p, ok := recover().(*readthrough.PanicError)
		require.True(t, ok)
		require.Contains(t, p.Error(), "boom")
		require.Contains(t, p.Error(), "readthrough_test.go", "the loader's stack")
	}()
	_, _ = users.Get(t.Context(), 1)
	t.Fatal("no panic")
}

func TestForeignBytesAreAMissAndOverwritten(t *testing.T) {
	cache, server := newCache(t)
	users := readthrough.Must(readthrough.New(cache, "user", func(context.Context, int) (string, error) {
		return "Ada", nil
	}, readthrough.Int))
	_, err := users.Get(t.Context(), 1)
	require.NoError(t, err)
	good, err := server.Get("user:1")
	require.NoError(t, err)
	for n := range len(good) - 1 {
		require.NoError(t, server.Set("user:1", good[:n]))
		v, err := users.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "Ada", v)
	}
	server.Del("user:1")
	_, err = server.Lpush("user:1", "wrong type")
	require.NoError(t, err)
	v, err := users.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "Ada", v)
	require.EqualValues(t, len(good), users.Stats().Corrupt)
	_, err = server.Get("user:1")
	require.NoError(t, err, "overwritten")
}

func TestRedisDownMeansTheLoaderAnswers(t *testing.T) {
	cache, server := newCache(t)
	users := readthrough.Must(readthrough.New(cache, "user", func(context.Context, int) (string, error) {
		return "Ada", nil
	}, readthrough.Int))
	server.Close()
	for range 8 {
		v, err := users.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "Ada", v)
	}
	require.Error(t, users.Invalidate(t.Context(), 1))
	require.EqualValues(t, 1, cache.Stats().PendingInvalidations)
	require.NoError(t, server.Start())
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 10*time.Second, 5*time.Millisecond)
}

func TestSetPeekRefreshAndMany(t *testing.T) {
	cache, _ := newCache(t)
	var version atomic.Int64
	rows := readthrough.Must(readthrough.New(cache, "row", func(_ context.Context, id int) (int64, error) {
		return version.Load(), nil
	}, readthrough.Int))
	_, err := rows.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrMiss)
	require.NoError(t, rows.Set(t.Context(), 1, 41))
	v, err := rows.Peek(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 41, v)
	version.Store(42)
	v, err = rows.Refresh(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 42, v)
	rs, err := rows.GetMany(t.Context(), []int{1, 2, 1})
	require.NoError(t, err)
	require.Equal(t, []readthrough.Result[int64]{{Value: 42}, {Value: 42}, {Value: 42}}, rs)
}

func TestGetManyLoadsMissesInOneBatch(t *testing.T) {
	cache, _ := newCache(t)
	var batches atomic.Int64
	rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int, error) {
		return 0, errors.New("not called")
	}, readthrough.Int, readthrough.WithBatchLoader(func(_ context.Context, ids []int) (map[int]int, error) {
		batches.Add(1)
		m := map[int]int{}
		for _, id := range ids {
			if id != 3 {
				m[id] = id * id
			}
		}
		return m, nil
	})))
	rs, err := rows.GetMany(t.Context(), []int{1, 2, 3})
	require.NoError(t, err)
	require.Equal(t, []readthrough.Result[int]{{Value: 1}, {Value: 4}, {Err: readthrough.ErrMiss}}, rs)
	require.LessOrEqual(t, batches.Load(), int64(3))
}

func TestBadInputIsNamed(t *testing.T) {
	cache, _ := newCache(t)
	load := func(context.Context, int) (int, error) { return 0, nil }
	_, err := readthrough.New(cache, "a b", load, readthrough.Int)
	require.ErrorContains(t, err, "a b")
	_, err = readthrough.New(cache, "x", load, readthrough.Int, readthrough.WithTTL(0))
	require.ErrorContains(t, err, "WithTTL")
	_, err = readthrough.New(cache, "x", load, readthrough.Int, readthrough.WithTTLFor(func(string) time.Duration { return 0 }))
	require.ErrorContains(t, err, "WithTTLFor")
	_, err = readthrough.New(cache, "x", load, readthrough.Int, readthrough.WithBatchLoader(func(context.Context, []string) (map[string]int, error) { return nil, nil }))
	require.ErrorContains(t, err, "WithBatchLoader")
	_, err = readthrough.New(cache, "x", load, readthrough.Int)
	require.NoError(t, err)
	_, err = readthrough.New(cache, "x", load, readthrough.Int)
	require.ErrorContains(t, err, `"x"`)
	_, err = readthrough.NewCache(nil)
	require.ErrorContains(t, err, "client")
	keys := readthrough.Must(readthrough.New(cache, "s", func(context.Context, string) (int, error) { return 0, nil }, readthrough.String))
	_, err = keys.Get(t.Context(), "")
	require.ErrorIs(t, err, readthrough.ErrEmptyKey)
	key, err := keys.RedisKey("a{b}%")
	require.NoError(t, err)
	require.Equal(t, "s:a%7Bb%7D%25", key)
}
