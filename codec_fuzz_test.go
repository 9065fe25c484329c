package readthrough

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// What can go wrong in a codec, and what any bytes can do to it: promise 5.

func TestHostilePayloadsAreRefusedQuicklyAndCheaply(t *testing.T) {
	type numbers struct{ A []int64 }
	type link struct {
		M    map[string]int
		Next *link
	}
	for _, tt := range []struct {
		name string
		wire string
		into any
	}{
		{"32 GiB of array in six bytes", "\x81\xa1A\xdd\x7f\xff\xff\xff", new(numbers)},
		{"32 GiB of array in any", "\xdd\x7f\xff\xff\xff", new(any)},
		{"five million nested arrays", strings.Repeat("\x91", 5_000_000), new(any)},
		{"five million nested arrays, skipped", "\x81\xa1B" + strings.Repeat("\x91", 5_000_000), new(numbers)},
		{"five million nested arrays, raw", strings.Repeat("\x91", 5_000_000), new(msgpack.RawMessage)},
		{"a map in a time", "\xd7\xff\xdf\x00\x20\x00\x00\x00\x00\x00", new(map[string]any)},
		{"an array in a map in an ext", "\xd7\x05\x81\xa1A\xdd\x7f\xff\xff\xff", new(map[string][]int64)},
		{"depth in a map in an ext", "\xc9\x00\x4c\x4b\x40\x05\x81\xa0" + strings.Repeat("\x91", 5_000_000-2), new(map[string]any)},
		{"depth in flat exts", "\xdc\x27\x10" + strings.Repeat("\x92\xc7\x00\x05\x80", 10_000), new([]link)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			err := decodeValue(Msgpack, []byte(tt.wire), tt.into)
			took := time.Since(start)
			runtime.ReadMemStats(&after)

			require.ErrorContains(t, err, "readthrough: decode: msgpack: ")
			require.Less(t, took, 10*time.Second)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4*len(tt.wire)+4<<20))
		})
	}
}

func TestCyclicAndDeepValuesAreErrors(t *testing.T) {
	type cyclic []cyclic
	type node struct{ Next *node }
	list := make(cyclic, 1)
	list[0] = list
	ring := &node{}
	ring.Next = ring
	var deep *node
	for range 101 {
		deep = &node{deep}
	}

	for _, v := range []any{list, ring, deep} {
		_, err := appendValue([]byte("before"), Msgpack, v)
		require.EqualError(t, err, "readthrough: encode: msgpack: nested deeper than 100 containers")
	}
	requireRoundTrip(t, Msgpack, deep.Next)

	_, err := appendValue(nil, JSON, ring)
	require.Error(t, err)
}

func TestMalformedEncodingIsAnErrorWhenItIsStored(t *testing.T) {
	for _, v := range []any{
		msgpack.RawMessage{}, msgpack.RawMessage("\x01\x02"), msgpack.RawMessage("\xc1"),
		struct{ R msgpack.RawMessage }{msgpack.RawMessage{}}, // writes a key without a value
	} {
		_, err := appendValue(nil, Msgpack, v)
		require.ErrorContains(t, err, "readthrough: encode: msgpack: ")
	}
}

// codecPanicker panics in every method that a codec may call, with what it holds.
type codecPanicker struct{ with any }

func (p codecPanicker) EncodeMsgpack(*msgpack.Encoder) error  { panic(p.with) }
func (p *codecPanicker) DecodeMsgpack(*msgpack.Decoder) error { panic(p.with) }
func (p codecPanicker) MarshalJSON() ([]byte, error)          { panic(p.with) }
func (p *codecPanicker) UnmarshalJSON([]byte) error           { panic(p.with) }

func TestPanicsInATypesOwnMethodsBecomeErrors(t *testing.T) {
	for _, c := range []Codec{Msgpack, JSON} {
		wire, err := appendValue(nil, c, []int{1})
		require.NoError(t, err)

		for _, with := range []any{io.ErrNoProgress, "a secret", 42} {
			dst, err := appendValue([]byte("before"), c, []codecPanicker{{with}})
			require.ErrorContains(t, err, "readthrough: encode: panic: ")
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "42")
			require.Equal(t, "before", string(dst))
			require.Equal(t, with == io.ErrNoProgress, errors.Is(err, io.ErrNoProgress))

			err = decodeValue(c, wire, &[]*codecPanicker{{with}})
			require.ErrorContains(t, err, "readthrough: decode: panic: ")
			require.NotContains(t, err.Error(), "secret")
		}
	}
}

