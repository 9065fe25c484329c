package faults

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// defaults returns a Cache with the settings that users begin with, unless opts change them.
func defaults(t *testing.T, client redis.UniversalClient, opts ...readthrough.CacheOption) *readthrough.Cache {
	t.Helper()
	if underRace {
		opts = append([]readthrough.CacheOption{readthrough.WithRedisTimeout(time.Second)}, opts...)
	}
	cache, err := readthrough.NewCache(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache
}

// TestGetMany_HitsLargeValues reads twenty megabytes at a time: what keeps arriving is not given up.
func TestGetMany_HitsLargeValues(t *testing.T) {
	const size, n = 20 << 10, 1000
	server := redistest.Start(t)
	value := bytes.Repeat([]byte("x"), size)
	cache := defaults(t, server.Client())
	rows := wrapper(t, cache, constant(value), readthrough.WithBatchLoader(func(_ context.Context, ids []int) (map[int][]byte, error) {
		m := make(map[int][]byte, len(ids))
		for _, id := range ids {
			m[id] = value
		}
		return m, nil
	}))
	ids := upTo(n)
	for range 3 {
		results, err := rows.GetMany(t.Context(), ids)
		require.NoError(t, err)
		for _, r := range results {
			require.NoError(t, r.Err)
			require.Len(t, r.Value, size)
		}
	}
	stats := rows.Stats()
	require.EqualValues(t, n, stats.Loads)
	require.EqualValues(t, 2*n, stats.Hits)
	require.Zero(t, cache.Stats().RedisErrors)

	// Another process, which has not learned how large they are.
	fresh := wrapper(t, defaults(t, server.Client()), constant([]byte(nil)))
	_, err := fresh.GetMany(t.Context(), ids)
	require.NoError(t, err)
	require.EqualValues(t, n, fresh.Stats().Hits)
}

// TestGet_HitsLargeValuesOfManyCallers moves 128 MiB in each round, and small values meanwhile.
func TestGet_HitsLargeValuesOfManyCallers(t *testing.T) {
	const size, callers = 256 << 10, 512
	for name, id := range map[string]func(int) int{
		"distinct keys": func(i int) int { return i },
		"one key":       func(int) int { return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			value := strings.Repeat("x", size)
			cache := defaults(t, server.Client())
			rows := wrapper(t, cache, constant(value))
			small := readthrough.Must(readthrough.New(cache, "small", func(_ context.Context, id int) (int, error) { return id, nil }, readthrough.Int))
			keys := make(map[int]bool)
			for i := range callers {
				keys[id(i)] = true
			}
			for i := range 100 {
				_, err := small.Get(t.Context(), i)
				require.NoError(t, err)
			}
			round := func(rows *readthrough.ReadThrough[int, string]) {
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						v, err := rows.Get(t.Context(), id(i))
						if err != nil || len(v) != size {
							t.Errorf("%d bytes, %v", len(v), err)
						}
						if v, err := small.Get(t.Context(), i%100); v != i%100 || err != nil {
							t.Error(v, err)
						}
					})
				}
				wg.Wait()
			}
			for range 3 {
				round(rows)
			}
			require.EqualValues(t, len(keys), rows.Stats().Loads)
			require.EqualValues(t, 100, small.Stats().Loads)
			require.Zero(t, cache.Stats().RedisErrors)
			fresh := wrapper(t, defaults(t, server.Client()), constant(""))
			round(fresh)
			require.Zero(t, fresh.Stats().Loads)
		})
	}
}
