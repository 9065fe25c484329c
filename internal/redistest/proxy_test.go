package redistest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// through has a client go through a proxy, and take each error for what it is.
func through(p *redistest.Proxy) func(*redis.Options) {
	return func(o *redis.Options) {
		once(o)
		o.Addr = p.Addr()
		o.ReadTimeout = soon
	}
}

// proxied returns a server, a proxy before it and a client that goes through it and has a connection.
func proxied(t *testing.T) (*redistest.Server, *redistest.Proxy, *redis.Client) {
	t.Helper()
	s := redistest.Start(t)
	p := redistest.StartProxy(t, s.Addr())
	c := s.Client(through(p))
	require.NoError(t, c.Ping(t.Context()).Err())
	return s, p, c
}

// setting sends SET key v on a goroutine of its own, and returns where its error comes.
func setting(ctx context.Context, c *redis.Client, key, v string) <-chan error {
	err := make(chan error, 1)
	go func() { err <- c.Set(ctx, key, v, 0).Err() }() // ends with the client, at the latest
	return err
}

func value(t *testing.T, s *redistest.Server, key string) string {
	t.Helper()
	v, err := s.Client().Get(t.Context(), key).Result()
	if err != redis.Nil {
		require.NoError(t, err)
	}
	return v
}

func requireNil(t *testing.T, err <-chan error) {
	t.Helper()
	select {
	case err := <-err:
		require.NoError(t, err)
	case <-time.After(soon):
		require.FailNow(t, "no answer came")
	}
}

func TestProxy_PassesOnWhateverIsAsked(t *testing.T) {
	t.Parallel()
	s, p, c := proxied(t)
	big := strings.Repeat("x", 1<<20)

	require.NoError(t, c.Set(t.Context(), "big", big, 0).Err())
	got, err := c.Get(t.Context(), "big").Result()

	require.NoError(t, err)
	assert.Equal(t, big, got)
	assert.Equal(t, big, value(t, s, "big"))
	assert.EqualValues(t, 1, p.Accepted())
}

func TestProxy_DelaysEachDirection(t *testing.T) {
	t.Parallel()
	_, p, c := proxied(t)
	for _, dir := range []redistest.Direction{redistest.Requests, redistest.Replies} {
		p.Delay(dir, brief, brief)
		began := time.Now()
		require.NoError(t, c.Ping(t.Context()).Err())
		assert.GreaterOrEqual(t, time.Since(began), brief)
		p.Delay(dir, 0, 0)
	}
}

func TestProxy_HoldsAllUntilRelease(t *testing.T) {
	t.Parallel()
	s, p, c := proxied(t)

	p.Hold(redistest.Requests)
	p.Hold(redistest.Requests)
	err := setting(t.Context(), c, "k", "v")
	assert.Never(t, func() bool { return value(t, s, "k") != "" }, brief, brief/4)
	p.Release(redistest.Requests)
	requireNil(t, err)
	assert.Equal(t, "v", value(t, s, "k"))

	p.Hold(redistest.Replies)
	err = setting(t.Context(), c, "k", "w")
	require.Eventually(t, func() bool { return value(t, s, "k") == "w" }, soon, brief/4)
	assert.Empty(t, err)
	p.Release(redistest.Replies)
	requireNil(t, err)
}

func TestHoldNext_LetsNewerPacketsOvertake(t *testing.T) {
	t.Parallel()
	s, p, c := proxied(t)

	held := p.HoldNext(redistest.Requests, redistest.Saying("SET", "older"))
	older := setting(t.Context(), c, "k", "older")
	assert.Contains(t, string(held.Wait()), "older")
	requireNil(t, setting(t.Context(), c, "k", "newer"))
	assert.Equal(t, "newer", value(t, s, "k"))

	held.Release()
	requireNil(t, older)
	assert.Equal(t, "older", value(t, s, "k"))
}

func TestHoldNext_DisarmedByReleaseHoldsNothing(t *testing.T) {
	t.Parallel()
	_, p, c := proxied(t)

	p.HoldNext(redistest.Requests, nil).Release()

	require.NoError(t, c.Ping(t.Context()).Err())
}

func TestHeld_DuplicateIsCarriedOutBesides(t *testing.T) {
	t.Parallel()
	s, p, c := proxied(t)

	held := p.HoldNext(redistest.Requests, redistest.Saying("incr"))
	err := make(chan error, 1)
	go func() { err <- c.Incr(t.Context(), "k").Err() }() // ends with the client, at the latest
	held.Duplicate()
	assert.Equal(t, "1", value(t, s, "k"))

	held.Release()
	requireNil(t, err)
	assert.Equal(t, "2", value(t, s, "k"))
}

