package faults

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// TestNode_ThatFailsIsNoTroubleOfOthers has one master of a cluster die, or hang. What the others
// have is served, whoever asks for the keys of that master meanwhile, and however.
func TestNode_ThatFailsIsNoTroubleOfOthers(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ breaks, mend func(*redistest.Server) }{
		"dead": {(*redistest.Server).Kill, (*redistest.Server).Restart},
		"hung": {(*redistest.Server).Pause, (*redistest.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const budget = 500 * time.Millisecond
			cluster := redistest.StartCluster(t, 3, 0)
			for _, s := range cluster.Masters() {
				require.NoError(t, s.Client().ConfigSet(t.Context(), "cluster-require-full-coverage", "no").Err())
			}
			cache := fleet(t, 1, func() redis.UniversalClient { return cluster.Client() },
				readthrough.WithRedisTimeout(budget))[0]
			rows := (&squares{}).wrap(t, cache)
			ids := upTo(6000)
			_, err := rows.GetMany(t.Context(), ids)
			require.NoError(t, err)
			lost, kept := keysOf(t, cluster.Masters()[0], ids)
			fault.breaks(cluster.Masters()[0])

			for _, id := range lost[:10] { // five open a breaker
				v, err := rows.Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, -1, v, "of the loader")
			}
			before := rows.Stats()
			for _, id := range kept[:100] {
				_, err := rows.Get(t.Context(), id)
				require.NoError(t, err)
			}
			require.EqualValues(t, 100, rows.Stats().Hits-before.Hits)

			time.Sleep(openFor) // GetMany meets a breaker that lets a probe through
			before, began := rows.Stats(), time.Now()
			_, err = rows.GetMany(t.Context(), ids)
			require.NoError(t, err)
			require.EqualValues(t, len(kept), rows.Stats().Hits-before.Hits)
			require.Less(t, time.Since(began), 4*budget)

			began = time.Now()
			err = rows.Invalidate(t.Context(), ids...)
			require.Less(t, time.Since(began), 3*budget, "the node is waited for once")
			var left *readthrough.WriteError
			require.True(t, errors.As(err, &left))
			require.Len(t, left.Keys, len(lost))
			require.ErrorIs(t, err, readthrough.ErrUnavailable)
			fault.mend(cluster.Masters()[0])
			require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, soon, 5*time.Millisecond)
		})
	}
}

// keysOf returns which of ids a server has, and which it has not.
func keysOf(t *testing.T, s *redistest.Server, ids []int) (has, hasNot []int) {
	t.Helper()
	keys, err := s.Client().Keys(t.Context(), "row:*").Result()
	require.NoError(t, err)
	there := make(map[int]bool, len(keys))
	for _, key := range keys {
		id, err := strconv.Atoi(strings.TrimPrefix(key, "row:"))
		require.NoError(t, err)
		there[id] = true
	}
	for _, id := range ids {
		if there[id] {
			has = append(has, id)
		} else {
			hasNot = append(hasNot, id)
		}
	}
	return has, hasNot
}