func TestPanicsInACodecBecomeErrors(t *testing.T) {
	c := codecFuncs{} // calls nil functions
	_, err := appendValue(nil, c, 1)
	require.ErrorContains(t, err, "readthrough: encode: panic: runtime error: ")

	err = decodeValue(c, []byte{0xc0}, new(int))
	require.ErrorContains(t, err, "readthrough: decode: panic: runtime error: ")
	var cause runtime.Error
	require.ErrorAs(t, err, &cause)
}

func TestPanicsInMsgpackBecomeErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		wire string
		into any
	}{
		{"nil for a time", "\x81\xa1T\xc0", new(struct{ T time.Time })},
		{"a key twice", "\x82\xa1A\x01\xa1A\x01", new(struct{ A any })},
		{"a number for an error", "\x81\xa1E\x01", new(struct{ E error })},
		{"a list for a key", "\x81\x90\x01", new(map[any]any)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.ErrorContains(t, decodeValue(Msgpack, []byte(tt.wire), tt.into), "readthrough: decode: panic: ")
			requireRoundTrip(t, Msgpack, someCodecUser())
		})
	}
}

func TestErrorsSayWhatFailedButNotOnWhat(t *testing.T) {
	_, err := appendValue(nil, Msgpack, make(chan int))
	require.EqualError(t, err, "readthrough: encode: msgpack: Encode(unsupported chan int)")
	_, err = appendValue(nil, JSON, make(chan int))
	require.EqualError(t, err, "readthrough: encode: json: unsupported type: chan int")

	wire, err := appendValue(nil, Msgpack, "a secret")
	require.NoError(t, err)
	err = decodeValue(Msgpack, wire, new(time.Time)) // its error quotes what it could not parse
	require.EqualError(t, err, "readthrough: decode: *time.ParseError")
	var parse *time.ParseError
	require.ErrorAs(t, err, &parse)

	wire, err = appendValue(nil, JSON, 424242)
	require.NoError(t, err)
	err = decodeValue(JSON, wire, new(int8))
	require.EqualError(t, err, "readthrough: decode: *json.UnmarshalTypeError")
}

func TestADecoderThatFailedIsNotUsedAgain(t *testing.T) {
	d := decoders.New().(*decoder)
	decoders.Put(d)
	require.Error(t, decodeValue(Msgpack, []byte("\x81\xa1A\x01"), new([]int)))
	require.Error(t, decodeValue(Msgpack, []byte("\xa1A"), new(int)))

	for range 4 {
		got := decoders.Get().(*decoder)
		_, err := got.src.ReadByte()
		require.Equal(t, io.EOF, err, "holds on to what it failed to decode")
	}
}

// codecTypes are types for arbitrary bytes to be decoded into, among them those into which msgpack v5 can panic.
var codecTypes = []func() any{
	func() any { return new(any) },
	func() any { return new(codecUser) },
	func() any { return new([]codecUser) },
	func() any { return new(codecAliasing) },
	func() any { return new(map[string]any) },
	func() any { return new(map[any]any) },
	func() any { return new(map[time.Time][]error) },
	func() any { return new(string) },
	func() any { return new([]byte) },
	func() any { return new([]string) },
	func() any { return new([3]int16) },
	func() any { return new(time.Time) },
	func() any { return new(json.Number) },
	func() any { return new(msgpack.RawMessage) },
}

