package entry_test

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
	"github.com/readthrough-go/readthrough/internal/wire/value"
)

type book struct {
	Title string
	Pages int `msgpack:"pages"`
}

// TestEntry_IsThatOfTheGoldenFile holds both directions to testdata/entry_v3.golden: its bytes decode
// to the parts named here, and the parts encode to its bytes. Those of version 1, and
// the stamped ones of version 4, which Redis writes, are decoded only.
func TestEntry_IsThatOfTheGoldenFile(t *testing.T) {
	t.Run("v1", func(t *testing.T) { checkGolden(t, "v1", entry.Entry{V1: true}) })
	t.Run("v3", func(t *testing.T) { checkGolden(t, "v3", entry.Entry{Version: 2, Identity: 0x01020304}) })
	t.Run("v4", func(t *testing.T) { checkGolden(t, "v4", entry.Entry{Version: 2, Identity: 0x01020304}) })
}

func checkGolden(t *testing.T, version string, of entry.Entry) {
	header := entry.Entry{
		Version: of.Version, Identity: of.Identity, V1: of.V1,
		LoadedAt:   time.UnixMilli(1_700_000_000_000),
		FreshUntil: time.UnixMilli(1_700_000_300_000),
		LoadTime:   42 * time.Millisecond,
	}
	with := func(change func(*entry.Entry)) entry.Entry {
		e := header
		change(&e)
		return e
	}
	golden := readGolden(t, version)
	for name, check := range map[string]func(t *testing.T, wire []byte){
		"a plain value": is(header, value.Msgpack{}, "Emma"),
		"a struct":      is(header, value.Msgpack{}, book{"Emma", 470}),
		"an integer of 64 bits": is(with(func(e *entry.Entry) { e.LoadTime = 0 }),
			value.Msgpack{}, int64(470)),
		"never stale": is(with(func(e *entry.Entry) { e.FreshUntil = time.Time{} }),
			value.Msgpack{}, "Emma"),
		"a load beyond 65 s": is(with(func(e *entry.Entry) { e.LoadTime = 65_535 * time.Millisecond }),
			value.Msgpack{}, "Emma"),
		"negative, reason 0": isNegative(with(func(e *entry.Entry) { e.Negative = true })),
		"negative, reason 3": isNegative(with(func(e *entry.Entry) { e.Negative, e.Reason = true, 3 })),
		"nil":                is(header, value.Msgpack{}, (*book)(nil)),
		"the bin of JSON":    is(header, value.JSON{}, book{"Emma", 470}),
		"the bin of Raw":     is(header, value.Raw{}, []byte{0x00, 0xff}),
		"the nil of Raw":     is(header, value.Raw{}, []byte(nil)),
	} {
		wire, ok := golden[name]
		require.True(t, ok, "the golden file lacks %q", name)
		delete(golden, name)
		t.Run(name, func(t *testing.T) { check(t, wire) })
	}
	require.Empty(t, golden, "in the golden file and not checked")
}

// is returns a check that wire is an entry of the given header and of v, encoded by c.
func is[V any](header entry.Entry, c value.Codec, v V) func(*testing.T, []byte) {
	return func(t *testing.T, wire []byte) {
		e, err := entry.Parse(wire)
		require.NoError(t, err)
		var got V
		require.NoError(t, value.Decode(c, e.Value, &got))
		require.Equal(t, v, got)
		e.Value = nil
		require.Equal(t, header, e)

		if string(wire[:len(entry.Magic)]) != entry.Magic {
			return
		}
		again, err := entry.Append(nil, &header, func(dst []byte) ([]byte, error) { return value.Append(dst, c, v) })
		require.NoError(t, err)
		require.Equal(t, wire, again, "%x", again)
	}
}

// isNegative returns a check that wire is the negative entry of the given header.
func isNegative(header entry.Entry) func(*testing.T, []byte) {
	return func(t *testing.T, wire []byte) {
		e, err := entry.Parse(wire)
		require.NoError(t, err)
		require.Equal(t, []byte{0xc0}, e.Value)
		e.Value = nil
		require.Equal(t, header, e)

		if string(wire[:len(entry.Magic)]) != entry.Magic {
			return
		}
		again, err := entry.Append(nil, &header, nil)
		require.NoError(t, err)
		require.Equal(t, wire, again, "%x", again)
	}
}

// readGolden returns the entries of the golden file by name.
func readGolden(t *testing.T, version string) map[string][]byte {
	t.Helper()
	file, err := os.ReadFile("testdata/entry_" + version + ".golden")
	require.NoError(t, err)
	entries := make(map[string][]byte)
	for line := range strings.Lines(string(file)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, digits, ok := strings.Cut(line, ":")
		require.True(t, ok, line)
		require.NotContains(t, entries, name)
		entries[name], err = hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		require.NoError(t, err, name)
	}
	return entries
}
