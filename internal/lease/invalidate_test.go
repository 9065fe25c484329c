package lease_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func manyKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("app:user:", i)
	}
	return keys
}

// putAll stores an entry and a lease at each of keys.
func (r *rig) putAll(t *testing.T, keys []string) {
	t.Helper()
	_, err := r.redis.Pipelined(r.ctx(), func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.Set(r.ctx(), key, "entry", ttl)
			p.Set(r.ctx(), "{"+key+"}:lease", "token", ttl)
		}
		return nil
	})
	require.NoError(t, err)
}

func TestInvalidate_DeletesEntriesAndLeases(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for n, trips := range map[int]int{0: 0, 1: 1, 1000: 1, 2050: 1} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				r.reset(t)
				keys := manyKeys(n)
				r.putAll(t, keys)
				r.put(t, "other", "entry", ttl)

				left, err := r.Invalidate(r.ctx(), keys...)
				require.NoError(t, err)
				require.Empty(t, left)
				size, err := r.redis.DBSize(r.ctx()).Result()
				require.NoError(t, err)
				require.EqualValues(t, 1, size, "only the other is there")

				require.Len(t, r.wire.sent, trips)
				require.Equal(t, trips, r.wire.forced, "it is tried even while Redis is thought to be down")
			})
		}
	})
}

func TestInvalidate_RefusesFillOfOlderLoad(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		got, err := r.Acquire(r.ctx(), key, "token", ttl)
		require.NoError(t, err)
		require.True(t, got.Held)
		_, err = r.Invalidate(r.ctx(), key)
		require.NoError(t, err)

		kept, err := r.Renew(r.ctx(), key, got.Token, ttl)
		require.NoError(t, err)
		require.False(t, kept)
		kept, err = r.Fill(r.ctx(), key, got.Token, []byte("older"), ttl)
		require.NoError(t, err)
		require.False(t, kept)
		r.requireGone(t, key, own)
	})
}

func TestInvalidate_DeletesKeysThatHaveNoLease(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.put(t, "a{b}c", "entry", ttl)
		left, err := r.Invalidate(r.ctx(), "a{b}c")
		require.NoError(t, err)
		require.Empty(t, left)
		r.requireGone(t, "a{b}c")
		require.Equal(t, []any{"unlink", "a{b}c"}, r.wire.last())
	})
}

func TestInvalidate_SaysWhatIsLeftWhenRedisRefusesSome(t *testing.T) {
	refusal := errors.New("NOPERM No permissions to access a key")
	keys := manyKeys(2050)
	wire := &direct{spoil: func(cmd redis.Cmder) {
		if args := cmd.Args(); args[1] == keys[3] || args[1] == keys[1001] {
			cmd.SetErr(refusal)
		}
	}}
	left, err := newSingle(wire).Invalidate(t.Context(), keys...)
	require.ErrorIs(t, err, refusal)
	require.Equal(t, []string{keys[3], keys[1001]}, left)

	wire.fail = func(int) error { return lostFrom(2000) }
	left, err = newSingle(wire).Invalidate(t.Context(), keys...)
	require.ErrorIs(t, err, errLost)
	require.Equal(t, append([]string{keys[3]}, keys[1000:]...), left)
	require.Len(t, keys, 2050)
	require.Equal(t, manyKeys(2050), keys, "the caller's slice is the caller's")
}

// redirection is the answer of a node to a key that the slot's move has taken to another.
type redirection struct{}

func (redirection) Error() string { return "ASK 1 127.0.0.1:7001" }
func (redirection) RedisError()   {}

// The client sends what was redirected again after all the other commands. If that is the deletion of the
// lease, an older load may have been stored between the two.
func TestWrites_AreRepeatedWhereLeaseWasDeletedAfterEntry(t *testing.T) {
	for name, write := range map[string]func(s single) error{
		"invalidate": func(s single) error { return second(s.Invalidate(t.Context(), key)) },
		"set":        func(s single) error { return s.Set(t.Context(), key, []byte("entry"), ttl) },
		"expire":     func(s single) error { return second(s.Expire(t.Context(), time.Now(), ttl, key)) },
	} {
		for redirected, trips := range map[string]int{own: 2, key: 1, "": 1} {
			wire := &direct{spoil: func(cmd redis.Cmder) {
				if redirected != "" && slices.Contains(cmd.Args(), any(redirected)) {
					cmd.SetErr(redirection{})
					cmd.SetErr(nil) // the other node's answer
				}
			}}
			require.NoError(t, write(newSingle(wire)), name)
			require.Len(t, wire.sent, trips, "%s, redirected: %s", name, redirected)
			for _, cmds := range wire.sent {
				require.Len(t, cmds, 2)
				require.Equal(t, []any{"unlink", own}, cmds[0].Args())
				require.Contains(t, cmds[1].Args(), any(key))
			}
		}
	}
}

