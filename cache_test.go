package readthrough_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestCache_GetsSetsAndDeletesRawKeys(t *testing.T) {
	cache, server := newCache(t)
	ctx := t.Context()
	for _, key := range []string{"plain", "with{braces}"} {
		require.NoError(t, readthrough.Set(ctx, cache, key, 7, readthrough.NoExpiry))
		v, err := readthrough.Get[int](ctx, cache, key)
		require.NoError(t, err)
		require.Equal(t, 7, v)
		_, err = readthrough.Get[string](ctx, cache, key)
		require.ErrorIs(t, err, readthrough.ErrMiss, "not a string")
		require.NoError(t, readthrough.Set(ctx, cache, key, 8, time.Minute))
		require.Equal(t, time.Minute, server.TTL(key))
		require.NoError(t, cache.Delete(ctx, key))
		_, err = readthrough.Get[int](ctx, cache, key)
		require.ErrorIs(t, err, readthrough.ErrMiss)
	}
	require.ErrorIs(t, readthrough.Set(ctx, cache, "", 1, time.Minute), readthrough.ErrEmptyKey)
	require.ErrorIs(t, cache.Delete(ctx, ""), readthrough.ErrEmptyKey)
	require.ErrorContains(t, readthrough.Set(ctx, cache, "k", 1, 0), "ttl")
	require.ErrorContains(t, readthrough.Set(ctx, cache, "k", func() {}, time.Minute), "k")
	server.Close()
	require.Error(t, readthrough.Set(ctx, cache, "k", 1, time.Minute))
	_, err := readthrough.Get[int](ctx, cache, "k")
	require.Error(t, err)
	require.NotErrorIs(t, err, readthrough.ErrMiss)
	require.NoError(t, server.Start())
}

// staleRows fills rows 1 to n of rt and lets them become stale.
func staleRows(t *testing.T, rt *rows, n int) (ks []int) {
	t.Helper()
	for k := 1; k <= n; k++ {
		require.NoError(t, ask(t.Context(), rt, k).err)
		ks = append(ks, k)
	}
	pass(ttl)
	return ks
}

// closing returns a Cache whose refresh is under way for a minute.
func closing(t *testing.T, b *bubble, deaf bool) (*readthrough.Cache, *database) {
	t.Helper()
	db := &database{version: 1, deaf: deaf}
	cache := b.cache(t)
	rt := wrapper(t, cache, db.load, readthrough.WithLoadTimeout(time.Hour))
	staleRows(t, rt, 1)
	db.change(func(d *database) { d.takes = time.Minute })
	requireValue(t, rt, 1, readthrough.SourceStale)
	require.Len(t, db.loads(), 2)
	return cache, db
}

func TestClose_CancelsRefreshesAndWaitsForThem(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, db := closing(t, b, false)
		began := time.Now()
		require.NoError(t, cache.Close())
		require.Zero(t, time.Since(began))
		require.Zero(t, db.running)
		require.False(t, b.redis.Exists("{row:1}:lease"), "given back")
		require.Zero(t, cache.Stats().LoadErrors, "no fault of the loader's")
	})
}

func TestClose_GivesUpOnLoaderThatIgnoresContext(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, db := closing(t, b, true)
		began := time.Now()
		require.ErrorIs(t, cache.Close(), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		pass(time.Minute)
		require.Zero(t, db.running)
	})
}

func TestShutdown_WaitsAsLongAsItsCaller(t *testing.T) {
	for name, limit := range map[string]time.Duration{"less than Close": 2 * time.Second, "longer than Close": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				cache, _ := closing(t, b, true)
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				began := time.Now()
				err := cache.Shutdown(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "still under way")
				require.Equal(t, limit, time.Since(began))
				pass(time.Minute)
			})
		})
	}
	t.Run("long enough", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			cache, db := closing(t, b, true)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			began := time.Now()
			require.NoError(t, cache.Shutdown(ctx))
			require.Equal(t, time.Minute, time.Since(began))
			require.Zero(t, db.running)
		})
	})
}

func TestClose_RefusesLaterCalls(t *testing.T) {
	cache, _ := newCache(t)
	rows := wrapper(t, cache, constant("v"))
	require.NoError(t, cache.Close())
	_, err := rows.Get(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	_, err = rows.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	_, err = rows.Refresh(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrClosed)
	require.ErrorIs(t, rows.Set(t.Context(), 1, "v"), readthrough.ErrClosed)
	require.ErrorIs(t, rows.Invalidate(t.Context(), 1), readthrough.ErrClosed)
	_, err = readthrough.Get[string](t.Context(), cache, "k")
	require.ErrorIs(t, err, readthrough.ErrClosed)
}
