package readthrough_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
)

func openURL(tb testing.TB, url string) redis.UniversalClient {
	tb.Helper()
	client, err := readthrough.Open(url)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = client.Close() })
	return client
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

func TestOpen_NamesWhatIsWrongOnceAndKeepsPassword(t *testing.T) {
	for url, want := range map[string]string{
		"redis://u:s3cr3t@h:port":                  "host 1 of 1 has a port that is not a number from 1 to 65535",
		"redis://:s3cr3t@h?reed_timeout=1s":        "option reed_timeout is unknown",
		"redis-cluster://:s3cr3t@h?read_only=true": "option read_only reads from replicas, which may still have what was invalidated",
	} {
		client, err := readthrough.Open(url)
		require.EqualError(t, err, "readthrough: open: "+want)
		assert.Nil(t, client)
		assertKeepsSecret(t, err)
	}
}

// The backlog of a listener is in the order of the dials: had Open dialed, the first connection
// would be that of Open.
func TestOpen_DoesNotDial(t *testing.T) {
	for scheme, query := range map[string]string{
		"redis": "", "rediss": "", "redis-cluster": "", "rediss-cluster": "", "redis-sentinel": "?master=m", "unix": "",
	} {
		t.Run(scheme, func(t *testing.T) {
			network, addr := "tcp", "127.0.0.1:0"
			if scheme == "unix" {
				network, addr = "unix", filepath.Join(t.TempDir(), "s")
			}
			listener, err := net.Listen(network, addr)
			require.NoError(t, err)
			defer listener.Close()

			client := openURL(t, scheme+"://"+listener.Addr().String()+query)
			assertNoConnections(t, client)

			mine, err := net.Dial(network, listener.Addr().String())
			require.NoError(t, err)
			defer mine.Close()
			_, err = mine.Write([]byte("mine"))
			require.NoError(t, err)
			accepted, err := listener.Accept()
			require.NoError(t, err)
			defer accepted.Close()
			require.NoError(t, accepted.SetReadDeadline(time.Now().Add(10*time.Second)))
			first := make([]byte, len("mine"))
			_, err = io.ReadFull(accepted, first)
			require.NoError(t, err)
			assert.Equal(t, "mine", string(first))
		})
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

func TestOpen_MakesOneConnectionWithOneRoundTripOnFirstCommand(t *testing.T) {
	m := miniredis.RunT(t)
	client := openURL(t, "redis://"+m.Addr())
	assert.Zero(t, m.TotalConnectionCount())

	require.NoError(t, client.Ping(t.Context()).Err())

	assert.Equal(t, 1, m.TotalConnectionCount())
	assert.Equal(t, 2, m.CommandCount(), "HELLO and PING")
}

func TestOpen_ReachesServerWithPasswordAndDatabase(t *testing.T) {
	m := miniredis.RunT(t)
	m.RequireUserAuth("app", "p@ss/word")
	client := openURL(t, "redis://app:p%40ss%2Fword@"+m.Addr()+"/2")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	got, err := m.DB(2).Get("k")
	require.NoError(t, err)
	assert.Equal(t, "v", got)
}

func TestOpen_ReachesDatabaseByUnixSocket(t *testing.T) {
	m := miniredis.RunT(t)
	path := filepath.Join(t.TempDir(), "redis.sock")
	forward(t, path, m.Addr())
	client := openURL(t, "unix://"+path+"?db=2")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	got, err := m.DB(2).Get("k")
	require.NoError(t, err)
	assert.Equal(t, "v", got)
}

// forward connects the socket at path to the server at addr, as miniredis has no socket.
func forward(tb testing.TB, path, addr string) {
	tb.Helper()
	listener, err := net.Listen("unix", path)
	require.NoError(tb, err)
	var wg sync.WaitGroup
	tb.Cleanup(func() { _ = listener.Close(); wg.Wait() })
	wg.Go(func() { // ends with the listener
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				_ = in.Close()
				return
			}
			wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() }) // these two end with either connection
			wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
}

func TestOpen_ReachesNodeOfCluster(t *testing.T) {
	m := miniredis.RunT(t)
	m.RequireAuth("p")
	client := openURL(t, "redis-cluster://:p@"+m.Addr()+","+m.Addr()+"/0")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	m.CheckGet(t, "k", "v")
}

func TestOpen_ReachesMasterOfSentinelWithSamePassword(t *testing.T) {
	master, sentinel := miniredis.RunT(t), miniredis.RunT(t)
	master.RequireAuth("p")
	sentinel.RequireAuth("p")
	require.NoError(t, sentinel.Server().Register("SENTINEL", func(c *server.Peer, _ string, args []string) {
		switch {
		case strings.EqualFold(args[0], "get-master-addr-by-name") && args[1] == "m":
			c.WriteStrings([]string{master.Host(), master.Port()})
		default:
			c.WriteLen(0)
		}
	}))
	client := openURL(t, "redis-sentinel://:p@"+sentinel.Addr()+"/2?master=m")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	got, err := master.DB(2).Get("k")
	require.NoError(t, err)
	assert.Equal(t, "v", got)
}

// The client does not show its sentinels, but names each that cannot be reached.
func TestOpen_ReadsSentinelsFromURL(t *testing.T) {
	client := openURL(t, "redis-sentinel://127.1.2.3,127.1.2.3:1,[::1]:2?master=none&max_retries=-1&addr=127.1.2.3:3")

	err := client.Ping(t.Context()).Err()

	for _, addr := range []string{"127.1.2.3:26379", "127.1.2.3:1", "[::1]:2", "127.1.2.3:3"} {
		assert.ErrorContains(t, err, "dial tcp "+addr+": ")
	}
}

func TestOpen_BoundsCommandOfHungServerByContextDeadline(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connections, and nobody answers
	require.NoError(t, err)
	defer listener.Close()
	client := openURL(t, "redis://"+listener.Addr().String()+"?read_timeout=5s")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()

	start := time.Now()
	err = client.Ping(ctx).Err()

	require.Error(t, err)
	assert.Less(t, time.Since(start), 2*time.Second)
}

func TestDefault_IsOneClientForAll(t *testing.T) {
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

func TestDefault_IsLocalhostWithoutURL(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	defer closeDefault(t)

	client, err := readthrough.Default()

	require.NoError(t, err)
	assert.Equal(t, "localhost:6379", client.(*redis.Client).Options().Addr)
}

func TestDefault_TriesAgainAfterError(t *testing.T) {
	defer closeDefault(t)
	t.Setenv("REDIS_URL", "redis://:s3cr3t@h:port")
	client, err := readthrough.Default()
	require.ErrorContains(t, err, "host 1 of 1 has a port")
	assert.ErrorContains(t, err, "$REDIS_URL")
	assert.Nil(t, client)
	assertKeepsSecret(t, err)
	assert.Equal(t, 1, strings.Count(err.Error(), "readthrough: "))
	assert.NoError(t, readthrough.CloseDefault())

	t.Setenv("REDIS_URL", "redis://h:7000")
	client, err = readthrough.Default()

	require.NoError(t, err)
	assert.Equal(t, "h:7000", client.(*redis.Client).Options().Addr)
}

func TestCloseDefault_DoesNothingWithoutDefault(t *testing.T) {
	assert.NoError(t, readthrough.CloseDefault())
}

func TestCloseDefault_ClosesOnceAndDefaultOpensAnew(t *testing.T) {
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

func TestCloseDefault_IgnoresThatItsUserClosedTheClient(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://h")
	client, err := readthrough.Default()
	require.NoError(t, err)
	require.NoError(t, client.Close())

	assert.NoError(t, readthrough.CloseDefault())
}