// FuzzDecodeValue holds decodeValue to its promise for any bytes: it returns, and allocates no more than a multiple of
// what it was given. The multiple is that of the largest element that a single byte stands for, twice: a nil codecUser.
func FuzzDecodeValue(f *testing.F) {
	user, err := appendValue(nil, Msgpack, someCodecUser())
	require.NoError(f, err)
	userJSON, err := appendValue(nil, JSON, someCodecUser())
	require.NoError(f, err)
	f.Add(user)
	f.Add(userJSON)
	f.Add([]byte("\xc0"))
	f.Add([]byte("\xc4\x03abc"))
	f.Add([]byte("\x81\xa1A\xdd\x7f\xff\xff\xff"))
	f.Add([]byte("\x91\x91\x91\x91\x91\x91\x91\x91"))
	f.Add([]byte("\xd7\xff\xdf\x00\x20\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x81\xa7Created\xc0"))
	f.Add([]byte("\x82\xa3Any\x01\xa3Any\x01"))
	f.Add([]byte("\x81\xa4Deep\x93\x80\x80\xc0"))
	f.Add([]byte("\x9f\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0"))

	const perByte, constant = 1024, 1 << 20
	f.Fuzz(func(t *testing.T, wire []byte) {
		given := bytes.Clone(wire)
		for _, c := range []Codec{Msgpack, JSON, Raw, wrappedCodec{Msgpack}} {
			for _, target := range codecTypes {
				allocated := uint64(math.MaxUint64)
				for i := 0; i < 3 && allocated > uint64(perByte*len(wire)+constant); i++ {
					v := target()
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					_ = decodeValue(c, wire, v)
					runtime.ReadMemStats(&after)
					allocated = min(allocated, after.TotalAlloc-before.TotalAlloc)
				}
				require.LessOrEqual(t, allocated, uint64(perByte*len(wire)+constant), "%T, %T", c, target())
			}
		}
		require.Equal(t, given, wire, "the wire is read only")
	})
}

// codecFuzzed is a value made of what a fuzzer can make.
func codecFuzzed(s string, b []byte, i int64, u uint8, x float64, ok bool) codecUser {
	v := codecUser{ID: i, Name: s, Score: x, Active: ok, Avatar: b, Limits: map[string]int{s: int(i)}, Created: time.Unix(i>>20, i&0xfffff)}
	for range u % 8 {
		boss := v
		v = codecUser{Boss: &boss, Tags: strings.Split(s, " "), Home: codecAddress{Street: s}, Any: strconv.Itoa(int(u)), Deleted: &boss.Created}
	}
	return v
}

func addCodecSeeds(f *testing.F) {
	f.Add("", []byte(nil), int64(0), uint8(0), 0.0, false)
	f.Add("a b  c", []byte{}, int64(-1), uint8(7), math.Inf(-1), true)
	f.Add("\xff\u00e9<&>\u2028", []byte("\x91\xc1\xdd"), int64(math.MaxInt64), uint8(255), -0.5, true)
	f.Add(strings.Repeat("long", 100), bytes.Repeat([]byte{0xdd}, 70_000), int64(math.MinInt64), uint8(1), 1e300, false)
}

func FuzzMsgpackRoundTrip(f *testing.F) {
	addCodecSeeds(f)
	f.Fuzz(func(t *testing.T, s string, b []byte, i int64, u uint8, x float64, ok bool) {
		if math.IsNaN(x) {
			x = 0 // equals nothing, itself included
		}
		requireRoundTrip(t, Msgpack, s)
		requireRoundTrip(t, Msgpack, b)
		requireRoundTrip(t, Msgpack, any(map[string]any{s: []any{append([]byte{}, b...), i, u, x, ok, nil}}))
		requireRoundTrip(t, Msgpack, codecFuzzed(s, b, i, u, x, ok))
	})
}

func FuzzJSONRoundTrip(f *testing.F) {
	addCodecSeeds(f)
	f.Fuzz(func(t *testing.T, s string, b []byte, i int64, u uint8, x float64, ok bool) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			x = 0 // JSON has no such numbers
		}
		if year := time.Unix(i>>20, 0).UTC().Year(); year < 0 || year > 9999 {
			i = 0 // nor such times
		}
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
		requireRoundTrip(t, JSON, s)
		requireRoundTrip(t, JSON, b)
		requireRoundTrip(t, JSON, any(map[string]any{s: []any{s, x, ok, nil}}))
		requireRoundTrip(t, JSON, codecFuzzed(s, b, i, u, x, ok))
	})
}

func FuzzRawRoundTrip(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{})
	f.Add([]byte("\xc0"))
	f.Add(bytes.Repeat([]byte{0xc6}, 70_000))
	f.Fuzz(func(t *testing.T, b []byte) {
		requireRoundTrip(t, Raw, b)
		requireRoundTrip(t, Raw, string(b))
	})
}
