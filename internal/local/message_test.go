package local

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParse_TakesMessagesApart(t *testing.T) {
	keys := []string{"p:row:1", "with space", "\n", strings.Repeat("long", 100), "\x00\xff"}
	m, awaited, packed, err := parse("F 1 1764000000000000 w " + packKeys(keys))
	require.NoError(t, err)
	require.Equal(t, message{kind: fenced, prev: 1, seq: 1764000000000000}, m)
	require.True(t, awaited)
	var unpacked []string
	require.True(t, unpackKeys(packed, func(key string) { unpacked = append(unpacked, key) }))
	require.Equal(t, keys, unpacked)
	_, awaited, _, err = parse("F 1 2 - ")
	require.NoError(t, err)
	require.False(t, awaited)

	m, _, _, err = parse("E 5 7")
	require.NoError(t, err)
	require.Equal(t, message{kind: echoed, sent: 5 * time.Nanosecond, seq: 7}, m)
	m, _, _, err = parse("J 7")
	require.NoError(t, err)
	require.Equal(t, message{kind: joined, seq: 7}, m)
	n, err := parseNews("A 12 gen")
	require.NoError(t, err)
	require.Equal(t, news{12, "gen"}, n)
}

func TestParse_RefusesWhatNobodySends(t *testing.T) {
	for _, payload := range []string{"", "X 1", "J", "J x", "E 1", "F 1", "J -1", "hello"} {
		_, _, _, err := parse(payload)
		require.Error(t, err, payload)
	}
	_, err := parseNews("A x gen")
	require.Error(t, err)
	for _, packed := range []string{"\x05abc", "\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a"} {
		require.False(t, unpackKeys(packed, func(string) {}), "%q", packed)
	}
}
