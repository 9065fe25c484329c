package readthrough

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

type codecAddress struct {
	Street string
	City   string `msgpack:"city" json:"city"`
}

type codecUser struct {
	codecAddress // unexported, and yet its fields are promoted
	ID           int64
	Name         string
	Score        float64
	Active       bool
	Tags         []string
	Avatar       []byte
	Limits       map[string]int
	Any          any
	Created      time.Time
	Deleted      *time.Time
	Boss         *codecUser
	Home         codecAddress
}

func someCodecUser() codecUser {
	deleted := time.Unix(1_700_000_000, 0x20000000) // its msgpack begins like a map
	return codecUser{
		codecAddress: codecAddress{"12 St James's Square", "London"},
		ID:           1 << 40, Name: "Ada", Score: -0.5, Active: true, Tags: []string{"a", ""}, Avatar: []byte{0, 1, 2},
		Limits: map[string]int{"x": -1}, Any: "any", Created: time.Unix(1_800_000_000, 1), Deleted: &deleted,
		Boss: &codecUser{Name: "Charles", Boss: &codecUser{Tags: []string{}}}, Home: codecAddress{City: "Ockham"},
	}
}

// requireRoundTrip stores v and reads it back, with bytes before it that must stay as they are.
func requireRoundTrip[V any](t *testing.T, c Codec, v V) {
	t.Helper()
	wire, err := appendValue([]byte("before"), c, v)
	require.NoError(t, err)
	require.Equal(t, "before", string(wire[:6]))

	var got V
	require.NoError(t, decodeValue(c, wire[6:], &got))
	require.Equal(t, inUTC(v), inUTC(got))

	b, err := c.Marshal(v)
	require.NoError(t, err)
	var same V
	require.NoError(t, c.Unmarshal(b, &same))
	require.Equal(t, inUTC(v), inUTC(same))
}

// inUTC drops the location of times, which msgpack does not store.
func inUTC(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UTC()
	case codecUser:
		v.Created = v.Created.UTC()
		if v.Deleted != nil {
			deleted := v.Deleted.UTC()
			v.Deleted = &deleted
		}
		if v.Boss != nil {
			boss := inUTC(*v.Boss).(codecUser)
			v.Boss = &boss
		}
		return v
	}
	return v
}

func TestCodecKeepsZeroValues(t *testing.T) {
	for name, c := range map[string]Codec{"Msgpack": Msgpack, "JSON": JSON} {
		t.Run(name, func(t *testing.T) {
			requireRoundTrip(t, c, 0)
			requireRoundTrip(t, c, uint8(0))
			requireRoundTrip(t, c, 0.0)
			requireRoundTrip(t, c, "")
			requireRoundTrip(t, c, false)
			requireRoundTrip(t, c, struct{}{})
			requireRoundTrip(t, c, [2]int{})
			requireRoundTrip(t, c, codecUser{})
			requireRoundTrip(t, c, time.Time{})
			requireRoundTrip(t, c, time.Duration(0))
			requireRoundTrip(t, c, (*codecUser)(nil))
			requireRoundTrip(t, c, &codecUser{})
			requireRoundTrip(t, c, any(nil))
			requireRoundTrip(t, c, []byte(nil))
			requireRoundTrip(t, c, []byte{})
			requireRoundTrip(t, c, []string(nil))
			requireRoundTrip(t, c, []string{})
			requireRoundTrip(t, c, []int(nil))
			requireRoundTrip(t, c, []int{})
			requireRoundTrip(t, c, []*int{nil})
			requireRoundTrip(t, c, map[string]string(nil))
			requireRoundTrip(t, c, map[string]string{})
			requireRoundTrip(t, c, map[string]any(nil))
			requireRoundTrip(t, c, map[string]any{})
			requireRoundTrip(t, c, map[int]codecUser(nil))
			requireRoundTrip(t, c, map[int]codecUser{})
			requireRoundTrip(t, c, struct {
				S, E []int
				B, F []byte
			}{E: []int{}, F: []byte{}})
		})
	}
}

