package readthrough_test

import (
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
)

func TestDefaultIsOneClientForAll(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	m := miniredis.NewMiniRedis()
	require.NoError(t, m.Start())
	defer m.Close()
	t.Setenv("REDIS_URL", "redis://"+m.Addr()+"/3")

	for range 20 { // one round may be lucky
		clients := make([]redis.UniversalClient, 100)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				<-start
				clients[i], _ = readthrough.Default()
			})
		}
		close(start)
		wg.Wait()

		require.NotNil(t, clients[0])
		for _, client := range clients {
			require.Same(t, clients[0], client)
		}
		require.NoError(t, clients[0].Set(t.Context(), "k", "v", 0).Err())
		closeDefault(t)
	}
	got, err := m.DB(3).Get("k")
	require.NoError(t, err)
	assert.Equal(t, "v", got)
}

func closeDefault(tb testing.TB) {
	tb.Helper()
	assert.NoError(tb, readthrough.CloseDefault())
}

func TestDefaultIsLocalhostWithoutURL(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	defer closeDefault(t)

	client, err := readthrough.Default()

	require.NoError(t, err)
	assert.Equal(t, "localhost:6379", client.(*redis.Client).Options().Addr)
}

func TestDefaultTriesAgainAfterError(t *testing.T) {
	defer closeDefault(t)
	t.Setenv("REDIS_URL", "redis://:s3cr3t@h:port")
	client, err := readthrough.Default()
	require.ErrorContains(t, err, "host 1 of 1 has a port")
	assert.ErrorContains(t, err, "$REDIS_URL")
	assert.Nil(t, client)
	assertKeepsSecret(t, err)
	assert.NoError(t, readthrough.CloseDefault())

	t.Setenv("REDIS_URL", "redis://h:7000")
	client, err = readthrough.Default()

	require.NoError(t, err)
	assert.Equal(t, "h:7000", client.(*redis.Client).Options().Addr)
}

func TestCloseDefaultWithoutDefaultDoesNothing(t *testing.T) {
	assert.NoError(t, readthrough.CloseDefault())
}

func TestCloseDefaultTwiceClosesOnceAndDefaultOpensAnew(t *testing.T) {
	m := miniredis.RunT(t)
	t.Setenv("REDIS_URL", "redis://"+m.Addr())
	defer closeDefault(t)
	first, err := readthrough.Default()
	require.NoError(t, err)

	assert.NoError(t, readthrough.CloseDefault())
	assert.NoError(t, readthrough.CloseDefault())

	assert.ErrorIs(t, first.Ping(t.Context()).Err(), redis.ErrClosed)
	second, err := readthrough.Default()
	require.NoError(t, err)
	assert.NotSame(t, first, second)
	assert.NoError(t, second.Ping(t.Context()).Err())
}

func TestCloseDefaultOfClientClosedDirectlyIsNoError(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://h")
	client, err := readthrough.Default()
	require.NoError(t, err)
	require.NoError(t, client.Close())

	assert.NoError(t, readthrough.CloseDefault())
}