// lostFrom is the error of a round trip whose commands were answered up to that one.
type lostFrom int

func (lostFrom) Error() string { return "some are lost" }

func (from lostFrom) Of(i int) error {
	if i >= int(from) {
		return errLost
	}
	return nil
}

// What was answered counts, whatever became of the rest: of an acquire's three commands all must be.
func TestStore_IsAnsweredInPart(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.wire.fail = func(call int) error {
			if call == 0 {
				return lostFrom(5)
			}
			return lostFrom(1)
		}
		got := r.Store.Acquire(r.ctx(), []lease.Request{{Key: "a", Token: "1", TTL: ttl}, {Key: "b", Token: "2", TTL: ttl}})
		token := got[0].Token
		require.Equal(t, []lease.Acquired{{Held: true, Token: token}, {Err: errLost}}, got)
		outcomes := r.Settle(r.ctx(), []lease.Settlement{{Key: "a", Token: token}, {Key: "b", Token: "2"}})
		require.Equal(t, []lease.Outcome{{Kept: true}, {Err: errLost}}, outcomes)
	})
}

func TestNewToken_IsUnique(t *testing.T) {
	const n = 1000
	seen := make(map[string]bool, n)
	for range n {
		token := lease.NewToken()
		seen[token] = true
		require.GreaterOrEqual(t, len(token), 16, "too short to be no guess")
	}
	require.Len(t, seen, n)
}

// keysOfAllKinds are such as wrappers and callers with raw keys make.
func keysOfAllKinds() []string {
	keys := append(manyKeys(50), "k", "a:b:c", "%7Bescaped%7D", "with space", "line\r\n", "\x00\xff", "äöü", ":lease",
		strings.Repeat("long", 1000))
	return append(keys, "{", "}", "{}", "a{b}c", "{a}b", "a}b", "a{b", "{a}{b}", "}{")
}

func TestKey_IsInSlotOfItsEntry(t *testing.T) {
	t.Parallel()
	// A node answers for slots as a whole cluster would, but for the data.
	node := redistest.Start(t, "--cluster-enabled", "yes").Client()
	slot := func(key string) int64 {
		n, err := node.ClusterKeySlot(t.Context(), key).Result()
		require.NoError(t, err)
		return n
	}
	slots := make(map[int64]bool)
	protected := 0
	for _, key := range keysOfAllKinds() {
		slots[slot(key)] = true
		if lease.Protects(key) {
			protected++
			for _, prefix := range []string{"", "app", "a:b"} {
				own := lease.NewStore(nil, lease.Config{Prefix: prefix}).Key(key)
				require.Equal(t, slot(key), slot(own), "%q", key)
				require.NotEqual(t, key, own)
			}
		}
	}
	require.Greater(t, len(slots), 50, "the keys are spread")
	require.Equal(t, len(keysOfAllKinds())-9, protected, "all but those with braces")
	require.Equal(t, own, lease.NewStore(nil, lease.Config{}).Key(key))
	require.Equal(t, "app:{app:user:1}:lease", lease.NewStore(nil, lease.Config{Prefix: "app"}).Key(key))
}

func TestStore_WorksOnCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0)
	client := cluster.Client()
	s := newSingle(&direct{client: client})
	ctx := t.Context()
	keys := keysOfAllKinds()
	for _, key := range keys {
		require.NoError(t, s.Set(ctx, key, []byte("set"), ttl), "%q", key)
	}
	left, err := s.Invalidate(ctx, keys...)
	require.NoError(t, err)
	require.Empty(t, left)
	for _, key := range keys {
		if !lease.Protects(key) {
			continue
		}
		got, err := s.Acquire(ctx, key, "token", ttl)
		require.NoError(t, err)
		require.Equal(t, lease.Acquired{Held: true, Token: "token"}, ofLoad(t, client, s.Key(key), got), "%q: the entry is gone and the lease free", key)
		kept, err := s.Renew(ctx, key, got.Token, ttl)
		require.NoError(t, err)
		require.True(t, kept)
		kept, err = s.Fill(ctx, key, got.Token, []byte("entry of "+key), ttl)
		require.NoError(t, err)
		require.True(t, kept)
		got, err = s.Acquire(ctx, key, "next", ttl)
		require.NoError(t, err)
		require.Equal(t, lease.Acquired{Held: true, Token: "next", Found: true, Entry: []byte("entry of " + key)}, ofLoad(t, client, s.Key(key), got))
		kept, err = s.Release(ctx, key, got.Token)
		require.NoError(t, err)
		require.True(t, kept)
	}
}
