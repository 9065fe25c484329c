package lease_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
)

// refusal is the answer of a Redis that does not know a command.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

func TestStore_TriesWhatWasRefusedAgainAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuses := true
		wire := &direct{spoil: func(cmd redis.Cmder) {
			if refuses && (strings.HasPrefix(cmd.Name(), "eval") || cmd.Name() == "unlink") {
				cmd.SetErr(refusal("ERR unknown command '" + cmd.Name() + "'"))
			}
		}}
		var said []error
		s := single{lease.NewStore(wire, lease.Config{
			Watch: func(context.Context, func(*redis.Tx) error, ...string) error {
				if refuses {
					return refusal("ERR unknown command 'watch'")
				}
				return nil
			},
			OnRefused: func(err error) { said = append(said, err) },
		})}
		ctx := t.Context()
		settle := func() error { return second(s.Fill(ctx, key, "token", []byte("entry"), ttl)) }
		acquire := func() error { return second(s.Acquire(ctx, key, "token", ttl)) }

		require.NoError(t, acquire())
		require.ErrorIs(t, settle(), lease.ErrRefused)
		require.Equal(t, []any{"del", own}, wire.last(), "the lease is not left behind")
		require.Len(t, said, 3, "%v", said)
		for range 2 {
			sent := len(wire.sent)
			require.ErrorIs(t, acquire(), lease.ErrRefused)
			require.Len(t, wire.sent, sent, "a lease would be of no use")
			time.Sleep(29 * time.Second)
			require.ErrorIs(t, acquire(), lease.ErrRefused)
			time.Sleep(time.Second)
			require.NoError(t, acquire())
			require.ErrorIs(t, settle(), lease.ErrRefused)
		}
		require.Len(t, said, 3, "each is said once")

		time.Sleep(30 * time.Second)
		refuses = false
		require.NoError(t, settle())
		require.NoError(t, second(s.Invalidate(ctx, key)))
		require.Equal(t, []any{"unlink", key}, wire.last())
		refuses = true
		require.ErrorIs(t, settle(), lease.ErrRefused)
		require.Len(t, said, 5, "what begins anew is said anew: %v", said[3:])
	})
}

// What Redis says of a key, or of itself, is said of no command.
func TestStore_TakesOnlyRefusalsOfCommandsForSuch(t *testing.T) {
	for reply, refused := range map[string]bool{
		"NOPERM this user has no permissions to run the 'eval' command":                                   true,
		"NOPERM User cache has no permissions to run the 'eval' command":                                  true,
		"ERR The user executing the script can't run this command or subcommand script: x":                true,
		"ERR ACL failure in script: User cache has no permissions to run the 'set' command":               true,
		"ERR unknown command 'EVAL', with args beginning with: ":                                          true,
		"ERR unknown command `EVAL`, with args beginning with: ":                                          true,
		"ERR Unknown Redis command called from script script: x":                                          true,
		"ERR This Redis command is not allowed from script script: x":                                     true,
		"ERR command 'EVAL' is not allowed":                                                               true,
		"unsupported command 'eval'":                                                                      true,
		"NOPERM this user has no permissions to access one of the keys used as arguments":                 false,
		"NOPERM No permissions to access a key":                                                           false,
		"OOM command not allowed when used memory > 'maxmemory'.":                                         false,
		"TRYAGAIN Multiple keys request during rehashing of slot":                                         false,
		"READONLY You can't write against a read only replica.":                                           false,
		"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist on disk": false,
	} {
		wire := &direct{spoil: func(cmd redis.Cmder) {
			if cmd.Name() == "eval" {
				cmd.SetErr(refusal(reply))
			}
		}}
		_, err := newSingle(wire).Release(t.Context(), key, "token")
		require.Equal(t, refused, errors.Is(err, lease.ErrRefused), "%s: %v", reply, err)
	}
	wire := &direct{fail: func(int) error { return errors.New("unknown command") }}
	_, err := newSingle(wire).Release(t.Context(), key, "token")
	require.NotErrorIs(t, err, lease.ErrRefused, "no reply of Redis")
}
