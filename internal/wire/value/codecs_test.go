package value

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCodecs_KeepZeroValues(t *testing.T) {
	for name, c := range map[string]Codec{"Msgpack": Msgpack{}, "JSON": JSON{}} {
		t.Run(name, func(t *testing.T) {
			requireRoundTrip(t, c, 0)
			requireRoundTrip(t, c, uint8(0))
			requireRoundTrip(t, c, 0.0)
			requireRoundTrip(t, c, "")
			requireRoundTrip(t, c, false)
			requireRoundTrip(t, c, struct{}{})
			requireRoundTrip(t, c, [2]int{})
			requireRoundTrip(t, c, user{})
			requireRoundTrip(t, c, time.Time{})
			requireRoundTrip(t, c, time.Duration(0))
			requireRoundTrip(t, c, (*user)(nil))
			requireRoundTrip(t, c, &user{})
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
			requireRoundTrip(t, c, map[int]user(nil))
			requireRoundTrip(t, c, map[int]user{})
			requireRoundTrip(t, c, struct {
				S, E []int
				B, F []byte
			}{E: []int{}, F: []byte{}})
		})
	}
}

func TestCodecs_KeepValues(t *testing.T) {
	for name, c := range map[string]Codec{"Msgpack": Msgpack{}, "JSON": JSON{}} {
		t.Run(name, func(t *testing.T) {
			requireRoundTrip(t, c, someUser())
			requireRoundTrip(t, c, []address{{City: "a"}, {City: "b"}})
			requireRoundTrip(t, c, map[int]address{-1: {City: "a"}, math.MaxInt: {City: "b"}})
			requireRoundTrip(t, c, any(map[string]any{"list": []any{"text", true, nil, 0.5}}))
			requireRoundTrip(t, c, time.Date(2400, 1, 2, 3, 4, 5, 999_999_999, time.FixedZone("", 3600)).UTC())
			requireRoundTrip(t, c, uint64(math.MaxUint64))
			requireRoundTrip(t, c, int64(math.MinInt64))
			requireRoundTrip(t, c, strings.Repeat("ab", 1<<20))
			requireRoundTrip(t, c, bytes.Repeat([]byte{7}, 1<<20))
		})
	}
}

func TestRaw_KeepsBytesAndStrings(t *testing.T) {
	requireRoundTrip(t, Raw{}, []byte(nil))
	requireRoundTrip(t, Raw{}, "")
	for _, n := range []int{0, 1, 255, 256, 65535, 65536, 1 << 20} { // across each size of bin
		requireRoundTrip(t, Raw{}, bytes.Repeat([]byte{0xc1}, n))
		requireRoundTrip(t, Raw{}, strings.Repeat("x", n))
	}
}

func TestRaw_RefusesOtherTypes(t *testing.T) {
	_, err := Append(nil, Raw{}, 7)
	require.EqualError(t, err, "encode: raw: cannot encode int")

	require.EqualError(t, Decode(Raw{}, []byte("\xc4\x01x"), new(int)), "decode: raw: cannot decode into *int")
}

func TestMsgpack_KeepsTheTypeOfSizedIntegersInAny(t *testing.T) {
	for _, v := range []any{int8(5), int16(5), int32(5), int64(5), uint8(5), uint16(5), uint32(5), uint64(5), float32(5)} {
		requireRoundTrip(t, Msgpack{}, any(v))
		requireRoundTrip(t, Msgpack{}, []any{v})
		requireRoundTrip(t, Msgpack{}, map[string]any{"v": v})
	}
}

func TestMarshal_ReturnsBytesThatShareNoMemory(t *testing.T) {
	b := []byte("bytes")
	encoded, err := Raw{}.Marshal(b)
	require.NoError(t, err)
	copy(b, "xxxxx")
	require.Equal(t, "bytes", string(encoded))

	first, err := Msgpack{}.Marshal("first")
	require.NoError(t, err)
	_, err = Msgpack{}.Marshal("other")
	require.NoError(t, err)
	require.Equal(t, "\xa5first", string(first))
}
