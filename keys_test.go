package readthrough_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestRedisKey_HashesLongKeys(t *testing.T) {
	cache, _ := newCache(t)
	rows := readthrough.Must(readthrough.New(cache, "s", func(context.Context, string) (int, error) { return 1, nil }, readthrough.String))
	key, err := rows.RedisKey(strings.Repeat("k", 1025))
	require.NoError(t, err)
	require.Len(t, key, len("s:")+64)
	short, err := rows.RedisKey(strings.TrimPrefix(key, "s:"))
	require.NoError(t, err)
	require.NotEqual(t, key, short, "a key that looks like a hash is another")
	key, err = rows.RedisKey(strings.Repeat("k", 1024))
	require.NoError(t, err)
	require.Len(t, key, len("s:")+1024)
}

func TestRedisKey_EscapesBracesAndPercent(t *testing.T) {
	cache, _ := newCache(t)
	keys := readthrough.Must(readthrough.New(cache, "s", func(context.Context, string) (int, error) { return 0, nil }, readthrough.String))
	key, err := keys.RedisKey("a{b}%")
	require.NoError(t, err)
	require.Equal(t, "s:a%7Bb%7D%25", key)
}

func TestGet_RefusesEmptyKey(t *testing.T) {
	cache, _ := newCache(t)
	keys := readthrough.Must(readthrough.New(cache, "s", func(context.Context, string) (int, error) { return 0, nil }, readthrough.String))
	_, err := keys.Get(t.Context(), "")
	require.ErrorIs(t, err, readthrough.ErrEmptyKey)
}
