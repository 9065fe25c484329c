package readthroughtest_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

// audited runs test with users audited, and returns how Audit has failed it.
func audited(t *testing.T, test func(t testing.TB, fake *readthroughtest.Fake, db *table, users *readthrough.ReadThrough[int, string])) []string {
	t.Helper()
	w := &watched{}
	t.Run("audited", func(t *testing.T) {
		w.TB = t
		fake, db := readthroughtest.New(w), newTable(map[int]string{1: "Ada"})
		users := wrap(t, fake.Cache, db.find, readthrough.WithNotFound(time.Hour, sql.ErrNoRows), readthrough.WithStale(time.Hour))
		readthroughtest.Audit(users, db.find)
		test(t, fake, db, users)
	})
	return w.said()
}

type users = readthrough.ReadThrough[int, string]

func TestAudit_FindsForgottenInvalidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, after string // the row; empty: there is none
		get           func(*users)
		says          string
	}{
		"of an update": {"Ada", "Grace", func(rt *users) { _, _ = rt.Get(context.Background(), 1) },
			"user:1 is served from the cache as Ada, and a direct load returns Grace"},
		"of a deletion": {"Ada", "", func(rt *users) { _, _ = rt.GetMany(context.Background(), []int{1}) },
			`user:1 is served from the cache as Ada, and a direct load returns the error "sql: no rows in result set"`},
		"of an insertion": {"", "Ada", func(rt *users) { _, _, _ = rt.GetInfo(context.Background(), 1) },
			`user:1 is served from the cache as the error "sql: no rows in result set", and a direct load returns Ada`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said := audited(t, func(_ testing.TB, _ *readthroughtest.Fake, db *table, rt *users) {
				db.set(1, c.before)
				c.get(rt)
				c.get(rt)
				db.set(1, c.after) // and nobody invalidates
				c.get(rt)
				c.get(rt)
			})
			require.Equal(t, []string{"readthroughtest: " + c.says + ": was Invalidate forgotten after a write?"}, said)
		})
	}
}

func TestAudit_PassesWhatIsRight(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(t testing.TB, fake *readthroughtest.Fake, db *table, rt *users){
		"invalidated": func(t testing.TB, _ *readthroughtest.Fake, db *table, rt *users) {
			db.set(1, "Grace")
			require.NoError(t, rt.Invalidate(t.Context(), 1))
			requireGet(t, rt, "Grace", readthrough.SourceLoaded)
			requireGet(t, rt, "Grace", readthrough.SourceHit)
		},
		"set": func(t testing.TB, _ *readthroughtest.Fake, db *table, rt *users) {
			db.set(1, "Grace")
			require.NoError(t, rt.Set(t.Context(), 1, "Grace"))
			requireGet(t, rt, "Grace", readthrough.SourceHit)
		},
		"not found": func(t testing.TB, _ *readthroughtest.Fake, _ *table, rt *users) {
			for range 2 {
				_, err := rt.Get(t.Context(), 2)
				require.ErrorIs(t, err, sql.ErrNoRows)
			}
		},
		"served stale on purpose": func(t testing.TB, fake *readthroughtest.Fake, db *table, rt *users) {
			db.fail(errDown) // so that no refresh ends the difference
			fake.FastForward(6 * time.Minute)
			requireGet(t, rt, "Ada", readthrough.SourceStale)
		},
		"looked into by the test": func(t testing.TB, _ *readthroughtest.Fake, db *table, rt *users) {
			db.set(1, "Grace")
			readthroughtest.RequireCached(t, rt, 1)
		},
		"loaded while Redis is down": func(t testing.TB, fake *readthroughtest.Fake, db *table, rt *users) {
			fake.Down()
			db.set(1, "Grace")
			requireGet(t, rt, "Grace", readthrough.SourceLoaded)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, audited(t, func(tb testing.TB, fake *readthroughtest.Fake, db *table, rt *users) {
				requireGet(tb, rt, "Ada", readthrough.SourceLoaded)
				requireGet(tb, rt, "Ada", readthrough.SourceHit)
				test(tb, fake, db, rt)
			}))
		})
	}
}

// TestAudit_WaitsForWriteUnderWay holds that a read between a write and its Invalidate, which are on
// another goroutine, is no failure.
func TestAudit_WaitsForWriteUnderWay(t *testing.T) {
	t.Parallel()
	said := audited(t, func(t testing.TB, _ *readthroughtest.Fake, db *table, rt *users) {
		requireGet(t, rt, "Ada", readthrough.SourceLoaded)
		db.set(1, "Grace")
		loads := db.loads.Load()
		invalidated := make(chan error)
		go func() { // ends once the audit has looked twice
			for until := time.Now().Add(5 * time.Second); db.loads.Load() < loads+2 && time.Now().Before(until); {
				time.Sleep(time.Millisecond)
			}
			invalidated <- rt.Invalidate(context.Background(), 1)
		}()
		requireGet(t, rt, "Ada", readthrough.SourceHit)
		require.NoError(t, <-invalidated)
	})
	require.Empty(t, said)
}

// TestAudit_KnowsWhatTheCodecChanges holds that a value that the codec brings back as another, but
// as the same each time, is no difference.
func TestAudit_KnowsWhatTheCodecChanges(t *testing.T) {
	t.Parallel()
	type event struct {
		At   time.Time
		Tags []string
		N    any
	}
	w := &watched{}
	t.Run("audited", func(t *testing.T) {
		w.TB = t
		fake := readthroughtest.New(w)
		found := event{At: time.Now(), Tags: []string{}, N: 7}
		find := func(context.Context, int) (event, error) { return found, nil }
		for i, codec := range []readthrough.Codec{readthrough.Msgpack, readthrough.JSON} {
			rt, err := readthrough.New(fake.Cache, []string{"msgpack", "json"}[i], find, readthrough.Int, readthrough.WithCodec(codec))
			require.NoError(t, err)
			readthroughtest.Audit(rt, find)
			found.N = 7
			for range 3 {
				_, err := rt.Get(t.Context(), 1)
				require.NoError(t, err)
			}
			require.EqualValues(t, 2, rt.Stats().Hits)
			require.Len(t, w.said(), i)
			found.N = 8
			_, err = rt.Get(t.Context(), 1)
			require.NoError(t, err)
			require.Len(t, w.said(), i+1)
		}
	})
}

func TestAudit_LeavesStatsAlone(t *testing.T) {
	t.Parallel()
	audited(t, func(t testing.TB, _ *readthroughtest.Fake, _ *table, rt *users) {
		requireGet(t, rt, "Ada", readthrough.SourceLoaded)
		requireGet(t, rt, "Ada", readthrough.SourceHit)
		require.Equal(t, readthrough.Stats{Hits: 1, Misses: 1, Loads: 1, Fills: 1}, rt.Stats())
	})
}

func TestAudit_RefusesCacheOfNoFake(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	cache, err := readthrough.NewCache(fake.Client)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	db := newTable(nil)
	rt := wrap(t, cache, db.find)
	require.Panics(t, func() { readthroughtest.Audit(rt, db.find) })
}
