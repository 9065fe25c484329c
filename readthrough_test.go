package readthrough_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestGet_LoadsOnceAndThenHits(t *testing.T) {
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

func TestGet_CachesZeroValues(t *testing.T) {
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

func TestGet_CachesNotFoundAsRegisteredError(t *testing.T) {
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

func TestGet_ReturnsOtherErrorsAsTheyAreAndCachesNone(t *testing.T) {
	cache, server := newCache(t)
	failure := errors.New("database down")
	users := readthrough.Must(readthrough.New(cache, "user", func(context.Context, int) (user, error) {
		return user{}, failure
	}, readthrough.Int))
	_, err := users.Get(t.Context(), 7)
	require.True(t, err == failure)
	require.Empty(t, server.Keys(), "neither the entry nor the lease stays")
}

func TestGet_SharesOneLoadAmongConcurrentCallers(t *testing.T) {
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

// TestGet_AfterInvalidateNeverJoinsOlderLoad is the join rule.
func TestGet_AfterInvalidateNeverJoinsOlderLoad(t *testing.T) {
	cache, _ := newCache(t)
	row := newRow("old")
	rows := readthrough.Must(readthrough.New(cache, "row", row.load, readthrough.Int))
	early := make(chan string)
	go func() { v, _ := rows.Get(context.Background(), 1); early <- v }()
	<-row.reading
	row.Store("new")
	require.NoError(t, rows.Invalidate(t.Context(), 1))
	late := make(chan string)
	go func() { v, _ := rows.Get(context.Background(), 1); late <- v }()
	require.Equal(t, "new", <-late, "not even by waiting for the older load")
	close(row.goOn)
	require.Equal(t, "old", <-early)
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

func TestGet_CancelsEachCallerAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		loading, goOn := make(chan struct{}), make(chan struct{})
		users := wrapper(t, b.cache(t), func(ctx context.Context, _ int) (string, error) {
			close(loading)
			select {
			case <-goOn:
				return "Ada", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error)
		go func() { _, err := users.Get(ctx, 1); first <- err }()
		<-loading
		second := make(chan string)
		go func() { v, _ := users.Get(context.Background(), 1); second <- v }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		close(goOn)
		require.Equal(t, "Ada", <-second)
	})
}

func TestGet_PanicsInCallerWhenLoaderPanics(t *testing.T) {
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

func TestGet_ReturnsErrorWhenLoaderCallsGoexit(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil })
	_, err := rows.Get(t.Context(), 1)
	require.ErrorContains(t, err, "Goexit")
	require.Empty(t, server.Keys())
}

func TestGet_EndsAtLoadTimeoutThatLoaderIgnores(t *testing.T) {
	cache, _ := newCache(t)
	goOn := make(chan struct{})
	rows := wrapper(t, cache, func(context.Context, int) (int, error) { <-goOn; return 0, nil }, readthrough.WithLoadTimeout(time.Millisecond))
	_, err := rows.Get(t.Context(), 1)
	close(goOn)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "load row:1")
}

func TestGet_CancelsLoadWhenLastCallerLeaves(t *testing.T) {
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

func TestGet_ReturnsAndCountsUnstorableValues(t *testing.T) {
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

func TestGet_TakesForeignBytesForMissAndOverwritesThem(t *testing.T) {
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

// TestGet_SurvivesEveryBitFlip flips each bit of an entry: none shows in the value.
func TestGet_SurvivesEveryBitFlip(t *testing.T) {
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant("Ada"))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	good, err := server.Get("row:1")
	require.NoError(t, err)
	for bit := range 8 * len(good) {
		flipped := []byte(good)
		flipped[bit/8] ^= 1 << (bit % 8)
		require.NoError(t, server.Set("row:1", string(flipped)))
		v, err := rows.Get(t.Context(), 1)
		require.NoError(t, err, "bit %d", bit)
		require.Equal(t, "Ada", v, "bit %d", bit)
		server.Del("{row:1}:lease")
	}
}

func TestGet_AnswersFromLoaderWhileRedisIsDown(t *testing.T) {
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

func TestRefresh_ReplacesWhatWasSet(t *testing.T) {
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

// TestGet_OfItsOwnKeyInLoaderWaitsForLoadTimeout holds what the documentation says of a loader that
// asks for the value it is to load: it waits for itself, until its load may take no longer.
func TestGet_OfItsOwnKeyInLoaderWaitsForLoadTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var rt *rows
		var inner error
		rt = wrapper(t, b.cache(t), func(ctx context.Context, k int) (int, error) {
			v, err := rt.Get(ctx, k)
			inner = err
			return v, err
		}, readthrough.WithLoadTimeout(time.Minute))
		got := ask(t.Context(), rt, 1)
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, got.took)
		synctest.Wait()
		require.ErrorIs(t, inner, context.DeadlineExceeded)
	})
}

// TestCaches_ShareEntriesOfOneNameAndPrefix holds that two Caches are to each other what two processes
// are, in one process too.
func TestCaches_ShareEntriesOfOneNameAndPrefix(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		one, two := b.process(t, db), b.process(t, db)
		requireValue(t, one, 1, readthrough.SourceLoaded)
		requireValue(t, two, 1, readthrough.SourceHit)
		db.change(func(d *database) { d.version = 2 })
		require.NoError(t, two.Invalidate(t.Context(), 1))
		requireValue(t, one, 2, readthrough.SourceLoaded)
	})
}
