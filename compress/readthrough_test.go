package compress_test

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/compress"
)

// process returns a wrapper of load in a Cache of its own, as each process of a fleet has one.
func process[V any](t *testing.T, server *miniredis.Miniredis, c readthrough.Codec, load func(int) V) *readthrough.ReadThrough[int, V] {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	cache, err := readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second), readthrough.WithCodec(c))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	})
	rt, err := readthrough.New(cache, "row", func(_ context.Context, n int) (V, error) { return load(n), nil }, readthrough.Int)
	require.NoError(t, err)
	return rt
}

func requireGet[V any](t *testing.T, rt *readthrough.ReadThrough[int, V], n int, want V, source readthrough.Source) {
	t.Helper()
	got, info, err := rt.GetInfo(t.Context(), n)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, source, info.Source, "source: %v", info.Source)
}

func TestNew_ServesAFleetThroughEachCodec(t *testing.T) {
	for name, wrap := range algorithms(t) {
		for inner, codec := range map[string]readthrough.Codec{"json": readthrough.JSON, "msgpack": readthrough.Msgpack} {
			t.Run(name+" of "+inner, func(t *testing.T) {
				server := miniredis.RunT(t)
				first := process(t, server, wrap(codec), orderOf)
				second := process(t, server, wrap(codec), orderOf)
				for n := range 10 {
					requireGet(t, first, n, orderOf(n), readthrough.SourceLoaded)
					requireGet(t, second, n, orderOf(n), readthrough.SourceHit)
				}
				stored, err := server.Get("row:1")
				require.NoError(t, err)
				require.Less(t, len(stored), len(marshal(t, codec, orderOf(1))))
			})
		}
	}
}

func TestNew_FleetMayChangeTheAlgorithm(t *testing.T) {
	server := miniredis.RunT(t)
	requireGet(t, process(t, server, compress.S2(readthrough.JSON), orderOf), 1, orderOf(1), readthrough.SourceLoaded)
	requireGet(t, process(t, server, compress.Zstd(readthrough.JSON), orderOf), 1, orderOf(1), readthrough.SourceHit)
}

func TestNew_TakesEntriesOfBeforeForMisses(t *testing.T) {
	for name, before := range map[string]readthrough.Codec{"json": readthrough.JSON, "msgpack": readthrough.Msgpack} {
		t.Run(name, func(t *testing.T) {
			server := miniredis.RunT(t)
			requireGet(t, process(t, server, before, orderOf), 1, orderOf(1), readthrough.SourceLoaded)
			rt := process(t, server, compress.Zstd(readthrough.JSON), orderOf)
			requireGet(t, rt, 1, orderOf(1), readthrough.SourceLoaded)
			requireGet(t, rt, 1, orderOf(1), readthrough.SourceHit)
		})
	}
}

func TestNew_TakesABombForAMiss(t *testing.T) {
	server := miniredis.RunT(t)
	large := process(t, server, compress.Zstd(readthrough.Raw), func(int) []byte { return zeros(8 << 20) })
	requireGet(t, large, 1, zeros(8<<20), readthrough.SourceLoaded)

	small := process(t, server, compress.Zstd(readthrough.Raw, compress.WithMaxBytes(1<<20)), func(int) []byte { return zeros(5) })
	requireGet(t, small, 1, zeros(5), readthrough.SourceLoaded)
	requireGet(t, small, 1, zeros(5), readthrough.SourceHit)
	require.EqualValues(t, 1, small.Stats().Corrupt)
}

func TestNew_ReturnsWhatIsTooLargeAndDoesNotStoreIt(t *testing.T) {
	server := miniredis.RunT(t)
	rt := process(t, server, compress.Zstd(readthrough.Raw, compress.WithMaxBytes(100)), func(int) []byte { return zeros(101) })
	requireGet(t, rt, 1, zeros(101), readthrough.SourceLoaded)
	require.False(t, server.Exists("row:1"))
	require.EqualValues(t, 1, rt.Stats().Unstorable)
}

func TestNew_KeepsNil(t *testing.T) {
	server := miniredis.RunT(t)
	rt := process(t, server, compress.S2(readthrough.Raw), func(int) []byte { return nil })
	requireGet(t, rt, 1, nil, readthrough.SourceLoaded)
	requireGet(t, rt, 1, nil, readthrough.SourceHit)
}