func TestCodecKeepsValues(t *testing.T) {
	for name, c := range map[string]Codec{"Msgpack": Msgpack, "JSON": JSON} {
		t.Run(name, func(t *testing.T) {
			requireRoundTrip(t, c, someCodecUser())
			requireRoundTrip(t, c, []codecAddress{{City: "a"}, {City: "b"}})
			requireRoundTrip(t, c, map[int]codecAddress{-1: {City: "a"}, math.MaxInt: {City: "b"}})
			requireRoundTrip(t, c, any(map[string]any{"list": []any{"text", true, nil, 0.5}}))
			requireRoundTrip(t, c, time.Date(2400, 1, 2, 3, 4, 5, 999_999_999, time.FixedZone("", 3600)).UTC())
			requireRoundTrip(t, c, uint64(math.MaxUint64))
			requireRoundTrip(t, c, int64(math.MinInt64))
			requireRoundTrip(t, c, strings.Repeat("ab", 1<<20))
			requireRoundTrip(t, c, bytes.Repeat([]byte{7}, 1<<20))
		})
	}
}

func TestRawKeepsBytesAndStrings(t *testing.T) {
	requireRoundTrip(t, Raw, []byte(nil))
	requireRoundTrip(t, Raw, "")
	for _, n := range []int{0, 1, 255, 256, 65535, 65536, 1 << 20} { // across each size of bin
		requireRoundTrip(t, Raw, bytes.Repeat([]byte{0xc1}, n))
		requireRoundTrip(t, Raw, strings.Repeat("x", n))
	}
}

func TestRawRefusesOtherTypes(t *testing.T) {
	_, err := appendValue(nil, Raw, 7)
	require.EqualError(t, err, "readthrough: encode: raw: cannot encode int")

	require.EqualError(t, decodeValue(Raw, []byte("\xc4\x01x"), new(int)), "readthrough: decode: raw: cannot decode into *int")
}

func TestMsgpackKeepsTheTypeOfSizedIntegersInAny(t *testing.T) {
	for _, v := range []any{int8(5), int16(5), int32(5), int64(5), uint8(5), uint16(5), uint32(5), uint64(5), float32(5)} {
		requireRoundTrip(t, Msgpack, any(v))
		requireRoundTrip(t, Msgpack, []any{v})
		requireRoundTrip(t, Msgpack, map[string]any{"v": v})
	}
}

func TestAppendValueWritesMsgpackThatOthersRead(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Codec
		v    any
		want string
	}{
		{"Msgpack: the value itself", Msgpack, codecAddress{"s", "c"}, "\x82\xa6Street\xa1s\xa4city\xa1c"},
		{"Msgpack: nil", Msgpack, (*int)(nil), "\xc0"},
		{"JSON: a bin", JSON, codecAddress{"s", "c"}, "\xc4\x19" + `{"Street":"s","city":"c"}`},
		{"JSON: null is not nil", JSON, (*int)(nil), "\xc4\x04null"},
		{"Raw: a bin", Raw, "abc", "\xc4\x03abc"},
		{"Raw: empty", Raw, []byte{}, "\xc4\x00"},
		{"Raw: nil", Raw, []byte(nil), "\xc0"},
		{"Raw: bin 16", Raw, strings.Repeat("x", 256), "\xc5\x01\x00" + strings.Repeat("x", 256)},
		{"Raw: bin 32", Raw, strings.Repeat("x", 65536), "\xc6\x00\x01\x00\x00" + strings.Repeat("x", 65536)},
		{"a codec of the user's that wraps Msgpack: a bin", wrappedCodec{Msgpack}, "abc", "\xc4\x04\xa3abc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire, err := appendValue(nil, tt.c, tt.v)
			require.NoError(t, err)
			require.Equal(t, tt.want, string(wire))
		})
	}
}

type wrappedCodec struct{ Codec }

func TestDecodeValueWantsExactlyOneBin(t *testing.T) {
	for _, c := range []Codec{Raw, JSON, wrappedCodec{Msgpack}} {
		for _, wire := range []string{
			"", "\xc4", "\xc4\x02x", "\xc4\x01xx", "\xc5\x00", "\xc5\x00\x02x", "\xc6\xff\xff\xff\xffx", "\xc0\xc0",
			"\xa1x", "\x01", "\x91\xc4\x00", "\x80", "\xc7\x01\x05x", "\xc1",
		} {
			var s string
			require.Error(t, decodeValue(c, []byte(wire), &s), "%T % x", c, wire)
			require.Empty(t, s)
		}
	}
}

// codecAliasing has a place for each kind of memory that a decoder could hand out without copying it.
type codecAliasing struct {
	Bytes   []byte
	String  string
	Strings []string
	Keys    map[string]string
	Any     any
	AnyKeys map[string]any
	Array   [4]byte
	Msgpack msgpack.RawMessage `json:",omitempty"`
	JSON    json.RawMessage
	Text    codecText
	Deep    []*codecAliasing
}

