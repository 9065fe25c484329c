package readthrough_test

import (
	"testing"

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
