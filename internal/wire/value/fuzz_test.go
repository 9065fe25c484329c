package value

import (
	"bytes"
	"encoding/json"
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

// targets makes values of types to decode arbitrary bytes into, among them types on which msgpack
// v5 can panic.
var targets = []func() any{
	func() any { return new(any) },
	func() any { return new(user) },
	func() any { return new([]user) },
	func() any { return new(aliasing) },
	func() any { return new(map[string]any) },
	func() any { return new(map[any]any) },
	func() any { return new(map[time.Time][]error) },
	func() any { return new(string) },
	func() any { return new([]byte) },
	func() any { return new([]string) },
	func() any { return new(struct{ A []int64 }) }, // 32 GiB in six bytes
	func() any { return new([3]int16) },
	func() any { return new(time.Time) },
	func() any { return new(json.Number) },
	func() any { return new(msgpack.RawMessage) },
}

// FuzzDecode holds Decode to its promise for any bytes: it returns, and allocates no more than a
// multiple of what it was given. The multiple is twice the size of the largest element that a
// single byte stands for, a nil user.
func FuzzDecode(f *testing.F) {
	wire, err := Append(nil, Msgpack{}, someUser())
	require.NoError(f, err)
	wireJSON, err := Append(nil, JSON{}, someUser())
	require.NoError(f, err)
	f.Add(wire)
	f.Add(wireJSON)
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
		for _, c := range []Codec{Msgpack{}, JSON{}, Raw{}, wrappedCodec{Msgpack{}}} {
			for _, target := range targets {
				allocated := uint64(math.MaxUint64)
				for i := 0; i < 3 && allocated > uint64(perByte*len(wire)+constant); i++ {
					v := target()
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					_ = Decode(c, wire, v)
					runtime.ReadMemStats(&after)
					allocated = min(allocated, after.TotalAlloc-before.TotalAlloc)
				}
				require.LessOrEqual(t, allocated, uint64(perByte*len(wire)+constant), "%T, %T", c, target())
			}
		}
		require.Equal(t, given, wire, "the wire is read only")
	})
}

// fuzzed returns a user made of what a fuzzer can make.
func fuzzed(s string, b []byte, i int64, u uint8, x float64, ok bool) user {
	v := user{ID: i, Name: s, Score: x, Active: ok, Avatar: b, Limits: map[string]int{s: int(i)}, Created: time.Unix(i>>20, i&0xfffff)}
	for range u % 8 {
		boss := v
		v = user{Boss: &boss, Tags: strings.Split(s, " "), Home: address{Street: s}, Any: strconv.Itoa(int(u)), Deleted: &boss.Created}
	}
	return v
}

func addSeeds(f *testing.F) {
	f.Add("", []byte(nil), int64(0), uint8(0), 0.0, false)
	f.Add("a b  c", []byte{}, int64(-1), uint8(7), math.Inf(-1), true)
	f.Add("\xff\u00e9<&>\u2028", []byte("\x91\xc1\xdd"), int64(math.MaxInt64), uint8(255), -0.5, true)
	f.Add(strings.Repeat("long", 100), bytes.Repeat([]byte{0xdd}, 70_000), int64(math.MinInt64), uint8(1), 1e300, false)
}

func FuzzMsgpackRoundTrip(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, s string, b []byte, i int64, u uint8, x float64, ok bool) {
		if math.IsNaN(x) {
			x = 0 // equals nothing, itself included
		}
		requireRoundTrip(t, Msgpack{}, s)
		requireRoundTrip(t, Msgpack{}, b)
		requireRoundTrip(t, Msgpack{}, any(map[string]any{s: []any{append([]byte{}, b...), i, u, x, ok, nil}}))
		requireRoundTrip(t, Msgpack{}, fuzzed(s, b, i, u, x, ok))
	})
}

func FuzzJSONRoundTrip(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, s string, b []byte, i int64, u uint8, x float64, ok bool) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			x = 0 // JSON has no such numbers
		}
		if year := time.Unix(i>>20, 0).UTC().Year(); year < 0 || year > 9999 {
			i = 0 // nor such times
		}
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
		requireRoundTrip(t, JSON{}, s)
		requireRoundTrip(t, JSON{}, b)
		requireRoundTrip(t, JSON{}, any(map[string]any{s: []any{s, x, ok, nil}}))
		requireRoundTrip(t, JSON{}, fuzzed(s, b, i, u, x, ok))
	})
}

func FuzzRawRoundTrip(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{})
	f.Add([]byte("\xc0"))
	f.Add(bytes.Repeat([]byte{0xc6}, 70_000))
	f.Fuzz(func(t *testing.T, b []byte) {
		requireRoundTrip(t, Raw{}, b)
		requireRoundTrip(t, Raw{}, string(b))
	})
}
