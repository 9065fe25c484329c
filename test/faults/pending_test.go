package faults

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// cable is what connects a client with Redis.
type cable struct {
	cut      atomic.Bool
	attempts atomic.Int64 // that the cut has made fail
}

var errCut = errors.New("the cable is cut")

func (c *cable) client(server *redistest.Server) redis.UniversalClient {
	client := server.Client()
	client.AddHook(tripHook(func(cmds []redis.Cmder, send func() error) error {
		if c.cut.Load() {
			c.attempts.Add(1)
			return fail(cmds, errCut)
		}
		return send()
	}))
	return client
}

// row is what all rows of a database hold.
type row struct{ atomic.Value }

func newRow(v string) *row {
	r := new(row)
	r.Store(v)
	return r
}

func (r *row) load(context.Context, int) (string, error) { return r.Load().(string), nil }

// writerAndReader returns two wrappers of the same rows. The cable is the writer's.
func writerAndReader(t *testing.T, c *cable) (writer *readthrough.Cache, write, read *readthrough.ReadThrough[int, string], rows *row) {
	server := redistest.Start(t)
	writer = fleet(t, 1, func() redis.UniversalClient { return c.client(server) })[0]
	reader := fleet(t, 1, func() redis.UniversalClient { return server.Client() })[0]
	rows = newRow("before")
	return writer, wrapper(t, writer, rows.load), wrapper(t, reader, rows.load), rows
}

func requireRead(t *testing.T, v string, read *readthrough.ReadThrough[int, string], ids ...int) {
	t.Helper()
	for _, id := range ids {
		got, err := read.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, v, got)
	}
}

func TestInvalidate_IsRetriedUntilItSucceeds(t *testing.T) {
	t.Parallel()
	var c cable
	writer, write, read, rows := writerAndReader(t, &c)
	requireRead(t, "before", read, 1, 2, 3)
	rows.Store("after")

	c.cut.Store(true)
	err := write.Invalidate(t.Context(), 1, 2)
	require.ErrorIs(t, err, errCut)
	require.ErrorContains(t, err, "row:1")
	require.ErrorContains(t, err, "row:2")
	require.EqualValues(t, 2, writer.Stats().PendingInvalidations)
	require.ErrorIs(t, write.Invalidate(t.Context(), 2), errCut)
	require.ErrorContains(t, write.Set(t.Context(), 3, "after"), "row:3")
	require.EqualValues(t, 3, writer.Stats().PendingInvalidations, "a key counts once")
	failed := c.attempts.Load()
	require.Eventually(t, func() bool { return c.attempts.Load() >= failed+2 }, soon, time.Millisecond)
	require.EqualValues(t, 3, writer.Stats().PendingInvalidations, "attempts that failed change nothing")
	requireRead(t, "before", read, 1, 2, 3)

	c.cut.Store(false)
	require.Eventually(t, func() bool { return writer.Stats().PendingInvalidations == 0 }, soon, time.Millisecond)
	requireRead(t, "after", read, 1, 2, 3)
}

func TestInvalidate_IsDroppedWhenNoEntryCanBeLeft(t *testing.T) {
	t.Parallel()
	var c cable
	server := redistest.Start(t)
	cache := fleet(t, 1, func() redis.UniversalClient { return c.client(server) },
		readthrough.WithTTL(time.Millisecond), readthrough.WithLoadTimeout(time.Millisecond))[0]
	c.cut.Store(true)
	lasting := map[string]readthrough.Option{
		"ttl":       readthrough.WithTTL(time.Hour),
		"forever":   readthrough.WithTTL(readthrough.NoExpiry),
		"stale":     readthrough.WithStale(time.Hour),
		"load":      readthrough.WithLoadTimeout(time.Hour), // one that had begun may fill as late
		"not-found": readthrough.WithNotFound(time.Hour, errors.New("none")),
		"ttl-for":   readthrough.WithTTLFor(func(int) time.Duration { return 0 }),
	}
	invalidate := func(name string, opts ...readthrough.Option) {
		rows := readthrough.Must(readthrough.New(cache, name, constant(1), readthrough.Int, opts...))
		require.ErrorContains(t, rows.Invalidate(t.Context(), 1), name+":1")
	}
	for name, opt := range lasting {
		invalidate(name, opt)
	}
	require.EqualValues(t, len(lasting), cache.Stats().PendingInvalidations)

	invalidate("brief")
	failed := c.attempts.Load()
	require.Eventually(t, func() bool { return c.attempts.Load() >= failed+2 }, soon, time.Millisecond)

	require.EqualValues(t, len(lasting), cache.Stats().PendingInvalidations)
	server.ResetStats()
	c.cut.Store(false)
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, soon, time.Millisecond)
	require.EqualValues(t, 2*len(lasting), server.CommandStats()["unlink"], "what was dropped is not sent")
}

func TestClose_TriesPendingInvalidationsLastTime(t *testing.T) {
	t.Parallel()
	var c cable
	writer, write, read, rows := writerAndReader(t, &c)
	requireRead(t, "before", read, 1, 2)
	rows.Store("after")
	c.cut.Store(true)
	require.Error(t, write.Invalidate(t.Context(), 1, 2))
	// The pause before the next attempt in the background doubles: by now it is so long that Close
	// comes first.
	require.Eventually(t, func() bool { return c.attempts.Load() >= 5 }, soon, time.Millisecond)

	c.cut.Store(false)
	require.NoError(t, writer.Close())

	require.Zero(t, writer.Stats().PendingInvalidations)
	requireRead(t, "after", read, 1, 2)
}

func TestClose_NamesKeysThatAreStillPending(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	cache := fleet(t, 1, func() redis.UniversalClient { return server.Client(once) })[0]
	rows := wrapper(t, cache, constant(1))
	server.Kill()
	require.ErrorContains(t, rows.Invalidate(t.Context(), 1, 2), "row:1, row:2")

	err := cache.Close()

	require.ErrorContains(t, err, "close")
	require.ErrorContains(t, err, "row:1, row:2")
	require.EqualValues(t, 2, cache.Stats().PendingInvalidations)
}