type codecText struct{ s string }

func (c codecText) MarshalText() ([]byte, error) { return []byte(c.s), nil }
func (c *codecText) UnmarshalText(b []byte) error {
	c.s = string(b)
	return nil
}

func TestDecodedValuesDoNotShareMemoryWithTheWire(t *testing.T) {
	inner := codecAliasing{
		Bytes: []byte("bytes"), String: "string", Strings: []string{"one", "two"}, Keys: map[string]string{"key": "value"},
		Any: "any", AnyKeys: map[string]any{"key": []any{"value"}}, Array: [4]byte{1, 2, 3, 4},
		Msgpack: msgpack.RawMessage("\x92\xa1a\xa1b"), JSON: json.RawMessage(`{"a":"b"}`), Text: codecText{"text"},
	}
	outer := inner
	outer.Deep = []*codecAliasing{&inner}

	requireUnshared(t, Msgpack, outer)
	requireUnshared(t, Msgpack, "string")
	requireUnshared(t, Msgpack, []byte("bytes"))
	requireUnshared(t, Msgpack, msgpack.RawMessage("\x92\xa1a\xa1b"))
	requireUnshared(t, Msgpack, any([]byte("bytes")))
	requireUnshared(t, JSON, outer)
	requireUnshared(t, JSON, json.RawMessage(`{"a":"b"}`))
	requireUnshared(t, Raw, []byte("bytes"))
	requireUnshared(t, Raw, "string")
}

// requireUnshared scribbles over the wire form of v once it is decoded, and over what else the codec has in its pools.
func requireUnshared[V any](t *testing.T, c Codec, v V) {
	t.Helper()
	wire, err := appendValue(nil, c, v)
	require.NoError(t, err)
	var want, got V
	require.NoError(t, decodeValue(c, bytes.Clone(wire), &want))
	require.NoError(t, decodeValue(c, wire, &got))

	for i := range wire {
		wire[i] = 0xaa
	}
	var other string
	junk, err := appendValue(nil, c, strings.Repeat("\u00aa", 200))
	require.NoError(t, err)
	require.NoError(t, decodeValue(c, junk, &other))

	require.Equal(t, want, got)
	require.NotZero(t, got)
}

func TestEncodedBytesDoNotShareMemory(t *testing.T) {
	b := []byte("bytes")
	encoded, err := Raw.Marshal(b)
	require.NoError(t, err)
	copy(b, "xxxxx")
	require.Equal(t, "bytes", string(encoded))

	first, err := Msgpack.Marshal("first")
	require.NoError(t, err)
	_, err = Msgpack.Marshal("other")
	require.NoError(t, err)
	require.Equal(t, "\xa5first", string(first))
}

func TestDecodeValueGivesACodecNoRoomToAppend(t *testing.T) {
	wire := []byte("\xc4\x01xrest of the reply")
	c := codecFuncs{unmarshal: func(data []byte, _ any) error {
		_ = append(data, "scribble"...)
		return nil
	}}

	require.NoError(t, decodeValue(c, wire[:3], new(string)))
	require.Equal(t, "rest of the reply", string(wire[3:]))
}

func TestNilFromACodecIsNilToIt(t *testing.T) {
	given := []byte("something")
	c := codecFuncs{
		marshal:   func(any) ([]byte, error) { return nil, nil },
		unmarshal: func(data []byte, _ any) error { given = data; return nil },
	}
	wire, err := appendValue(nil, c, 1)
	require.NoError(t, err)
	require.Equal(t, "\xc0", string(wire))

	require.NoError(t, decodeValue(c, wire, new(int)))
	require.Nil(t, given)
}

// codecFuncs is a codec made for one test.
type codecFuncs struct {
	marshal   func(v any) ([]byte, error)
	unmarshal func(data []byte, v any) error
}

func (c codecFuncs) Marshal(v any) ([]byte, error)      { return c.marshal(v) }
func (c codecFuncs) Unmarshal(data []byte, v any) error { return c.unmarshal(data, v) }

