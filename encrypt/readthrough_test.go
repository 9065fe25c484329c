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

// tied tells a codec of one entry its key, as a Cache tells each.
type tied struct {
	codec *encrypt.Codec
	key   string
}

func (c tied) Marshal(v any) ([]byte, error)      { return c.codec.MarshalKey(c.key, v) }
func (c tied) Unmarshal(data []byte, v any) error { return c.codec.UnmarshalKey(c.key, data, v) }

func TestNew_ServesAFleetWithTheKey(t *testing.T) {
	server := miniredis.RunT(t)
	at := func(ids ...uint32) readthrough.Codec { return tied{codecOf(t, readthrough.JSON, ids...), "user:1"} }
	requireGet(t, process(t, server, at(1)), 1, readthrough.SourceLoaded)
	stored, err := server.Get("user:1")
	require.NoError(t, err)
	require.NotContains(t, stored, "Ada")

	requireGet(t, process(t, server, at(2, 1)), 1, readthrough.SourceHit)
	requireGet(t, process(t, server, at(2)), 1, readthrough.SourceLoaded) // an unknown key is a miss
	requireGet(t, process(t, server, at(2)), 1, readthrough.SourceHit)
}

func TestNew_TakesAnEntryCopiedToAnotherKeyForAMiss(t *testing.T) {
	server := miniredis.RunT(t)
	first := process(t, server, tied{codecOf(t, readthrough.JSON, 1), "user:1"})
	requireGet(t, first, 1, readthrough.SourceLoaded)
	stored, err := server.Get("user:1")
	require.NoError(t, err)
	require.NoError(t, server.Set("user:2", stored))

	second := process(t, server, tied{codecOf(t, readthrough.JSON, 1), "user:2"})
	requireGet(t, second, 2, readthrough.SourceLoaded)
	require.EqualValues(t, 1, second.Stats().Corrupt)
}
