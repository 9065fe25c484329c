package lease_test

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/redistest"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// safeRig returns a FailoverSafe Store on a redis-server.
func safeRig(t *testing.T, args ...string) (*rig, *redistest.Server) {
	t.Helper()
	server := redistest.Start(t, args...)
	client := server.Client()
	wire := &direct{client: client}
	return &rig{single{lease.NewStore(wire, lease.Config{FailoverSafe: true})}, client, wire}, server
}

// primary returns the replication ID of the server.
func (r *rig) primary(t *testing.T) string {
	t.Helper()
	info, err := r.redis.Info(r.ctx(), "replication").Result()
	require.NoError(t, err)
	_, after, ok := strings.Cut(info, "master_replid:")
	require.True(t, ok)
	return after[:entry.PrimarySize]
}

// get returns the entry that a read of key is given, "" for none.
func (r *rig) get(t *testing.T, key string) string {
	t.Helper()
	found := r.Get(r.ctx(), r.wire.Do, key)[0]
	if found.Err != nil {
		require.ErrorIs(t, found.Err, redis.Nil)
	}
	return string(found.Entry)
}

// ofLoad returns an answer with that part of its token which names the load. It fails the test unless
// the whole token, and the stamp of the server, are what Redis has at the lease's key.
func (r *rig) ofLoad(t *testing.T, a lease.Acquired) lease.Acquired {
	t.Helper()
	if a.Held {
		require.Equal(t, r.redis.Get(r.ctx(), own).Val(), a.Token+"."+r.primary(t))
		a.Token = loadOf(a.Token)
	}
	return a
}

var (
	plain   = string(entryUntil(time.UnixMilli(1 << 40)))
	foreign = strings.Repeat("0123456789", 4) // as ID of another primary
)

// entryUntil returns an entry that is fresh until then.
func entryUntil(until time.Time) []byte {
	b, _ := entry.Append(nil, &entry.Entry{LoadedAt: time.UnixMilli(1), FreshUntil: until},
		func(dst []byte) ([]byte, error) { return append(dst, 0x2a), nil })
	return b
}

func stampedBy(primary string) string {
	return entry.StampedMagic + plain[len(entry.Magic):entry.PrimaryOffset] + primary + plain[entry.PrimaryOffset:]
}

func TestFailoverSafe_StampsWhatItStores(t *testing.T) {
	t.Parallel()
	r, _ := safeRig(t)
	id := r.primary(t)
	for name, store := range map[string]func() error{
		"fill": func() error {
			got, err := r.Acquire(r.ctx(), key, "token", ttl)
			require.NoError(t, err)
			require.Equal(t, "token", r.ofLoad(t, got).Token)
			kept, err := r.Renew(r.ctx(), key, got.Token, 2*ttl)
			require.NoError(t, err)
			require.True(t, kept)
			r.requireKey(t, own, got.Token+"."+id, 2*ttl)
			kept, err = r.Fill(r.ctx(), key, got.Token, []byte(plain), ttl)
			require.True(t, kept)
			return err
		},
		"set": func() error { return r.Set(r.ctx(), key, []byte(plain), ttl) },
	} {
		t.Run(name, func(t *testing.T) {
			r.reset(t)
			require.NoError(t, store())
			r.requireKey(t, key, stampedBy(id), ttl)
			r.requireGone(t, own)
			require.Equal(t, stampedBy(id), r.get(t, key))
			e, err := entry.Parse([]byte(r.get(t, key)))
			require.NoError(t, err)
			require.Equal(t, entry.Entry{LoadedAt: time.UnixMilli(1), FreshUntil: time.UnixMilli(1 << 40), Value: []byte{0x2a}}, e)
		})
	}
}

func TestFailoverSafe_GivesOutWhatThisPrimaryTook(t *testing.T) {
	t.Parallel()
	r, _ := safeRig(t)
	id := r.primary(t)
	for name, row := range map[string]struct {
		entry, holder string // "" for none
		want          lease.Acquired
	}{
		"nothing":                       {"", "", lease.Acquired{Held: true, Token: "token"}},
		"its entry":                     {stampedBy(id), "", lease.Acquired{Held: true, Token: "token", Found: true, Entry: []byte(stampedBy(id))}},
		"its entry, and another holds":  {stampedBy(id), "another." + id, lease.Acquired{Holder: "another", Found: true, Entry: []byte(stampedBy(id))}},
		"another holds":                 {"", "another." + id, lease.Acquired{Holder: "another"}},
		"an attempt of one's own holds": {"", "token.1." + id, lease.Acquired{Held: true, Token: "token"}},
		"another primary's entry":       {stampedBy(foreign), "", lease.Acquired{Held: true, Token: "token"}},
		"another primary's lease":       {"", "another." + foreign, lease.Acquired{Held: true, Token: "token"}},
		"a lease without a stamp":       {"", "another", lease.Acquired{Held: true, Token: "token"}},
		"an entry without a stamp":      {plain, "", lease.Acquired{Held: true, Token: "token"}},
		"something else with the stamp": {strings.Repeat(" ", entry.PrimaryOffset) + id + "x", "", lease.Acquired{Held: true, Token: "token"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.reset(t)
			if row.entry != "" {
				r.put(t, key, row.entry, 0)
			}
			if row.holder != "" {
				r.put(t, own, row.holder, ttl)
			}
			require.Equal(t, string(row.want.Entry), r.get(t, key))
			got, err := r.Acquire(r.ctx(), key, "token", ttl)
			require.NoError(t, err)
			require.Equal(t, row.want, r.ofLoad(t, got))
			kept, err := r.Release(r.ctx(), key, cmp.Or(got.Token, "token"))
			require.NoError(t, err)
			require.Equal(t, row.want.Held, kept)
			got, err = r.Steal(r.ctx(), key, "thief", ttl)
			require.NoError(t, err)
			require.Equal(t, lease.Acquired{Held: true, Token: "thief"}, r.ofLoad(t, got))
			require.NoError(t, second(r.Release(r.ctx(), key, "thief")), "of an attempt that is not known")
			r.requireGone(t, own)
		})
	}
	require.NoError(t, r.redis.FlushAll(r.ctx()).Err())
	require.NoError(t, r.redis.LPush(r.ctx(), key, "no string").Err())
	require.Empty(t, r.get(t, key))
	got, err := r.Acquire(r.ctx(), key, "token", ttl)
	require.NoError(t, err)
	require.Equal(t, lease.Acquired{Held: true, Token: "token"}, r.ofLoad(t, got))
}

