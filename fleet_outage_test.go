package readthrough_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// tripHook is a hook for a whole round trip, of one command or a pipeline. Where it fails, so does each command.
type tripHook func(cmds []redis.Cmder, send func() error) error

func (h tripHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h tripHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h([]redis.Cmder{cmd}, func() error { return next(ctx, cmd) })
	}
}

func (h tripHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return h(cmds, func() error { return next(ctx, cmds) })
	}
}

func fail(cmds []redis.Cmder, err error) error {
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
	return err
}

// once is a client that learns of an outage at its first attempt.
func once(o *redis.Options) { o.MaxRetries, o.DialerRetries = -1, 1 }

// step recognizes a step of the protocol by what is sent.
type step func(cmds []redis.Cmder) bool

func command(name string) step {
	return func(cmds []redis.Cmder) bool { return cmds[0].Name() == name }
}

// script recognizes a script, known to the server or not, by how many keys and arguments it takes.
func script(keys, args int) step {
	return func(cmds []redis.Cmder) bool {
		sent := cmds[0].Args()
		return strings.HasPrefix(cmds[0].Name(), "eval") && sent[2] == keys && len(sent) == 3+keys+args
	}
}

// outage is when and how Redis goes: strike is what the test does to the server at the given step.
type outage struct {
	strike func(*redistest.Server)
	// sent: the step is carried out, and only its answer is lost.
	sent bool
}

// hook stops at the first round trip of the step, says so, and goes on when the server was struck.
func (o outage) hook(at step, reached chan<- struct{}, struck <-chan struct{}) tripHook {
	var first sync.Once
	return func(cmds []redis.Cmder, send func() error) error {
		if !at(cmds) {
			return send()
		}
		if o.sent {
			if err := send(); redis.HasErrorPrefix(err, "NOSCRIPT") {
				return err // not carried out: it is sent again, with the script
			}
		}
		first.Do(func() { close(reached); <-struck })
		if o.sent {
			return fail(cmds, io.ErrUnexpectedEOF)
		}
		return send()
	}
}

func TestLoaderAnswersWhereverRedisGoes(t *testing.T) {
	t.Parallel()
	tooLarge := readthrough.WithMaxEntryBytes(1)
	for stepName, row := range map[string]struct {
		at   step
		slow bool // the load lasts until Redis has gone
		opts []readthrough.Option
	}{
		"get":     {at: command("get")},
		"acquire": {at: command("set")},
		"renew":   {at: script(1, 2), slow: true, opts: []readthrough.Option{readthrough.WithLeaseTTL(300 * time.Millisecond)}},
		"fill":    {at: script(2, 3)},
		"release": {at: script(1, 1), opts: []readthrough.Option{tooLarge}},
	} {
		for how, gone := range map[string]outage{
			"killed":      {strike: (*redistest.Server).Kill},
			"hung":        {strike: (*redistest.Server).Pause},
			"answer lost": {strike: (*redistest.Server).Kill, sent: true},
		} {
			t.Run(stepName+", "+how, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				client := server.Client(once)
				reached, struck := make(chan struct{}), make(chan struct{})
				client.AddHook(gone.hook(row.at, reached, struck))
				cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(time.Second))[0]
				var loads atomic.Int64
				rows := wrapper(t, cache, func(context.Context, int) (string, error) {
					if row.slow {
						<-struck
					}
					loads.Add(1)
					return "loaded", nil
				}, row.opts...)

				got := make(chan string, 1)
				go func() { // ends with its Get
					v, err := rows.Get(context.Background(), 1)
					if err != nil {
						v = err.Error()
					}
					got <- v
				}()
				receive(t, reached)
				gone.strike(server)
				close(struck)

				require.Equal(t, "loaded", receive(t, got))
				require.EqualValues(t, 1, loads.Load())
				require.EqualValues(t, 1, rows.Stats().RedisErrors, "the caller waits for Redis once")
				if how == "hung" {
					server.Resume() // else Close waits for it
				}
			})
		}
	}
}

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

// writerAndReader are two wrappers of the same rows. The cable is the writer's.
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

func TestInvalidateThatFailedIsRetriedUntilItSucceeds(t *testing.T) {
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

func TestPendingInvalidationIsDroppedWhenNoEntryCanBeLeft(t *testing.T) {
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
	require.EqualValues(t, len(lasting), server.CommandStats()["unlink"], "what was dropped is not sent")
}

func TestCloseTriesPendingInvalidationsALastTime(t *testing.T) {
	t.Parallel()
	var c cable
	writer, write, read, rows := writerAndReader(t, &c)
	requireRead(t, "before", read, 1, 2)
	rows.Store("after")
	c.cut.Store(true)
	require.Error(t, write.Invalidate(t.Context(), 1, 2))
	// The pause before the next attempt in the background doubles: by now it is so long that Close comes first.
	require.Eventually(t, func() bool { return c.attempts.Load() >= 5 }, soon, time.Millisecond)

	c.cut.Store(false)
	require.NoError(t, writer.Close())

	require.Zero(t, writer.Stats().PendingInvalidations)
	requireRead(t, "after", read, 1, 2)
}

func TestCloseNamesTheKeysThatAreStillPending(t *testing.T) {
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
