package readthrough_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestWriteError_NamesTenKeysAndHasAll(t *testing.T) {
	t.Parallel()
	errLost := errors.New("connection lost")
	keys := make([]string, 42)
	for i := range keys {
		keys[i] = fmt.Sprint("user:", i)
	}
	for n, want := range map[int]string{
		1:  "user:0",
		3:  "user:0, user:1, user:2",
		10: strings.Join(keys[:10], ", "),
		11: strings.Join(keys[:10], ", ") + " and 1 more",
		42: strings.Join(keys[:10], ", ") + " and 32 more",
	} {
		err := &readthrough.WriteError{Op: "set", Keys: keys[:n], Err: errLost}
		require.EqualError(t, err, "readthrough: set "+want+": connection lost")
		require.ErrorIs(t, err, errLost)
	}
}

// Each write that cannot reach Redis returns a WriteError with all its keys, which says that Redis
// is unavailable.
func TestWriteError_ComesFromEachWrite(t *testing.T) {
	t.Parallel()
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant(1), readthrough.WithStale(time.Minute))
	many := make(map[int]int)
	for k := range 20 {
		many[k] = k
	}
	server.SetError("LOADING Redis is loading the dataset in memory")
	for name, row := range map[string]struct {
		write func(context.Context) error
		op    string
		keys  int
	}{
		"Set":        {func(ctx context.Context) error { return rows.Set(ctx, 1, 1) }, "set", 1},
		"SetMany":    {func(ctx context.Context) error { return rows.SetMany(ctx, maps.All(many)) }, "set", 20},
		"Invalidate": {func(ctx context.Context) error { return rows.Invalidate(ctx, 1, 2) }, "invalidate", 2},
		"Expire":     {func(ctx context.Context) error { return rows.Expire(ctx, 1, 2, 3) }, "expire", 3},
		"Delete":     {func(ctx context.Context) error { return cache.Delete(ctx, "row:1") }, "delete", 1},
		"raw Set":    {func(ctx context.Context) error { return readthrough.Set(ctx, cache, "raw", 1, time.Minute) }, "set", 1},
	} {
		var w *readthrough.WriteError
		err := row.write(t.Context())
		require.ErrorAs(t, err, &w, name)
		require.Equal(t, row.op, w.Op, name)
		require.Len(t, w.Keys, row.keys, name)
		require.ErrorIs(t, err, readthrough.ErrUnavailable, name)
		require.True(t, redis.HasErrorPrefix(w.Err, "LOADING") || strings.HasPrefix(w.Err.Error(), "LOADING"), name)
		requireOnePrefix(t, err)
	}
	server.SetError("")
}

func TestErrUnavailable_IsNotWhatRedisAnswers(t *testing.T) {
	t.Parallel()
	cache, server := newCache(t)
	rows := wrapper(t, cache, constant(1))
	server.SetError("LOADING Redis is loading the dataset in memory")
	_, err := rows.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrUnavailable)
	requireOnePrefix(t, err)
	_, err = readthrough.Get[int](t.Context(), cache, "row:1")
	require.ErrorIs(t, err, readthrough.ErrUnavailable)
	requireOnePrefix(t, err)
	server.SetError("ERR no such thing")
	_, err = rows.Peek(t.Context(), 1)
	require.Error(t, err)
	require.NotErrorIs(t, err, readthrough.ErrUnavailable)
	server.SetError("")
	_, err = rows.Peek(t.Context(), 1)
	require.Equal(t, readthrough.ErrMiss, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = rows.Peek(ended, 1)
	require.Equal(t, context.Canceled, err, "the caller's own doing")
}

