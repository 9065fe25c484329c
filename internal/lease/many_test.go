package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

func TestAcquire_OfManyIsOneRoundTrip(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.put(t, r.Key("held"), "another", ttl)
		r.put(t, "stored", "entry", ttl)
		got := r.Store.Acquire(r.ctx(), []lease.Request{
			{Key: "cold", Token: "1", TTL: ttl}, {Key: "held", Token: "2", TTL: ttl},
			{Key: "stored", Token: "3", TTL: ttl}, {Key: "held", Token: "4", TTL: ttl, Steal: true},
		})
		require.Len(t, r.wire.sent, 1)
		for i, key := range []string{"cold", "held", "stored", "held"} {
			got[i] = ofLoad(t, r.redis, r.Key(key), got[i])
			if got[i].Held {
				r.requireKey(t, r.Key(key), r.redis.Get(r.ctx(), r.Key(key)).Val(), ttl)
			}
		}
		require.Equal(t, []lease.Acquired{
			{Held: true, Token: "1"}, {Holder: "another"}, {Held: true, Token: "3", Found: true, Entry: []byte("entry")}, {Held: true, Token: "4"},
		}, got)
	})
}

func TestSettle_OfManyGoesByEachLease(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		for _, round := range []struct {
			forgotten bool // by Redis: the scripts
			trips     int
		}{{false, 1}, {false, 1}, {true, 2}} {
			r.reset(t)
			if round.forgotten {
				require.NoError(t, r.redis.ScriptFlush(r.ctx()).Err())
			}
			for _, key := range []string{"a", "b", "c"} {
				r.put(t, r.Key(key), "token", ttl)
			}
			got := r.Settle(r.ctx(), []lease.Settlement{
				{Key: "a", Token: "token", Entry: []byte("A"), TTL: ttl},
				{Key: "b", Token: "older", Entry: []byte("B"), TTL: ttl},
				{Key: "c", Token: "token"},
			})
			require.Equal(t, []lease.Outcome{{Kept: true}, {}, {Kept: true}}, got)
			r.requireKey(t, "a", "A", ttl)
			r.requireGone(t, "b", "c", r.Key("a"), r.Key("c"))
			r.requireKey(t, r.Key("b"), "token", ttl)
			require.Len(t, r.wire.sent, round.trips)
		}
	})
}

func TestExpire_MakesEntryStaleInPlace(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	const stale = time.Minute
	header := func(until time.Time) string {
		return string(entryUntil(until))
	}
	v1 := func(until time.Time) string {
		return entry.MagicV1 + "\x00loaded" + string(entry.Stamp(until)) + "\x00\x01\x2a"
	}
	for name, row := range map[string]struct {
		stored string
		kept   time.Duration // in Redis before; 0: for good
		want   string        // empty: nothing is left
		left   time.Duration
	}{
		"fresh":                 {header(now.Add(time.Hour)), time.Hour, header(now), stale},
		"of version 1":          {v1(now.Add(time.Hour)), time.Hour, v1(now), stale},
		"never stale":           {header(time.Time{}), 0, header(now), stale},
		"fresh, gone soon":      {header(now.Add(time.Second)), time.Second, header(now), time.Second},
		"stale already":         {header(now.Add(-time.Second)), time.Second, header(now.Add(-time.Second)), time.Second},
		"no entry of ours":      {"\x93 something else that is long enough", 0, "", 0},
		"shorter than a header": {header(now)[:10], 0, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, r *rig) {
				r.put(t, key, row.stored, row.kept)
				r.put(t, own, "token", ttl)
				left, err := r.Expire(r.ctx(), now, stale, key, "nothing there")
				require.NoError(t, err)
				require.Empty(t, left)
				r.requireGone(t, own, "nothing there")
				if row.want == "" {
					r.requireGone(t, key)
					return
				}
				r.requireKey(t, key, row.want, row.left)
			})
		})
	}
}

func TestExpire_RemovesWhatIsNoString(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		require.NoError(t, r.redis.LPush(r.ctx(), key, "a").Err())
		_, err := r.Expire(r.ctx(), time.Now(), time.Minute, key)
		require.NoError(t, err)
		r.requireGone(t, key)
	})
}
