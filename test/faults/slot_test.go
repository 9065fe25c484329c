package faults

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

const (
	movingKey   = "row:1"
	movingLease = "{row:1}:lease"
)

// moving is a cluster of two masters, the first of which moves the slot of row 1 to the other.
type moving struct {
	*testing.T
	cluster  *redistest.Cluster
	slot     int64
	from, to *redis.Client
}

func startMoving(t *testing.T) *moving {
	cluster := redistest.StartCluster(t, 2, 0)
	m := &moving{T: t, cluster: cluster, from: cluster.Masters()[0].Client(), to: cluster.Masters()[1].Client()}
	var err error
	m.slot, err = m.from.ClusterKeySlot(t.Context(), movingKey).Result()
	require.NoError(t, err)
	if m.slot >= 16384/2 {
		m.from, m.to = m.to, m.from
	}
	return m
}

// setSlot changes what a node thinks of the slot; of is a node, or nil where none is named.
func (m *moving) setSlot(at *redis.Client, state string, of *redis.Client) {
	m.Helper()
	args := []any{"cluster", "setslot", m.slot, state}
	if of != nil {
		id, err := of.Do(m.Context(), "cluster", "myid").Text()
		require.NoError(m, err)
		args = append(args, id)
	}
	require.NoError(m, at.Do(m.Context(), args...).Err())
}

// place puts keys at the two nodes, and nothing else, and has the slot being moved.
func (m *moving) place(from, to map[string]string) {
	m.Helper()
	m.setSlot(m.from, "stable", nil)
	m.setSlot(m.to, "importing", m.from)
	for at, keys := range map[*redis.Client]map[string]string{m.from: from, m.to: to} {
		for _, key := range []string{movingKey, movingLease} {
			_, err := at.Pipelined(m.Context(), func(p redis.Pipeliner) error {
				p.Do(m.Context(), "asking")
				p.Del(m.Context(), key)
				if value, there := keys[key]; there {
					p.Do(m.Context(), "asking")
					p.Set(m.Context(), key, value, time.Hour)
				}
				return nil
			})
			require.NoError(m, err)
		}
	}
	m.setSlot(m.from, "migrating", m.to)
}

// get returns what a node holds at key of the slot, or "".
func (m *moving) get(at *redis.Client, key string) string {
	m.Helper()
	var get *redis.StringCmd
	_, err := at.Pipelined(m.Context(), func(p redis.Pipeliner) error {
		p.Do(m.Context(), "asking")
		get = p.Get(m.Context(), key)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		require.True(m, redis.HasErrorPrefix(err, "ASK"), "%v", err)
	}
	return get.Val()
}

func TestWrites_ReachKeysOfSlotThatIsBeingMoved(t *testing.T) {
	t.Parallel()
	m := startMoving(t)
	cache := fleet(t, 1, func() redis.UniversalClient { return m.cluster.Client() })[0]
	rows := wrapper(t, cache, constant("loaded"), readthrough.WithStale(time.Hour))
	require.NoError(t, rows.Set(t.Context(), 1, "cached"))
	cached := m.get(m.from, movingKey)
	require.NotEmpty(t, cached)

	for name, write := range map[string]struct {
		do   func() error
		left string // what a Peek finds afterwards, if it finds anything
		may  bool   // it may also find nothing: lease and entry were not at one node
	}{
		"Invalidate": {do: func() error { return rows.Invalidate(t.Context(), 1) }},
		"Delete":     {do: func() error { return cache.Delete(t.Context(), movingKey) }},
		"Set":        {do: func() error { return rows.Set(t.Context(), 1, "set") }, left: "set", may: true},
		"Expire":     {do: func() error { return rows.Expire(t.Context(), 1) }, left: "cached"},
	} {
		// What is at the node that the slot leaves, and what at the one where it goes.
		for _, entryAt := range []int{-1, 0, 1} {
			for _, leaseAt := range []int{-1, 0, 1} {
				here := fmt.Sprintf("%s with the entry at %d and the lease at %d", name, entryAt, leaseAt)
				at := map[int]map[string]string{-1: {}, 0: {}, 1: {}}
				at[entryAt][movingKey] = cached
				at[leaseAt][movingLease] = "somebody's"
				m.place(at[0], at[1])

				require.NoError(t, write.do(), here)

				require.Empty(t, m.get(m.from, movingLease)+m.get(m.to, movingLease), here)
				staleHits := rows.Stats().StaleHits
				v, err := rows.Peek(t.Context(), 1)
				if write.left == "" || name == "Expire" && entryAt == -1 {
					require.ErrorIs(t, err, readthrough.ErrMiss, here)
					continue
				}
				if write.may && errors.Is(err, readthrough.ErrMiss) {
					continue
				}
				require.NoError(t, err, here)
				require.Equal(t, write.left, v, here)
				require.Equal(t, name == "Expire", rows.Stats().StaleHits > staleHits, here)
			}
		}
	}
	require.Zero(t, cache.Stats().PendingInvalidations)
	require.Zero(t, cache.Stats().RedisErrors)
}

// A fill looks at the lease and changes the entry at once, which a cluster refuses then.
func TestGet_IsServedByLoaderWhileItsSlotIsBeingMoved(t *testing.T) {
	t.Parallel()
	m := startMoving(t)
	breaker := new(eventSet)
	cache := fleet(t, 1, func() redis.UniversalClient { return m.cluster.Client() },
		readthrough.WithObserver(breaker), readthrough.WithBreaker(1, time.Hour))[0]
	rows := wrapper(t, cache, constant("loaded"))
	m.place(nil, nil)
	for range 3 {
		v, err := rows.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "loaded", v)
	}
	require.Zero(t, rows.Stats().Fills)
	require.Eventually(t, func() bool { return m.get(m.to, movingLease) == "" }, soon, time.Millisecond, "given back")
	require.False(t, breaker.saw(readthrough.EventBreakerOpen), "Redis has answered")

	for _, at := range []*redis.Client{m.to, m.from} {
		m.setSlot(at, "node", m.to)
	}
	_, err := rows.Get(t.Context(), 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, rows.Stats().Fills, "the slot has arrived")
}

// Of a move that was given up at one node only, nothing can be asked there that is not there.
func TestInvalidate_IsRetriedWhereMoveOfSlotWasLeftUnfinished(t *testing.T) {
	t.Parallel()
	m := startMoving(t)
	cache := fleet(t, 1, func() redis.UniversalClient { return m.cluster.Client() }, readthrough.WithRedisTimeout(time.Second))[0]
	rows := wrapper(t, cache, constant("loaded"))
	require.NoError(t, rows.Set(t.Context(), 1, "cached"))
	m.setSlot(m.from, "migrating", m.to)

	err := rows.Invalidate(t.Context(), 1)

	var failed *readthrough.WriteError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, []string{movingKey}, failed.Keys)
	require.EqualValues(t, 1, cache.Stats().PendingInvalidations)
	m.setSlot(m.from, "stable", nil)
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, soon, time.Millisecond)
	_, err = rows.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrMiss)
}
