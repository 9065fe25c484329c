package readthrough_test

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// instrumented is a client of a user's that embeds another one.
type instrumented struct{ redis.UniversalClient }

func TestNewCache_RefusesClientThatMayServeInvalidated(t *testing.T) {
	nowhere := []string{"127.0.0.1:1"}
	for name, row := range map[string]struct {
		client redis.UniversalClient
		reason string
	}{
		"nil":                      {nil, "nil"},
		"nil Client":               {(*redis.Client)(nil), "nil"},
		"nil ClusterClient":        {(*redis.ClusterClient)(nil), "nil"},
		"nil Ring":                 {(*redis.Ring)(nil), "nil"},
		"nil of a user's type":     {(*instrumented)(nil), "nil"},
		"client-side cache":        {redis.NewClient(&redis.Options{Addr: nowhere[0], ClientSideCacheConfig: &redis.ClientSideCacheConfig{}}), "client-side cache"},
		"cluster, ReadOnly":        {redis.NewClusterClient(&redis.ClusterOptions{Addrs: nowhere, ReadOnly: true}), "replicas"},
		"cluster, by latency":      {redis.NewClusterClient(&redis.ClusterOptions{Addrs: nowhere, RouteByLatency: true}), "replicas"},
		"cluster, randomly":        {redis.NewClusterClient(&redis.ClusterOptions{Addrs: nowhere, RouteRandomly: true}), "replicas"},
		"sentinel, ReplicaOnly":    {redis.NewFailoverClusterClient(&redis.FailoverOptions{SentinelAddrs: nowhere, ReplicaOnly: true}), "replicas"},
		"sentinel, randomly":       {redis.NewFailoverClusterClient(&redis.FailoverOptions{SentinelAddrs: nowhere, RouteRandomly: true}), "replicas"},
		"Ring":                     {redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": nowhere[0]}}), "Ring loses invalidations"},
		"universal":                {redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{nowhere[0], nowhere[0]}, ReadOnly: true}), "replicas"},
		"embedded":                 {instrumented{redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": nowhere[0]}})}, "Ring loses invalidations"},
		"embedded twice":           {&instrumented{&instrumented{redis.NewClusterClient(&redis.ClusterOptions{Addrs: nowhere, ReadOnly: true})}}, "replicas"},
		"embedded as what it is":   {struct{ *redis.Ring }{redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": nowhere[0]}})}, "Ring loses invalidations"},
		"nothing is embedded":      {instrumented{}, "nil"},
		"a nil Client is embedded": {struct{ *redis.Client }{}, "nil"},
	} {
		t.Run(name, func(t *testing.T) {
			if row.reason != "nil" {
				defer func() { require.NoError(t, row.client.Close()) }()
			}
			_, err := readthrough.NewCache(row.client)
			require.ErrorContains(t, err, "readthrough: NewCache: ")
			require.ErrorContains(t, err, row.reason)
		})
	}
}

func TestNewCache_TakesClientOfPrimary(t *testing.T) {
	nowhere := []string{"127.0.0.1:1"}
	for name, client := range map[string]redis.UniversalClient{
		"one server":          redis.NewClient(&redis.Options{Addr: nowhere[0]}),
		"cluster":             redis.NewClusterClient(&redis.ClusterOptions{Addrs: nowhere}),
		"sentinel":            redis.NewFailoverClient(&redis.FailoverOptions{SentinelAddrs: nowhere}),
		"sentinel as cluster": redis.NewFailoverClusterClient(&redis.FailoverOptions{SentinelAddrs: nowhere}),
		"embedded":            instrumented{redis.NewClient(&redis.Options{Addr: nowhere[0]})},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() { require.NoError(t, client.Close()) }()
			cache, err := readthrough.NewCache(client)
			require.NoError(t, err)
			require.NoError(t, cache.Close())
		})
	}
}

// hangsUp is a hook of a client whose proxy closes the connection when it is asked for its role.
type hangsUp struct{ asked atomic.Int64 }

func (h *hangsUp) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *hangsUp) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "role" {
			return next(ctx, cmd)
		}
		h.asked.Add(1)
		cmd.SetErr(io.EOF)
		return io.EOF
	}
}

func (h *hangsUp) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if cmd.Name() == "role" {
				panic("others share the round trip")
			}
		}
		return next(ctx, cmds)
	}
}

func TestCache_AsksProxyThatHangsUpForRoleThreeTimes(t *testing.T) {
	t.Parallel()
	redisServer := miniredis.RunT(t)
	redisServer.Server().SetPreHook(func(peer *server.Peer, cmd string, _ ...string) bool {
		if cmd == "HELLO" { // whose answer has the role
			peer.WriteError("ERR unknown command 'HELLO'")
		}
		return cmd == "HELLO"
	})
	client := redis.NewClient(&redis.Options{Addr: redisServer.Addr(), ContextTimeoutEnabled: true})
	defer func() { require.NoError(t, client.Close()) }()
	proxy := new(hangsUp)
	client.AddHook(proxy)
	cache := readthrough.Must(readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second)))
	rows := wrapper(t, cache, constant("v"))
	get := func() {
		_, err := rows.Get(t.Context(), 1)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { get(); return proxy.asked.Load() == 3 }, 10*time.Second, time.Millisecond)
	for range 20 {
		get()
	}
	require.NoError(t, cache.Close())
	require.EqualValues(t, 3, proxy.asked.Load())
	require.Zero(t, cache.Stats().Findings)
	require.Zero(t, cache.Stats().RedisErrors)
}

func TestNewCache_SaysThatClientIgnoresDeadlines(t *testing.T) {
	t.Parallel()
	for enabled, findings := range map[bool]int64{false: 1, true: 0} {
		var found []error
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: enabled})
		cache, err := readthrough.NewCache(client, readthrough.WithObserver(observerFunc(func(_ context.Context, e readthrough.Event) {
			if e.Kind == readthrough.EventFinding {
				found = append(found, e.Err)
			}
		})))
		require.NoError(t, err)
		require.Equal(t, findings, cache.Stats().Findings)
		require.Len(t, found, int(findings))
		for _, err := range found {
			require.ErrorContains(t, err, "ContextTimeoutEnabled")
		}
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	}
}
