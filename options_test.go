package readthrough_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestNewCache_NamesOptionOutOfRange(t *testing.T) {
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

func TestNew_NamesNumberOutOfRange(t *testing.T) {
	batch := readthrough.WithBatchLoader(func(context.Context, []int) (map[int]int, error) { return nil, nil })
	for name, row := range map[string]struct {
		good, bad []readthrough.CacheOption
	}{
		"WithLoadLimit": {
			good: []readthrough.CacheOption{readthrough.WithLoadLimit(0), readthrough.WithLoadLimit(1)},
			bad:  []readthrough.CacheOption{readthrough.WithLoadLimit(-1)},
		},
		"WithMaxRefreshes": {
			good: []readthrough.CacheOption{readthrough.WithMaxRefreshes(1)},
			bad:  []readthrough.CacheOption{readthrough.WithMaxRefreshes(0), readthrough.WithMaxRefreshes(-1)},
		},
		"WithBatchSize": {
			good: []readthrough.CacheOption{readthrough.WithBatchSize(1)},
			bad:  []readthrough.CacheOption{readthrough.WithBatchSize(0), readthrough.WithBatchSize(-1)},
		},
		"WithGather": {
			good: []readthrough.CacheOption{readthrough.WithGather(0, 1), readthrough.WithGather(time.Millisecond, 1)},
			bad: []readthrough.CacheOption{
				readthrough.WithGather(-1, 1), readthrough.WithGather(time.Millisecond, 0), readthrough.WithGather(0, -1),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				for _, opt := range row.good {
					wrapper(t, b.cache(t, opt), constant(1), batch)
				}
				client := b.client(t)
				for _, opt := range row.bad {
					_, err := readthrough.NewCache(client, opt)
					require.ErrorContains(t, err, name)
					if opt, ok := opt.(readthrough.Option); ok {
						_, err = readthrough.New(b.cache(t), "row", constant(1), readthrough.Int, batch, opt)
						require.ErrorContains(t, err, name)
					}
				}
			})
		})
	}
}

func TestNew_NamesBadInput(t *testing.T) {
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
}

func TestWithBatchLoader_RefusesOtherTypes(t *testing.T) {
	type id int
	batch := readthrough.WithBatchLoader(func(context.Context, []int) (map[int]string, error) { return nil, nil })
	cache, _ := newCache(t, batch) // the default of all wrappers
	_, err := readthrough.New(cache, "key", func(context.Context, string) (string, error) { return "", nil }, readthrough.String)
	require.ErrorContains(t, err, "WithBatchLoader")
	_, err = readthrough.New(cache, "named", func(context.Context, id) (string, error) { return "", nil }, readthrough.Int)
	require.ErrorContains(t, err, "WithBatchLoader")
	_, err = readthrough.New(cache, "value", constant(1), readthrough.Int)
	require.ErrorContains(t, err, "WithBatchLoader")
	_, err = readthrough.New(cache, "row", constant("a"), readthrough.Int)
	require.NoError(t, err)
	for _, size := range []int{0, -1} {
		_, err = readthrough.New(cache, "size", constant("a"), readthrough.Int, readthrough.WithBatchSize(size))
		require.ErrorContains(t, err, "WithBatchSize")
		_, err = readthrough.New(cache, "gather", constant("a"), readthrough.Int, readthrough.WithGather(time.Second, size))
		require.ErrorContains(t, err, "WithGather")
	}
	_, err = readthrough.New(cache, "window", constant("a"), readthrough.Int, readthrough.WithGather(-1, 1))
	require.ErrorContains(t, err, "WithGather")
	bare, _ := newCache(t)
	_, err = readthrough.New(bare, "row", constant(1), readthrough.Int, readthrough.WithGather(time.Second, 1))
	require.ErrorContains(t, err, "WithBatchLoader")
}

func TestWithGather_NeedsBatchLoader(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		gather := readthrough.WithGather(time.Millisecond, 10)
		_, err := readthrough.New(b.cache(t), "row", constant(1), readthrough.Int, gather)
		require.ErrorContains(t, err, "WithGather")
		require.ErrorContains(t, err, "WithBatchLoader")
		_, err = readthrough.New(b.cache(t, gather), "row", constant(1), readthrough.Int)
		require.ErrorContains(t, err, "WithGather")
		wrapper(t, b.cache(t), constant(1), readthrough.WithGather(0, 10)) // which is off
	})
}

func TestWithTTLFor_DecidesForEachValue(t *testing.T) {
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

func TestNoExpiry_KeepsEntryForGood(t *testing.T) {
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

func TestWithCodec_EncodesEntriesOfWrapper(t *testing.T) {
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
