package readthrough_test

import (
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
