package faults

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// TestBreaker_OpensForUserWhomRedisRefuses has each read make a connection in vain, or ask for what
// is forbidden: a few show that.
func TestBreaker_OpensForUserWhomRedisRefuses(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string][]any{
		"wrong password": {"on", ">secret", "~*", "+@all"},
		"may not read":   {"on", ">password", "~*", "+@connection", "+client"},
		"may not select": {"on", ">password", "~*", "+@all", "-select"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			admin := server.Client()
			require.NoError(t, admin.Do(t.Context(), append([]any{"acl", "setuser", "app"}, rules...)...).Err())
			events := &eventSet{}
			rows := wrapper(t, defaults(t, server.Client(func(o *redis.Options) {
				o.Username, o.Password = "app", "password"
				if name == "may not select" {
					o.DB = 1
				}
			}), readthrough.WithObserver(events)), constant(1))
			before := connections(t, admin)
			for id := range 500 {
				v, err := rows.Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, 1, v)
			}
			require.True(t, events.saw(readthrough.EventBreakerOpen))
			require.Less(t, connections(t, admin)-before, 100)
		})
	}
}

// connections returns how many connections a server has been asked for.
func connections(t *testing.T, admin *redis.Client) int {
	t.Helper()
	info, err := admin.InfoMap(t.Context(), "stats").Result()
	require.NoError(t, err)
	n := 0
	for _, section := range info {
		if text, ok := section["total_connections_received"]; ok {
			for _, digit := range text {
				n = 10*n + int(digit-'0')
			}
		}
	}
	require.Positive(t, n)
	return n
}
