package value

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

func TestAppend_WritesMsgpackThatOthersRead(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Codec
		v    any
		want string
	}{
		{"Msgpack: the value itself", Msgpack{}, address{"s", "c"}, "\x82\xa6Street\xa1s\xa4city\xa1c"},
		{"Msgpack: nil", Msgpack{}, (*int)(nil), "\xc0"},
		{"JSON: a bin", JSON{}, address{"s", "c"}, "\xc4\x19" + `{"Street":"s","city":"c"}`},
		{"JSON: null is not nil", JSON{}, (*int)(nil), "\xc4\x04null"},
		{"Raw: a bin", Raw{}, "abc", "\xc4\x03abc"},
		{"Raw: empty", Raw{}, []byte{}, "\xc4\x00"},
		{"Raw: nil", Raw{}, []byte(nil), "\xc0"},
		{"Raw: bin 16", Raw{}, strings.Repeat("x", 256), "\xc5\x01\x00" + strings.Repeat("x", 256)},
		{"Raw: bin 32", Raw{}, strings.Repeat("x", 65536), "\xc6\x00\x01\x00\x00" + strings.Repeat("x", 65536)},
		{"a codec of the user's that wraps Msgpack: a bin", wrappedCodec{Msgpack{}}, "abc", "\xc4\x04\xa3abc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire, err := Append(nil, tt.c, tt.v)
			require.NoError(t, err)
			require.Equal(t, tt.want, string(wire))
		})
	}
}

func TestDecode_WantsExactlyOneBin(t *testing.T) {
	for _, c := range []Codec{Raw{}, JSON{}, wrappedCodec{Msgpack{}}} {
		for _, wire := range []string{
			"", "\xc4", "\xc4\x02x", "\xc4\x01xx", "\xc5\x00", "\xc5\x00\x02x", "\xc6\xff\xff\xff\xffx", "\xc0\xc0",
			"\xa1x", "\x01", "\x91\xc4\x00", "\x80", "\xc7\x01\x05x", "\xc1",
		} {
			var s string
			require.Error(t, Decode(c, []byte(wire), &s), "%T % x", c, wire)
			require.Empty(t, s)
		}
	}
}

// aliasing has a place for each kind of memory that a decoder could hand out without copying it.
type aliasing struct {
	Bytes   []byte
	String  string
	Strings []string
	Keys    map[string]string
	Any     any
	AnyKeys map[string]any
	Array   [4]byte
	Msgpack msgpack.RawMessage `json:",omitempty"`
	JSON    json.RawMessage
	Text    text
	Deep    []*aliasing
}

type text struct{ s string }

func (c text) MarshalText() ([]byte, error) { return []byte(c.s), nil }

func (c *text) UnmarshalText(b []byte) error {
	c.s = string(b)
	return nil
}

func TestDecode_SharesNoMemoryWithTheWire(t *testing.T) {
	inner := aliasing{
		Bytes: []byte("bytes"), String: "string", Strings: []string{"one", "two"}, Keys: map[string]string{"key": "value"},
		Any: "any", AnyKeys: map[string]any{"key": []any{"value"}}, Array: [4]byte{1, 2, 3, 4},
		Msgpack: msgpack.RawMessage("\x92\xa1a\xa1b"), JSON: json.RawMessage(`{"a":"b"}`), Text: text{"text"},
	}
	outer := inner
	outer.Deep = []*aliasing{&inner}

	requireUnshared(t, Msgpack{}, outer)
	requireUnshared(t, Msgpack{}, "string")
	requireUnshared(t, Msgpack{}, []byte("bytes"))
	requireUnshared(t, Msgpack{}, msgpack.RawMessage("\x92\xa1a\xa1b"))
	requireUnshared(t, Msgpack{}, any([]byte("bytes")))
	requireUnshared(t, JSON{}, outer)
	requireUnshared(t, JSON{}, json.RawMessage(`{"a":"b"}`))
	requireUnshared(t, Raw{}, []byte("bytes"))
	requireUnshared(t, Raw{}, "string")
}

// requireUnshared scribbles over the wire form of v once it is decoded, and over what else the
// codec has in its pools.
func requireUnshared[V any](t *testing.T, c Codec, v V) {
	t.Helper()
	wire, err := Append(nil, c, v)
	require.NoError(t, err)
	var want, got V
	require.NoError(t, Decode(c, bytes.Clone(wire), &want))
	require.NoError(t, Decode(c, wire, &got))

	for i := range wire {
		wire[i] = 0xaa
	}
	var other string
	junk, err := Append(nil, c, strings.Repeat("\u00aa", 200))
	require.NoError(t, err)
	require.NoError(t, Decode(c, junk, &other))

	require.Equal(t, want, got)
	require.NotZero(t, got)
}

func TestDecode_GivesACodecNoRoomToAppend(t *testing.T) {
	wire := []byte("\xc4\x01xrest of the reply")
	c := codecFuncs{unmarshal: func(data []byte, _ any) error {
		_ = append(data, "scribble"...)
		return nil
	}}

	require.NoError(t, Decode(c, wire[:3], new(string)))
	require.Equal(t, "rest of the reply", string(wire[3:]))
}

func TestDecode_GivesACodecBackItsNil(t *testing.T) {
	given := []byte("something")
	c := codecFuncs{
		marshal:   func(any) ([]byte, error) { return nil, nil },
		unmarshal: func(data []byte, _ any) error { given = data; return nil },
	}
	wire, err := Append(nil, c, 1)
	require.NoError(t, err)
	require.Equal(t, "\xc0", string(wire))

	require.NoError(t, Decode(c, wire, new(int)))
	require.Nil(t, given)
}
