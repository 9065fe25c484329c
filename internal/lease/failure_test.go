package lease_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestFullRedis_IsAnError(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	s := newSingle(&direct{client: client})
	ctx := t.Context()
	got, err := s.Steal(ctx, key, "token", ttl)
	require.NoError(t, err)
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())
	for name, err := range map[string]error{
		"acquire": second(s.Acquire(ctx, "another", "token", ttl)),
		"steal":   second(s.Steal(ctx, key, "thief", ttl)),
		"fill":    second(s.Fill(ctx, key, got.Token, []byte("entry"), ttl)),
		"set":     s.Set(ctx, "another", []byte("entry"), ttl),
	} {
		require.Error(t, err, name)
		require.True(t, redis.HasErrorPrefix(err, "OOM"), "%s: %v", name, err)
	}
	kept, err := s.Release(ctx, key, got.Token)
	require.NoError(t, err, "giving back needs no room")
	require.True(t, kept, "what failed has left the lease alone")
	left, err := s.Invalidate(ctx, key)
	require.NoError(t, err)
	require.Empty(t, left)
}

func second[T any](_ T, err error) error { return err }

var errLost = errors.New("connection lost")

// calls are the methods that make one round trip, or two when Redis does not know the script.
var calls = map[string]struct {
	script bool
	run    func(context.Context, single) (any, error)
}{
	"acquire": {false, func(ctx context.Context, s single) (any, error) { return s.Acquire(ctx, key, "token", ttl) }},
	"steal":   {false, func(ctx context.Context, s single) (any, error) { return s.Steal(ctx, key, "token", ttl) }},
	"fill": {true, func(ctx context.Context, s single) (any, error) {
		return s.Fill(ctx, key, "token", []byte("entry"), ttl)
	}},
	"renew":   {true, func(ctx context.Context, s single) (any, error) { return s.Renew(ctx, key, "token", ttl) }},
	"release": {true, func(ctx context.Context, s single) (any, error) { return s.Release(ctx, key, "token") }},
	"set": {false, func(ctx context.Context, s single) (any, error) {
		return nil, s.Set(ctx, key, []byte("entry"), ttl)
	}},
	"set without lease": {false, func(ctx context.Context, s single) (any, error) {
		return nil, s.Set(ctx, "{"+key, []byte("entry"), ttl)
	}},
	"invalidate": {false, func(ctx context.Context, s single) (any, error) {
		_, err := s.Invalidate(ctx, key)
		return nil, err
	}},
}

// requireNothing says that no result comes with an error.
func requireNothing(t *testing.T, result any) {
	t.Helper()
	require.Contains(t, []any{nil, false, lease.Acquired{}}, result)
}

func TestCalls_ReturnErrorOfFailedRoundTrip(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			wire := &direct{fail: func(int) error { return errLost }}
			result, err := call.run(t.Context(), newSingle(wire))
			require.ErrorIs(t, err, errLost)
			requireNothing(t, result)
			require.Len(t, wire.sent, 1)
		})
	}
}

// A reply that is lost says nothing of the lease, although another of the same call has come.
func TestAcquire_KnowsNothingWhenAnswersAreLostInPart(t *testing.T) {
	for _, lost := range []string{key, own} {
		wire := &direct{spoil: func(cmd redis.Cmder) {
			if cmd.Name() == "get" && cmd.Args()[1] == lost {
				cmd.SetErr(errLost)
			}
		}}
		result, err := newSingle(wire).Acquire(t.Context(), key, "token", ttl)
		require.ErrorIs(t, err, errLost)
		requireNothing(t, result)
	}
}

func TestCalls_ReturnErrorThatRedisAnswersWith(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			wire := &direct{spoil: func(cmd redis.Cmder) { cmd.SetErr(errLost) }}
			result, err := call.run(t.Context(), newSingle(wire))
			require.ErrorIs(t, err, errLost)
			requireNothing(t, result)
			require.Len(t, wire.sent, 1)
		})
	}
}

// noScript is the answer of a Redis that does not know a script.
type noScript struct{}

func (noScript) Error() string { return "NOSCRIPT No matching script. Please use EVAL." }
func (noScript) RedisError()   {}

func TestScripts_ThatCannotBeTaughtAreErrors(t *testing.T) {
	for name, call := range calls {
		if !call.script {
			continue
		}
		t.Run(name, func(t *testing.T) {
			wire := &direct{
				spoil: func(cmd redis.Cmder) { cmd.SetErr(noScript{}) },
				fail: func(call int) error {
					if call == 1 {
						return errLost
					}
					return nil
				},
			}
			result, err := call.run(t.Context(), newSingle(wire))
			require.ErrorIs(t, err, errLost)
			requireNothing(t, result)
			require.Len(t, wire.sent, 2)
		})
	}
}

func TestTTL_IsWholeMillisecondsAndAtLeastOne(t *testing.T) {
	for given, want := range map[time.Duration]int64{
		1:                                1,
		time.Millisecond - 1:             1,
		time.Millisecond:                 1,
		1999 * time.Microsecond:          1,
		2 * time.Millisecond:             2,
		time.Hour + 999*time.Microsecond: time.Hour.Milliseconds(),
		100 * 365 * 24 * time.Hour:       (100 * 365 * 24 * time.Hour).Milliseconds(),
		0:                                0,
		-time.Second:                     0,
	} {
		t.Run(given.String(), func(t *testing.T) {
			wire := &direct{}
			s := newSingle(wire)
			ctx := t.Context()
			_, err := s.Acquire(ctx, key, "token", given)
			require.NoError(t, err)
			words := wire.sent[0][0].Args()
			require.Equal(t, "token", loadOf(nextAttempt(t, wire.sent[0][0])))
			require.Equal(t, []any{"set", own, words[2], "nx", "px", want}, words)

			_, _ = s.Fill(ctx, key, "token", []byte("entry"), given) // there is no reply to read a number from
			require.Equal(t, want, lastInt(t, wire))
			_ = s.Set(ctx, key, []byte("entry"), given)
			if set := []any{"set", key, []byte("entry")}; want == 0 {
				require.Equal(t, set, wire.last())
			} else {
				require.Equal(t, append(set, "px", want), wire.last())
			}
			_, _ = s.Renew(ctx, key, "token", given)
			require.Equal(t, want, lastInt(t, wire))
		})
	}
}

func lastInt(t *testing.T, wire *direct) int64 {
	t.Helper()
	args := wire.last()
	n, ok := args[len(args)-1].(int64)
	require.True(t, ok, "%v", args)
	return n
}

// A client that was still connecting sends what nobody waits for any more: others must not wait for
// that lease until it expires.
func TestAcquire_ThatComesTooLateIsReleased(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, acquired := range []bool{false, true} {
			r.reset(t)
			if !acquired {
				r.put(t, own, "another", ttl)
			}
			r.wire.fail = func(call int) error {
				if call == 0 {
					return errLost
				}
				return nil
			}
			_, err := r.Acquire(r.ctx(), key, "token", ttl)
			require.ErrorIs(t, err, errLost)
			r.requireGone(t, key)
			r.wire.sendAgain(r.ctx(), 0)
			if !acquired {
				r.requireKey(t, own, "another", ttl)
				continue
			}
			require.Eventually(t, func() bool {
				n, err := r.redis.Exists(r.ctx(), own).Result()
				return err == nil && n == 0
			}, 10*time.Second, time.Millisecond)
		}
	})
}
