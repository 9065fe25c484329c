package readthrough_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// disabled returns a wrapper in a Disabled Cache whose loader counts: its values are the key and the
// number of the load.
func disabled(t *testing.T, opts ...readthrough.Option) (*readthrough.Cache, *readthrough.ReadThrough[int, string]) {
	t.Helper()
	cache := readthrough.Disabled()
	var loads atomic.Int64
	load := func(_ context.Context, k int) (string, error) {
		n := loads.Add(1)
		if k < 0 {
			return "", errDown
		}
		return strconv.Itoa(k) + "/" + strconv.FormatInt(n, 10), nil
	}
	return cache, wrapper(t, cache, load, opts...)
}

func TestDisabled_LoadsForEachRead(t *testing.T) {
	t.Parallel()
	cache, rt := disabled(t)
	for _, want := range []string{"7/1", "7/2"} {
		v, info, err := rt.GetInfo(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, want, v)
		require.Equal(t, readthrough.SourceLoaded, info.Source)
		require.False(t, info.Stored)
	}
	v, err := rt.Refresh(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, "7/3", v)
	_, err = rt.Get(t.Context(), -1)
	require.ErrorIs(t, err, errDown)

	want := readthrough.Stats{Misses: 3, Loads: 4, LoadErrors: 1}
	require.Equal(t, want, rt.Stats())
	require.Equal(t, want, cache.Stats())
}

func TestDisabled_KeepsNothingThatIsWritten(t *testing.T) {
	t.Parallel()
	cache, rt := disabled(t, readthrough.WithStale(time.Hour))
	ctx := t.Context()
	require.NoError(t, rt.Set(ctx, 7, "set"))
	require.NoError(t, rt.SetMany(ctx, maps.All(map[int]string{7: "set", 8: "set"})))
	require.NoError(t, readthrough.Set(ctx, cache, "row:7", "set", time.Hour))
	_, err := rt.Peek(ctx, 7)
	require.Equal(t, readthrough.ErrMiss, err)
	_, err = readthrough.Get[string](ctx, cache, "row:7")
	require.Equal(t, readthrough.ErrMiss, err)
	v, err := rt.Get(ctx, 7)
	require.NoError(t, err)
	require.Equal(t, "7/1", v)
	require.NoError(t, rt.Expire(ctx, 7))
	require.NoError(t, rt.Invalidate(ctx, 7, 8))
	require.NoError(t, cache.Delete(ctx, "row:7"))
	stats := cache.Stats()
	require.Zero(t, stats.RedisErrors)
	require.Zero(t, stats.PendingInvalidations)
	require.EqualValues(t, 1+2+1+1+2+1, stats.Invalidations)
}

func TestDisabled_CallsBatchLoaderForMany(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]readthrough.Option{"": nil, "gathered": {readthrough.WithGather(time.Millisecond, 10)}} {
		var batches [][]int
		_, rt := disabled(t, append(opts, readthrough.WithBatchLoader(func(_ context.Context, ks []int) (map[int]string, error) {
			batches = append(batches, slices.Clone(ks))
			return map[int]string{1: "one", 2: "two"}, nil
		}))...)
		results, err := rt.GetMany(t.Context(), []int{1, 2, 3, 2})
		require.NoError(t, err)
		require.Equal(t, []readthrough.Result[string]{{Value: "one"}, {Value: "two"}, {Err: readthrough.ErrNotFound}, {Value: "two"}}, results)
		require.Equal(t, [][]int{{1, 2, 3}}, batches, name)
		require.EqualValues(t, 3, rt.Stats().Loads)
	}
	_, rt := disabled(t)
	warmed, err := rt.Warm(t.Context(), slices.Values([]int{1, 2, -1}))
	require.NoError(t, err)
	require.Equal(t, readthrough.Warmed{Loaded: 2, Failed: 1}, warmed)
}

func TestDisabled_GuardsLoads(t *testing.T) {
	t.Parallel()
	cache := readthrough.Disabled()
	hang := readthrough.Must(readthrough.New(cache, "hang", func(ctx context.Context, _ string) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}, readthrough.String, readthrough.WithLoadTimeout(20*time.Millisecond)))
	_, err := hang.Get(t.Context(), "k")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = hang.Get(t.Context(), "")
	require.ErrorIs(t, err, readthrough.ErrEmptyKey)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = hang.Get(cancelled, "k")
	require.ErrorIs(t, err, context.Canceled)

	panics := readthrough.Must(readthrough.New(cache, "panic", func(context.Context, string) (int, error) { panic("no") }, readthrough.String))
	func() {
		defer func() {
			p, ok := recover().(*readthrough.PanicError)
			require.True(t, ok)
			require.Equal(t, "no", p.Value)
		}()
		_, _ = panics.Get(t.Context(), "k")
	}()
	_, err = readthrough.New(cache, "panic", constant(1), readthrough.Int)
	require.ErrorContains(t, err, "has a wrapper of the name")
}

func TestDisabled_RefusesCallsAfterClose(t *testing.T) {
	t.Parallel()
	cache, rt := disabled(t)
	require.NoError(t, cache.Close())
	require.NoError(t, cache.Close())
	_, err := rt.Get(t.Context(), 7)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	require.ErrorIs(t, rt.Invalidate(t.Context(), 7), readthrough.ErrClosed)
}