// TestFailoverSafe_RefusesFillOfLeaseThatCameBack has Redis forget the invalidation that has deleted
// a lease, while its holder still loads.
func TestFailoverSafe_RefusesFillOfLeaseThatCameBack(t *testing.T) {
	t.Parallel()
	r, server := safeRig(t)
	got, err := r.Acquire(r.ctx(), key, "token", ttl)
	require.NoError(t, err)
	require.True(t, got.Held)
	require.NoError(t, r.redis.Save(r.ctx()).Err())
	_, err = r.Invalidate(r.ctx(), key)
	require.NoError(t, err)
	server.Restart()
	require.Eventually(t, func() bool { return r.redis.Get(r.ctx(), own).Val() != "" }, 10*time.Second, time.Millisecond, "the lease is back")
	for name, settle := range map[string]func() (bool, error){
		"renew":   func() (bool, error) { return r.Renew(r.ctx(), key, got.Token, ttl) },
		"fill":    func() (bool, error) { return r.Fill(r.ctx(), key, got.Token, []byte(plain), ttl) },
		"release": func() (bool, error) { return r.Release(r.ctx(), key, got.Token) },
	} {
		kept, err := settle()
		require.NoError(t, err, name)
		require.False(t, kept, name)
	}
	r.requireGone(t, key)
	got, err = r.Acquire(r.ctx(), key, "next", ttl)
	require.NoError(t, err)
	require.True(t, got.Held, "and holds nobody up")
}

func TestFailoverSafe_ExpiresInPlace(t *testing.T) {
	t.Parallel()
	r, _ := safeRig(t)
	now := time.UnixMilli(1 << 39)
	require.NoError(t, r.Set(r.ctx(), key, []byte(plain), ttl))
	_, err := r.Expire(r.ctx(), now, ttl/4, key)
	require.NoError(t, err)
	e, err := entry.Parse([]byte(r.get(t, key)))
	require.NoError(t, err)
	require.Equal(t, now, e.FreshUntil)
	require.LessOrEqual(t, r.redis.PTTL(r.ctx(), key).Val(), ttl/4)

	r.put(t, key, plain, ttl)
	_, err = r.Expire(r.ctx(), now, ttl/4, key)
	require.NoError(t, err)
	r.requireGone(t, key)
}

func TestFailoverSafe_AsksInOneRoundTripUnlessScriptIsForgotten(t *testing.T) {
	t.Parallel()
	r, _ := safeRig(t)
	require.NoError(t, r.Set(r.ctx(), key, []byte(plain), ttl))
	for name, ask := range map[string]func(){
		"get": func() { require.NotEmpty(t, r.get(t, key)) },
		"acquire": func() {
			got, err := r.Acquire(r.ctx(), key, "token", ttl)
			require.NoError(t, err)
			require.True(t, got.Found)
		},
	} {
		for i, want := range []int{1, 1, 2, 1} {
			if i == 2 {
				require.NoError(t, r.redis.ScriptFlush(r.ctx()).Err())
			}
			before := len(r.wire.sent)
			ask()
			require.Equal(t, want, len(r.wire.sent)-before, "%s %d", name, i)
		}
	}
}

func TestFailoverSafe_ReplicaGivesOutNothing(t *testing.T) {
	t.Parallel()
	r, server := safeRig(t)
	require.NoError(t, r.Set(r.ctx(), key, []byte(plain), ttl))
	require.NotEmpty(t, r.get(t, key))
	_, port, _ := strings.Cut(redistest.Start(t).Addr(), ":")
	require.NoError(t, server.Client().ReplicaOf(r.ctx(), "127.0.0.1", port).Err())
	require.ErrorContains(t, r.Get(r.ctx(), r.wire.Do, key)[0].Err, "READONLY")
	require.ErrorContains(t, second(r.Acquire(r.ctx(), key, "token", ttl)), "READONLY")
}

func TestFailoverSafe_TellsThoseWhoWaitThatLoadHasFailed(t *testing.T) {
	t.Parallel()
	r, _ := safeRig(t)
	for _, failed := range []bool{false, true} {
		r.reset(t)
		held, err := r.Acquire(r.ctx(), key, "token", ttl)
		require.NoError(t, err)
		got, err := r.Acquire(r.ctx(), key, "waiter", ttl)
		require.NoError(t, err)
		require.Equal(t, lease.Acquired{Holder: held.Token}, got)
		require.True(t, r.Settle(r.ctx(), []lease.Settlement{{Key: key, Token: held.Token, Failed: failed}})[0].Kept)
		third, err := r.Acquire(r.ctx(), key, "third", ttl)
		require.NoError(t, err)
		got, err = r.ask(r.ctx(), lease.Request{Key: key, Token: "waiter", TTL: ttl, WaitsFor: got.Holder})
		require.NoError(t, err)
		require.Equal(t, lease.Acquired{Holder: third.Token, Failed: failed}, got)
	}
}
