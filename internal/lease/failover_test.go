package lease_test

import (
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

var (
	plain   = string(entry.AppendHeader(nil, &entry.Entry{LoadedAt: time.UnixMilli(1), FreshUntil: time.UnixMilli(1 << 40)})) + "\x2a"
	foreign = strings.Repeat("0123456789", 4) // as ID of another primary
)

func stampedBy(primary string) string {
	return entry.StampedMagic + plain[len(entry.Magic):entry.HeaderSize] + primary + plain[entry.HeaderSize:]
}

func TestFailoverSafe_StampsWhatItStores(t *testing.T) {
	t.Parallel()
	r, _ := safeRig(t)
	id := r.primary(t)
	for name, store := range map[string]func() error{
		"fill": func() error {
			_, err := r.Acquire(r.ctx(), key, "token", ttl)
			require.NoError(t, err)
			r.requireKey(t, own, "token."+id, ttl)
			kept, err := r.Renew(r.ctx(), key, "token", 2*ttl)
			require.NoError(t, err)
			require.True(t, kept)
			kept, err = r.Fill(r.ctx(), key, "token", []byte(plain), ttl)
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
		"nothing":                       {"", "", lease.Acquired{Held: true}},
		"its entry":                     {stampedBy(id), "", lease.Acquired{Held: true, Found: true, Entry: []byte(stampedBy(id))}},
		"its entry, and another holds":  {stampedBy(id), "another." + id, lease.Acquired{Holder: "another", Found: true, Entry: []byte(stampedBy(id))}},
		"another holds":                 {"", "another." + id, lease.Acquired{Holder: "another"}},
		"oneself holds":                 {"", "token." + id, lease.Acquired{Held: true}},
		"another primary's entry":       {stampedBy(foreign), "", lease.Acquired{Held: true}},
		"another primary's lease":       {"", "another." + foreign, lease.Acquired{Held: true}},
		"a lease without a stamp":       {"", "another", lease.Acquired{Held: true}},
		"an entry without a stamp":      {plain, "", lease.Acquired{Held: true}},
		"something else with the stamp": {strings.Repeat(" ", entry.StampedHeaderSize-entry.PrimarySize) + id + "x", "", lease.Acquired{Held: true}},
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
			require.Equal(t, row.want, got)
			kept, err := r.Release(r.ctx(), key, "token")
			require.NoError(t, err)
			require.Equal(t, row.want.Held, kept)
			require.NoError(t, r.Steal(r.ctx(), key, "thief", ttl))
			r.requireKey(t, own, "thief."+id, ttl)
		})
	}
	require.NoError(t, r.redis.FlushAll(r.ctx()).Err())
	require.NoError(t, r.redis.LPush(r.ctx(), key, "no string").Err())
	require.Empty(t, r.get(t, key))
	got, err := r.Acquire(r.ctx(), key, "token", ttl)
	require.NoError(t, err)
	require.Equal(t, lease.Acquired{Held: true}, got)
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
		"renew":   func() (bool, error) { return r.Renew(r.ctx(), key, "token", ttl) },
		"fill":    func() (bool, error) { return r.Fill(r.ctx(), key, "token", []byte(plain), ttl) },
		"release": func() (bool, error) { return r.Release(r.ctx(), key, "token") },
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
