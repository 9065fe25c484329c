package faults

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// smallest is the access that docs/redis.md says is enough for a Cache with the prefix "app".
var smallest = []string{"~app:*", "+get", "+set", "+unlink", "+eval", "+evalsha", "+del", "+pexpire", "+pttl", "+getrange", "+setrange"}

// login makes a user of server with the rules.
func login(t *testing.T, server *redistest.Server, rules ...string) (username, password string) {
	t.Helper()
	args := []any{"acl", "setuser", "cache", "reset", "on", ">password"}
	for _, rule := range rules {
		args = append(args, rule)
	}
	require.NoError(t, server.Client().Do(t.Context(), args...).Err())
	return "cache", "password"
}

// as returns a client that logs in as a user with the rules.
func as(t *testing.T, server *redistest.Server, rules ...string) func() redis.UniversalClient {
	username, password := login(t, server, rules...)
	return func() redis.UniversalClient {
		return server.Client(func(o *redis.Options) { o.Username, o.Password, o.DisableIdentity = username, password, true })
	}
}

// callAll calls what sends a command, and each in each way.
func callAll(t *testing.T, cache *readthrough.Cache) {
	t.Helper()
	ctx := t.Context()
	errNone := errors.New("none")
	rows := readthrough.Must(readthrough.New(cache, "row", func(ctx context.Context, id int) (int, error) {
		if id < 0 {
			return 0, errNone
		}
		if id == 3 { // so long that the lease is renewed
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		return id, nil
	}, readthrough.Int, readthrough.WithStale(time.Hour), readthrough.WithLeaseTTL(60*time.Millisecond)))
	for range 2 {
		for id := range 4 {
			v, err := rows.Get(ctx, id)
			require.NoError(t, err)
			require.Equal(t, id, v)
		}
		_, err := rows.Get(ctx, -1) // releases the lease without an entry
		require.ErrorIs(t, err, errNone)
		_, err = rows.Refresh(ctx, 1)
		require.NoError(t, err)
		require.NoError(t, rows.Set(ctx, 2, 2))
		require.NoError(t, rows.SetMany(ctx, maps.All(map[int]int{1: 1, 2: 2})))
		require.NoError(t, rows.Expire(ctx, 1, 2, 8))
		_, info, err := rows.GetInfo(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, readthrough.SourceStale, info.Source)
		require.NoError(t, rows.Invalidate(ctx, 0, 3, 9))
		require.NoError(t, cache.Delete(ctx, "app:row:2"))
		require.NoError(t, readthrough.Set(ctx, cache, "app:raw", 1, readthrough.NoExpiry))
		_, err = readthrough.Get[int](ctx, cache, "app:raw")
		require.NoError(t, err)
	}
	_, err := rows.GetMany(ctx, upTo(20))
	require.NoError(t, err)
}

func TestCache_NeedsNoMoreThanTheDocumentedAccess(t *testing.T) {
	t.Parallel()
	requireContent := func(t *testing.T, server *redistest.Server, cache *readthrough.Cache) {
		callAll(t, cache)
		s := cache.Stats()
		require.Zero(t, s.RedisErrors)
		require.Positive(t, s.Fills)
		require.Zero(t, s.RefusedFills)
		refused, err := server.Client().ACLLog(t.Context(), 10).Result()
		require.NoError(t, err)
		require.Empty(t, refused)
	}
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		requireContent(t, server, fleet(t, 1, as(t, server, smallest...), readthrough.WithPrefix("app"))[0])
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, 1, 0)
		server := cluster.Masters()[0]
		username, password := login(t, server, append(smallest, "+cluster|slots", "+command")...)
		requireContent(t, server, fleet(t, 1, func() redis.UniversalClient {
			return cluster.Client(func(o *redis.ClusterOptions) {
				o.Username, o.Password, o.DisableIdentity = username, password, true
			})
		}, readthrough.WithPrefix("app"))[0])
	})
}
