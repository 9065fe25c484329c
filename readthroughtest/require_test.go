package readthroughtest_test

import (
	"database/sql"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

func TestRequireCached_FailsUnlessGetNeedsNoLoad(t *testing.T) {
	t.Parallel()
	fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
	users := wrap(t, fake.Cache, db.find, readthrough.WithNotFound(time.Minute, sql.ErrNoRows), readthrough.WithStale(time.Hour))
	cached := func(k int) []string {
		return failures(t, func(t testing.TB) { readthroughtest.RequireCached(t, users, k) })
	}
	notCached := func(k int) []string {
		return failures(t, func(t testing.TB) { readthroughtest.RequireNotCached(t, users, k) })
	}
	require.Equal(t, []string{"readthroughtest: user:1 is not cached"}, cached(1))
	require.Empty(t, notCached(1))

	_, _ = users.GetMany(t.Context(), []int{1, 2})
	require.Empty(t, cached(1))
	require.Equal(t, []string{"readthroughtest: user:1 is cached: Ada"}, notCached(1))
	require.Empty(t, cached(2), "a not-found is cached too")
	require.Equal(t, []string{"readthroughtest: user:2 is cached, as sql: no rows in result set"}, notCached(2))

	require.NoError(t, users.Expire(t.Context(), 1))
	require.Empty(t, cached(1), "a stale value needs no load")

	fake.Down()
	for _, said := range [][]string{cached(1), notCached(1)} {
		require.Len(t, said, 1)
		require.Contains(t, said[0], "whether user:1 is cached is unknown")
	}
}

func TestRequireOneLoad_CountsLoads(t *testing.T) {
	t.Parallel()
	fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada", 2: "Grace"})
	users := wrap(t, fake.Cache, db.find)
	get := func(ks ...int) func() {
		return func() {
			var callers sync.WaitGroup
			for range 20 {
				for _, k := range ks {
					callers.Go(func() { _, _ = users.Get(t.Context(), k) })
				}
			}
			callers.Wait()
		}
	}
	one := func(f func()) []string {
		return failures(t, func(t testing.TB) { readthroughtest.RequireOneLoad(t, users, f) })
	}
	require.Empty(t, one(get(1)))
	require.Equal(t, []string{"readthroughtest: 0 loads, not one"}, one(get(1)))
	require.NoError(t, users.Invalidate(t.Context(), 1))
	require.Equal(t, []string{"readthroughtest: 2 loads, not one"}, one(get(1, 2)))
	require.NoError(t, users.Invalidate(t.Context(), 1))
	readthroughtest.RequireOneLoad(t, fake.Cache, get(1, 2))
}
