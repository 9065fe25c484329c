package values

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newCache returns a Cache on a miniredis.
func newCache(t testing.TB, opts ...readthrough.CacheOption) (*readthrough.Cache, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1})
	cache, err := readthrough.NewCache(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	})
	return cache, server
}
