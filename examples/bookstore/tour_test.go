package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// assertStory checks every fact that a run of the tour told.
func assertStory(t testing.TB, got outcome) {
	t.Helper()
	require.Zero(t, got.code, got.stderr)
	assert.Empty(t, got.stderr)
	const took = ` +\d+\.\d\d ms  `
	for what, want := range map[string]string{
		"the books":        `^\d{3} public-domain books in SQLite`,
		"the cold read":    `1\. .*\n +Moby-Dick \(Herman Melville, 1851\)` + took + `1 query\n`,
		"the warm read":    `2\. .*\n +Moby-Dick \(Herman Melville, 1851\)` + took + `0 queries\n`,
		"the update":       `3\. .*\n +Moby-Dick; or, The Whale \(Herman Melville, 1851\)` + took + `1 query\n`,
		"the not-found":    `4\. .*\n.*no such book` + took + `1 query\n.*no such book` + took + `0 queries\n`,
		"the crowd":        `5\. 1,000 readers.*\n +Dracula \(Bram Stoker, 1897\)` + took + `1 query\n`,
		"the list":         `6\. .*\n +100 books, from "A Christmas Carol"` + took + `2 queries\n +100 books, from "A Christmas Carol"` + took + `0 queries\n`,
		"the key":          `7\. .*\n +GET bookstore-[A-Z2-7]{10}:book:49 -> \d+ bytes\n`,
		"the header":       `ext 0x52: format 3, flags 0, loaded \d\d:\d\d:\d\d in \d+ ms, fresh until \d\d:\d\d:\d\d\n`,
		"the stored value": `value: map\[author:Herman Melville id:49 title:Moby-Dick; or, The Whale year:1851\]\n`,
		"the statistics":   `8\. .*\n +hits \d+, negative hits 1, misses \d+: loads 105, collapsed \d+, shared \d+\n +fills 105, .* redis errors 0\n$`,
	} {
		assert.Regexp(t, regexp.MustCompile(want), got.stdout, what)
	}
	assert.InDelta(t, 20, strings.Count(got.stdout, "\n"), 5, "about twenty lines")
	if t.Failed() {
		t.Log("\n" + got.stdout)
	}
}

func TestTourTellsItsStory(t *testing.T) {
	got := runProgram(t, t.Context(), "")

	assertStory(t, got)
	assert.Contains(t, got.stdout, "embedded Redis")
}

func TestTourIsRightOnRedisThatHoldsEarlierRun(t *testing.T) {
	mini := miniredis.RunT(t)
	url := "redis://" + mini.Addr()
	assertStory(t, runProgram(t, t.Context(), url))
	require.NotEmpty(t, mini.Keys(), "the first run left nothing to stumble over")

	got := runProgram(t, t.Context(), url)

	assertStory(t, got)
	assert.Contains(t, got.stdout, "the Redis of REDIS_URL")
}

// The same file means the same keys: the second run meets its own entries.
func TestTourIsRightOnFileAndRedisOfEarlierRun(t *testing.T) {
	mini := miniredis.RunT(t)
	url := "redis://" + mini.Addr()
	path := filepath.Join(t.TempDir(), "kept ? #.sqlite")
	assertStory(t, runProgram(t, t.Context(), url, "-db", path))
	keys := mini.Keys()
	require.NotEmpty(t, keys)

	assertStory(t, runProgram(t, t.Context(), url, "-db", path))

	assert.Equal(t, keys, mini.Keys())
	assert.FileExists(t, path)
}

func TestTourSurvivesForeignBytesUnderItsKeys(t *testing.T) {
	mini := miniredis.RunT(t)
	url := "redis://" + mini.Addr()
	path := filepath.Join(t.TempDir(), "books.sqlite")
	assertStory(t, runProgram(t, t.Context(), url, "-db", path))
	for _, key := range mini.Keys() {
		require.NoError(t, mini.Set(key, "\x81\xa1A\xdd\x7f\xff\xff\xff"))
	}

	assertStory(t, runProgram(t, t.Context(), url, "-db", path))
}
