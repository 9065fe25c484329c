package redistest_test

import (
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestServer_AnswersWithItsSettings(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory", "2mb")

	setting, err := s.Client().ConfigGet(t.Context(), "maxmemory").Result()

	require.NoError(t, err)
	assert.Equal(t, "2097152", setting["maxmemory"])
	o, err := redis.ParseURL(s.URL())
	require.NoError(t, err)
	assert.Equal(t, s.Addr(), o.Addr)
}

func TestServer_TellsPasswordToItsOwnClientsOnly(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--requirepass", "open sesame")

	require.NoError(t, s.Client().Ping(t.Context()).Err())
	stranger := s.Client(func(o *redis.Options) { o.Password = "" })
	assert.ErrorContains(t, stranger.Ping(t.Context()).Err(), "NOAUTH")
	o, err := redis.ParseURL(s.URL())
	require.NoError(t, err)
	assert.Equal(t, "open sesame", o.Password)
}

func TestServer_DoesNotAnswerWhilePaused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c := s.Client(once, func(o *redis.Options) { o.ReadTimeout = brief })
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())

	s.Pause()
	_, err := c.Get(t.Context(), "k").Result()

	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout(), "%v", err)
	s.Resume()
	v, err := s.Client().Get(within(t, soon), "k").Result()
	require.NoError(t, err)
	assert.Equal(t, "v", v)
}

func TestServer_RefusesWhenKilledAndRestartsEmpty(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	addr, pid := s.Addr(), s.PID()
	require.NoError(t, s.Client().Set(t.Context(), "k", "v", 0).Err())

	s.Kill()
	err := s.Client(once).Get(t.Context(), "k").Err()

	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	assert.Zero(t, s.PID())
	requireGone(t, pid)
	s.Restart()
	assert.Equal(t, addr, s.Addr())
	assert.NotEqual(t, pid, s.PID())
	assert.ErrorIs(t, s.Client().Get(t.Context(), "k").Err(), redis.Nil)
}

func TestServer_CanBeKilledWhilePausedAndRestarted(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)

	s.Pause()
	s.Kill()
	s.Restart()

	assert.NoError(t, s.Client().Ping(t.Context()).Err())
}

func TestCommandStats_CountCallsSinceReset(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c := s.Client()
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())

	s.ResetStats()
	for range 3 {
		require.NoError(t, c.Get(t.Context(), "k").Err())
	}

	calls := s.CommandStats()
	assert.Equal(t, int64(3), calls["get"])
	assert.NotContains(t, calls, "set")
}

func TestFlushAll_EmptiesServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	require.NoError(t, s.Client().Set(t.Context(), "k", "v", 0).Err())

	s.FlushAll()

	assert.Zero(t, s.Client().DBSize(t.Context()).Val())
}

func TestServer_EndsWithItsTest(t *testing.T) {
	needRedis(t)
	for name, end := range map[string]func(*redistest.Server){
		"running": func(*redistest.Server) {},
		"paused":  (*redistest.Server).Pause,
		"killed":  (*redistest.Server).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var pid int
			r := record(t, func(tb redistest.TB) {
				s := redistest.Start(tb)
				pid = s.PID()
				end(s)
			})
			requireGone(t, pid)
			assert.Empty(t, r.log())
		})
	}
}

func TestServer_IsReportedWhenItDiesByItself(t *testing.T) {
	t.Parallel()
	needRedis(t)
	r := record(t, func(tb redistest.TB) {
		s := redistest.Start(tb)
		_ = s.Client(once).ShutdownNoSave(t.Context()).Err() // the answer is that the connection is closed
		require.Eventually(t, func() bool { return s.PID() == 0 }, soon, brief)
	})
	assert.Contains(t, r.log(), "ready to exit, bye bye")
}

func TestStart_FailsWithWhatRedisSaysOfSettings(t *testing.T) {
	t.Parallel()
	needRedis(t)
	r := record(t, func(tb redistest.TB) { redistest.Start(tb, "--no-such-setting", "1") })
	assert.Contains(t, r.failed, "no-such-setting")
}

func TestPause_FailsForKilledServer(t *testing.T) {
	t.Parallel()
	needRedis(t)
	r := record(t, func(tb redistest.TB) {
		s := redistest.Start(tb)
		s.Kill()
		s.Pause()
	})
	assert.Contains(t, r.failed, "it is killed")
}

func TestStart_SkipsOrFailsTestWithoutRedis(t *testing.T) {
	starts := map[string]func(redistest.TB){
		"server":   func(tb redistest.TB) { redistest.Start(tb) },
		"cluster":  func(tb redistest.TB) { redistest.StartCluster(tb, 1, 0) },
		"sentinel": func(tb redistest.TB) { redistest.StartSentinel(tb) },
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", t.TempDir())

			t.Setenv("READTHROUGH_REQUIRE_REDIS", "")
			r := record(t, start)
			assert.Contains(t, r.skipped, "redis-server")
			assert.Empty(t, r.failed)

			require.NoError(t, os.Setenv("READTHROUGH_REQUIRE_REDIS", "1")) //nolint:usetesting // put back by Setenv above
			r = record(t, start)
			assert.Contains(t, r.failed, "READTHROUGH_REQUIRE_REDIS")
			assert.Empty(t, r.skipped)
		})
	}
}