func TestHeld_DroppedNeverArrives(t *testing.T) {
	t.Parallel()
	s, p, c := proxied(t)
	ctx, cancel := context.WithCancel(t.Context())

	held := p.HoldNext(redistest.Requests, redistest.Saying("set"))
	err := setting(ctx, c, "k", "v")
	held.Wait()
	held.Drop()
	p.Cut()

	require.Error(t, <-err)
	cancel()
	requireNil(t, setting(t.Context(), c, "other", "w"))
	assert.Empty(t, value(t, s, "k"))
}

func TestProxy_DropsUntilToldOtherwise(t *testing.T) {
	t.Parallel()
	s, p, c := proxied(t)

	p.Drop(redistest.Requests, true)
	ctx, cancel := context.WithTimeout(t.Context(), brief)
	defer cancel()
	c = c.WithTimeout(brief)
	require.Error(t, c.Set(ctx, "k", "v", 0).Err())
	p.Drop(redistest.Requests, false)

	require.NoError(t, c.Ping(t.Context()).Err())
	assert.Empty(t, value(t, s, "k"))
}

func TestCut_ResetsConnectionsAndLosesNoHeldRequest(t *testing.T) {
	t.Parallel()
	s, p, c := proxied(t)

	held := p.HoldNext(redistest.Requests, redistest.Saying("set"))
	err := setting(t.Context(), c, "k", "late")
	held.Wait()
	assert.Equal(t, 1, p.Cut())
	assert.Zero(t, p.Cut(), "each is cut once")
	require.Error(t, <-err)
	requireNil(t, setting(t.Context(), c, "k", "again"))
	assert.Equal(t, "again", value(t, s, "k"))

	held.Release()
	select {
	case <-held.Answered():
	case <-time.After(soon):
		require.FailNow(t, "no answer came")
	}
	assert.Equal(t, "late", value(t, s, "k"))
}

func TestProxy_ResetsConnectionsToKilledServer(t *testing.T) {
	t.Parallel()
	s, _, c := proxied(t)

	s.Kill()
	assert.Error(t, c.Ping(t.Context()).Err())
	assert.Error(t, c.Ping(t.Context()).Err())
	s.Restart()

	assert.NoError(t, c.Ping(t.Context()).Err())
}

func TestProxy_EndsWithItsTestWhateverIsHeld(t *testing.T) {
	t.Parallel()
	needRedis(t)
	r := record(t, func(tb redistest.TB) {
		s := redistest.Start(tb)
		p := redistest.StartProxy(tb, s.Addr())
		c := s.Client(through(p), func(o *redis.Options) { o.ReadTimeout = brief })
		held := p.HoldNext(redistest.Requests, redistest.Saying("older"))
		_ = c.Set(t.Context(), "k", "older", 0).Err()
		held.Wait()
		p.Hold(redistest.Replies)
		_ = c.Set(t.Context(), "k", "newer", 0).Err()
	})
	assert.Empty(t, r.log())
	assert.Empty(t, r.failed)
}

func TestClusterProxies_AreWhatClientsGoThrough(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 2, 1)
	before := cluster.Client(func(o *redis.ClusterOptions) { o.ClusterStateReloadInterval = brief })
	require.NoError(t, before.Ping(t.Context()).Err())

	proxies := cluster.Proxies()
	after := cluster.Client()
	require.NoError(t, after.Set(t.Context(), keyPerSlot()[0], "v", 0).Err())

	require.Positive(t, proxies[0].Accepted())
	held := proxies[0].HoldNext(redistest.Requests, redistest.Saying("get"))
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), brief)
		defer cancel()
		_ = before.Get(ctx, keyPerSlot()[0]).Err()
		select {
		case <-held.Caught():
			return true
		default:
			return false
		}
	}, soon, brief)
	held.Release()
	require.NoError(t, after.Get(t.Context(), keyPerSlot()[0]).Err())
}

func TestUser_MayDoWhatItsRulesAllow(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--requirepass", "open sesame")
	app := s.Client(s.User("app", "secret", "~app:*", "+get", "+set"), once)

	require.NoError(t, app.Set(t.Context(), "app:k", "v", 0).Err())
	require.ErrorContains(t, app.Set(t.Context(), "k", "v", 0).Err(), "NOPERM")
	require.ErrorContains(t, app.Del(t.Context(), "app:k").Err(), "NOPERM")
	s.User("app", "secret", "~app:*", "+del")
	require.NoError(t, app.Del(t.Context(), "app:k").Err())
	assert.ErrorContains(t, app.Get(t.Context(), "app:k").Err(), "NOPERM")
}