func TestCheckCodec(t *testing.T) {
	require.EqualError(t, checkCodec(nil, reflect.TypeFor[string]()), "readthrough: the codec is nil")
	for _, c := range []Codec{Msgpack, JSON, codecFuncs{}} {
		require.NoError(t, checkCodec(c, reflect.TypeFor[codecUser]()))
	}
	require.NoError(t, checkCodec(Raw, reflect.TypeFor[string]()))
	require.NoError(t, checkCodec(Raw, reflect.TypeFor[[]byte]()))
	for _, typ := range []reflect.Type{
		reflect.TypeFor[codecUser](), reflect.TypeFor[*string](), reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any](),
	} {
		require.ErrorContains(t, checkCodec(Raw, typ), "not "+typ.String())
	}
}

func TestCodecsAreSafeForConcurrentUse(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 { // end by themselves
		wg.Go(func() {
			for j := range 200 {
				v := codecUser{Name: fmt.Sprint(i, j), Tags: []string{strconv.Itoa(i)}, Limits: map[string]int{"j": j}}
				wire, err := appendValue(nil, Msgpack, v)
				var got codecUser
				if err != nil || decodeValue(Msgpack, wire, &got) != nil || !reflect.DeepEqual(v, got) {
					t.Errorf("%v came back as %v", v, got)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestPoolsDoNotKeepHugeBuffers(t *testing.T) {
	runtime.GC()
	runtime.GC() // empties the pools
	huge := struct {
		S string
		A [4 * maxPooled]byte
	}{S: strings.Repeat("x", 4*maxPooled)}
	for range 10 {
		wire, err := appendValue(nil, Msgpack, huge)
		require.NoError(t, err)
		require.NoError(t, decodeValue(Msgpack, wire, &huge))
	}

	for range 10 {
		e, d := encoders.Get().(*encoder), decoders.Get().(*decoder)
		require.Empty(t, e.out)
		require.LessOrEqual(t, reflect.ValueOf(e.msgpack).Elem().FieldByName("buf").Cap(), maxPooled)
		require.LessOrEqual(t, reflect.ValueOf(d.msgpack).Elem().FieldByName("buf").Cap(), maxPooled)
	}
}

func TestPooledCodersKeepNoSettings(t *testing.T) {
	wire, err := appendValue(nil, Msgpack, codecMeddler{})
	require.NoError(t, err)
	require.NoError(t, decodeValue(Msgpack, wire, &codecMeddler{}))

	requireRoundTrip(t, Msgpack, any(map[string]any{"n": int32(5)})) // with the encoder and decoder that a meddler had
}

// codecMeddler changes the settings of the encoder and decoder it is given.
type codecMeddler struct{}

func (codecMeddler) EncodeMsgpack(enc *msgpack.Encoder) error {
	enc.UseCompactInts(true)
	return enc.EncodeBool(true)
}

func (*codecMeddler) DecodeMsgpack(dec *msgpack.Decoder) error {
	dec.UseLooseInterfaceDecoding(true)
	dec.SetMapDecoder(func(*msgpack.Decoder) (any, error) { return nil, errors.New("not for you") })
	return dec.Skip()
}

type benchRecord struct {
	ID, Version int64
	Name, Email string
	Street      string
	Balance     float64
	Active      bool
	Tags        []string
	Created     time.Time
	Avatar      []byte
}

var someBenchRecord = benchRecord{
	1 << 40, 7, "Ada Lovelace", "ada@example.org", "12 St James's Square", 12.5, true, []string{"gift", "express"},
	time.Unix(1_700_000_000, 5), make([]byte, 40),
}

func BenchmarkEncode(b *testing.B) {
	v := any(someBenchRecord)
	b.Run("appendValue", func(b *testing.B) {
		b.ReportAllocs()
		var wire []byte
		for b.Loop() {
			wire, _ = appendValue(wire[:0], Msgpack, v)
		}
	})
	b.Run("Msgpack.Marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Msgpack.Marshal(v)
		}
	})
	b.Run("msgpack.Marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = msgpack.Marshal(v)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	wire, err := appendValue(nil, Msgpack, someBenchRecord)
	require.NoError(b, err)
	for _, bb := range []struct {
		name   string
		decode func([]byte, any) error
	}{
		{"decodeValue", func(wire []byte, v any) error { return decodeValue(Msgpack, wire, v) }},
		{"Msgpack.Unmarshal", Msgpack.Unmarshal},
		{"msgpack.Unmarshal", func(wire []byte, v any) error { return msgpack.Unmarshal(wire, v) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var v benchRecord
				if err := bb.decode(wire, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
