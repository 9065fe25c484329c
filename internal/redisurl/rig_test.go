package redisurl

import (
	"errors"
	"net/url"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openURL(tb testing.TB, url string) redis.UniversalClient {
	tb.Helper()
	client, err := Open(url)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// singleOptions returns the options of the client of url, which names one server or a sentinel's
// master.
func singleOptions(tb testing.TB, url string) *redis.Options {
	tb.Helper()
	client, ok := openURL(tb, url).(*redis.Client)
	require.True(tb, ok, "%s is not one server", url)
	return client.Options()
}

// clusterOptions returns the options of the client of url, which names a cluster.
func clusterOptions(tb testing.TB, url string) *redis.ClusterOptions {
	tb.Helper()
	client, ok := openURL(tb, url).(*redis.ClusterClient)
	require.True(tb, ok, "%s is not a cluster", url)
	return client.Options()
}

const secret = "s3cr3t"

// assertKeepsSecret requires err to have no piece of the secret: half a password is half found.
func assertKeepsSecret(tb testing.TB, err error) {
	tb.Helper()
	for _, piece := range []string{secret, "s3cr", "cr3t", "%73"} {
		assert.NotContains(tb, err.Error(), piece)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		_, leaks := e.(*url.Error) // it has the whole URL
		assert.False(tb, leaks, "a url.Error is inside")
	}
}

// assertNoConnections requires client to have none, not even one that is being made in the
// background. A cluster client cannot be asked: it makes some to answer, and has none before.
func assertNoConnections(tb testing.TB, client redis.UniversalClient) {
	tb.Helper()
	if single, ok := client.(*redis.Client); ok {
		require.Zero(tb, single.PoolStats().TotalConns)
	}
}
