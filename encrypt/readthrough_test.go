package encrypt_test

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/encrypt"
)

// process returns a wrapper that loads ada for any key, in a Cache of its own, as each process of a
// fleet has one.
func process(t *testing.T, server *miniredis.Miniredis, c readthrough.Codec) *readthrough.ReadThrough[int, user] {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	cache, err := readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second), readthrough.WithCodec(c))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	})
	rt, err := readthrough.New(cache, "user", func(context.Context, int) (user, error) { return ada, nil }, readthrough.Int)
	require.NoError(t, err)
	return rt
}

func requireGet(t *testing.T, rt *readthrough.ReadThrough[int, user], n int, source readthrough.Source) {
	t.Helper()
	got, info, err := rt.GetInfo(t.Context(), n)
	require.NoError(t, err)
	require.Equal(t, ada, got)
	require.Equal(t, source, info.Source, "source: %v", info.Source)
}

var _ readthrough.KeyedCodec = (*encrypt.Codec)(nil)

func TestNew_ServesAFleetWithTheKey(t *testing.T) {
	server := miniredis.RunT(t)
	at := func(ids ...uint32) readthrough.Codec { return codecOf(t, readthrough.JSON, ids...) }
	requireGet(t, process(t, server, at(1)), 1, readthrough.SourceLoaded)
	stored, err := server.Get("user:1")
	require.NoError(t, err)
	require.NotContains(t, stored, "Ada")

	requireGet(t, process(t, server, at(2, 1)), 1, readthrough.SourceHit)
	requireGet(t, process(t, server, at(2)), 1, readthrough.SourceLoaded) // an unknown key is a miss
	requireGet(t, process(t, server, at(2)), 1, readthrough.SourceHit)
}

func TestNew_TellsTheCodecTheRedisKeyWhereverItIsCalled(t *testing.T) {
	server := miniredis.RunT(t)
	c := codecOf(t, readthrough.JSON, 1)
	first, second := process(t, server, c), process(t, server, c)
	for n := range 5 {
		requireGet(t, first, n, readthrough.SourceLoaded)
		requireGet(t, second, n, readthrough.SourceHit)
	}
	results, err := second.GetMany(t.Context(), []int{1, 1, 2, 7, 7, 8})
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
		require.Equal(t, ada, r.Value)
	}
	require.NoError(t, first.Set(t.Context(), 9, ada))
	requireGet(t, second, 9, readthrough.SourceHit)
	_, err = first.Refresh(t.Context(), 9)
	require.NoError(t, err)
	requireGet(t, second, 9, readthrough.SourceHit)
	require.Zero(t, first.Stats().Unstorable)
	require.Zero(t, second.Stats().Corrupt)
}

func TestNew_TakesAnEntryCopiedToAnotherKeyForAMiss(t *testing.T) {
	server := miniredis.RunT(t)
	c := codecOf(t, readthrough.JSON, 1)
	first, second := process(t, server, c), process(t, server, c)
	requireGet(t, first, 1, readthrough.SourceLoaded)
	stored, err := server.Get("user:1")
	require.NoError(t, err)
	require.NoError(t, server.Set("user:2", stored))
	requireGet(t, second, 2, readthrough.SourceLoaded)
	requireGet(t, first, 2, readthrough.SourceHit)
	require.EqualValues(t, 1, second.Stats().Corrupt)
}

func TestSet_TellsTheCodecTheRedisKey(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	cache, err := readthrough.NewCache(client, readthrough.WithCodec(codecOf(t, readthrough.JSON, 1)))
	require.NoError(t, err)
	defer cache.Close()
	require.NoError(t, readthrough.Set(t.Context(), cache, "raw", 7, time.Minute))
	n, err := readthrough.Get[int](t.Context(), cache, "raw")
	require.NoError(t, err)
	require.Equal(t, 7, n)
	stored, err := server.Get("raw")
	require.NoError(t, err)
	require.NoError(t, server.Set("other", stored))
	_, err = readthrough.Get[int](t.Context(), cache, "other")
	require.ErrorIs(t, err, readthrough.ErrMiss)
}
