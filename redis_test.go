package readthrough_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// fleet is n Caches with a client each: what n processes would have.
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

func TestColdKeyIsLoadedOnceInTheFleet(t *testing.T) {
	for name, start := range map[string]func() func() redis.UniversalClient{
		"standalone": func() func() redis.UniversalClient {
			server := redistest.Start(t)
			return func() redis.UniversalClient { return server.Client() }
		},
		"cluster": func() func() redis.UniversalClient {
			cluster := redistest.StartCluster(t, 3, 0)
			return func() redis.UniversalClient { return cluster.Client() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			var loads atomic.Int64
			var wg sync.WaitGroup
			for _, cache := range fleet(t, 4, start()) {
				rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int, error) {
					return int(loads.Add(1)), nil
				}, readthrough.Int))
				for range 250 {
					wg.Go(func() {
						if v, err := rows.Get(t.Context(), 1); err != nil || v != 1 {
							t.Errorf("got %d, %v", v, err)
						}
					})
				}
			}
			wg.Wait()
			require.EqualValues(t, 1, loads.Load())
		})
	}
}

func TestInvalidateRefusesTheFillOfAnotherProcess(t *testing.T) {
	server := redistest.Start(t)
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
	row := newRow("old")
	reader := readthrough.Must(readthrough.New(caches[0], "row", row.load, readthrough.Int))
	writer := readthrough.Must(readthrough.New(caches[1], "row", func(context.Context, int) (string, error) {
		return row.Load().(string), nil
	}, readthrough.Int))

	early := make(chan string)
	go func() { v, _ := reader.Get(context.Background(), 1); early <- v }()
	<-row.reading
	row.Store("new")
	require.NoError(t, writer.Invalidate(t.Context(), 1))
	late := make(chan string)
	go func() { v, _ := reader.Get(context.Background(), 1); late <- v }()
	require.Eventually(t, func() bool { return reader.Stats().Misses == 2 }, 5*time.Second, time.Millisecond)
	close(row.goOn)

	require.Equal(t, "old", <-early, "it began before the invalidation")
	require.Equal(t, "new", <-late, "it joined the older load, in the same process")
	require.EqualValues(t, 1, reader.Stats().RefusedFills)
	v, err := writer.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

func TestRoundTripsOfAHitAndAMiss(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client()
	var trips atomic.Int64
	client.AddHook(&redistest.TripCounter{Trips: &trips})
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	rows := readthrough.Must(readthrough.New(cache, "row", func(_ context.Context, id int) (int, error) { return id, nil }, readthrough.Int))
	_, err := rows.Get(t.Context(), 1) // also teaches Redis the script
	require.NoError(t, err)
	for name, want := range map[int]int64{2: 3, 1: 1} { // a miss, a hit
		before := trips.Load()
		_, err = rows.Get(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, trips.Load()-before, "key %d", name)
	}
}

func TestStaleIsServedWhileOneLoadRefreshesAndWhenItFails(t *testing.T) {
	cache, _ := newCache(t)
	var version atomic.Int64
	version.Store(1)
	loaded := make(chan struct{}, 9)
	rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int64, error) {
		defer func() { loaded <- struct{}{} }()
		if v := version.Load(); v > 0 {
			return v, nil
		}
		return 0, errors.New("database down")
	}, readthrough.Int, readthrough.WithTTL(time.Millisecond), readthrough.WithStale(time.Hour)))
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	<-loaded
	version.Store(0)
	require.Eventually(t, func() bool {
		v, err := rows.Get(t.Context(), 1)
		return err == nil && v == 1 && rows.Stats().LoadErrors == 1
	}, 5*time.Second, time.Millisecond)
	v, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, v)
	require.EqualValues(t, 1, rows.Stats().LoadErrors, "the next attempt waits")
}