// The prefix of the package stands at the front of an error of its own, and nowhere else.
func TestErrors_HaveThePrefixOnce(t *testing.T) {
	t.Parallel()
	cache, _ := newCache(t)
	names := readthrough.Must(readthrough.New(cache, "name", func(context.Context, string) (any, error) { return nil, nil }, readthrough.String))
	_, errNew := readthrough.New(cache, "bad name", func(context.Context, string) (int, error) { return 0, nil }, readthrough.String)
	_, errCodec := readthrough.New(cache, "raw", func(context.Context, string) (int, error) { return 0, nil }, readthrough.String,
		readthrough.WithCodec(readthrough.Raw))
	_, errCache := readthrough.NewCache(nil)
	_, errOpen := readthrough.Open("http://localhost")
	_, errGet := names.Get(t.Context(), "")
	_, errRaw := readthrough.Get[int](t.Context(), cache, "")
	for name, err := range map[string]error{
		"New": errNew, "New, codec": errCodec, "NewCache": errCache, "Open": errOpen, "Get": errGet, "raw Get": errRaw,
		"raw Set":      readthrough.Set(t.Context(), cache, "", 1, time.Minute),
		"raw Set, TTL": readthrough.Set(t.Context(), cache, "k", 1, 0),
		"Set":          names.Set(t.Context(), "k", func() {}),
		"Invalidate":   names.Invalidate(t.Context(), ""),
		"Delete":       cache.Delete(t.Context(), ""),
	} {
		require.Error(t, err, name)
		requireOnePrefix(t, err)
	}
}

func requireOnePrefix(t *testing.T, err error) {
	t.Helper()
	require.True(t, strings.HasPrefix(err.Error(), "readthrough: "), err)
	require.Equal(t, 1, strings.Count(err.Error(), "readthrough: "), err)
}

// What a SetMany does not send any more fails for the reason of what it has sent.
func TestSetMany_FailsForOneReason(t *testing.T) {
	t.Parallel()
	cache, _ := newCache(t)
	rows := wrapper(t, cache, constant(1))
	require.NoError(t, cache.Close())
	many := make(map[int]int)
	for k := range 2500 {
		many[k] = k
	}
	err := rows.SetMany(t.Context(), maps.All(many))
	var w *readthrough.WriteError
	require.ErrorAs(t, err, &w)
	require.Len(t, w.Keys, len(many))
	require.ErrorIs(t, err, readthrough.ErrClosed)
	require.NotErrorIs(t, err, readthrough.ErrUnavailable)
}

// TestReplies_AreWhatTheirTableSays reads the table of docs/redis.md.
func TestReplies_AreWhatTheirTableSays(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/redis.md")
	require.NoError(t, err)
	texts := map[string]string{ // of those that the client takes apart, or whose end matters
		"ASK": "ASK 1 127.0.0.1:1", "MOVED": "MOVED 1 127.0.0.1:1",
		"NOPERM User app has no permissions to run the 'get' command": "NOPERM User app has no permissions to run the 'get' command",
	}
	tested := 0
	for _, line := range regexp.MustCompile("(?m)^\\| (`[A-Z].*`) \\| (yes|no) \\| (yes|no) \\|").FindAllStringSubmatch(string(page), -1) {
		for reply := range strings.SplitSeq(line[1], ", ") {
			reply = strings.Trim(reply, "`")
			down, unavailable := line[2] == "yes", line[3] == "yes"
			tested++
			t.Run(reply, func(t *testing.T) {
				t.Parallel()
				cache, server := newCache(t, readthrough.WithBreaker(1, time.Hour))
				rows := wrapper(t, cache, constant("loaded"))
				require.NoError(t, rows.Set(t.Context(), 1, "stored")) // and connects
				server.SetError(cmp.Or(texts[reply], reply+" whatever"))

				v, err := rows.Get(t.Context(), 1)
				require.NoError(t, err)
				require.Equal(t, "loaded", v)
				err = rows.Invalidate(t.Context(), 1)
				var write *readthrough.WriteError
				require.ErrorAs(t, err, &write)
				require.Equal(t, []string{"row:1"}, write.Keys)
				require.Equal(t, unavailable, errors.Is(err, readthrough.ErrUnavailable))

				server.SetError("")
				require.NoError(t, server.Set("row:3", "no entry"))
				_, err = rows.Peek(t.Context(), 3)
				require.Equal(t, down, errors.Is(err, readthrough.ErrUnavailable), "the breaker: %v", err)
				require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 10*time.Second, time.Millisecond)
				require.False(t, server.Exists("row:1"))
			})
		}
	}
	require.Equal(t, 18, tested)
}
