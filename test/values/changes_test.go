package values

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// change is what became of the type of a value between two releases of a service.
type change struct {
	name string
	try  func(t *testing.T, c readthrough.Codec) (read bool)
}

// changed returns a change from old, which a release has stored, to a type in which the value is
// equal, or else is not to be read.
func changed[Old, New any](name string, old Old, equal ...New) change {
	return change{name, func(t *testing.T, c readthrough.Codec) bool {
		cache, server := newCache(t, readthrough.WithCodec(c))
		if readthrough.Set(t.Context(), cache, "k", old, time.Hour) != nil {
			t.Skip("no type for this codec")
		}
		require.True(t, server.Exists("k"), "it was stored")
		got, err := readthrough.Get[New](t.Context(), cache, "k")
		if errors.Is(err, readthrough.ErrMiss) {
			require.EqualValues(t, 1, cache.Stats().Corrupt)
			return false
		}
		require.NoError(t, err)
		require.NotEmpty(t, equal, "it is another value: %v", got)
		require.Contains(t, equal, got)
		return true
	}}
}

type (
	v1User struct {
		ID   int
		Name string
	}
	v2User struct {
		ID          int
		Name, Email string
	}
	v3User struct{ ID int }
	v4User struct {
		Key   int
		Label string
	}
	v5User struct {
		ID   int8
		Name string
	}
	v6User struct {
		ID   *int
		Name string
	}
	wrapped struct{ Users []v1User }
	renamed struct{ People []v4User }
	asArray struct {
		_msgpack struct{} `msgpack:",as_array"` //nolint:unused // for msgpack
		A, B     int
	}
	asMap struct{ A, B int }
)

var changes = []change{
	changed[int64, int32]("int64 to int32, too large", 4294967301), changed("int64 to int32, fits", int64(5), int32(5)),
	changed[int, uint8]("300 to uint8", 300), changed("200 to uint8", 200, uint8(200)), changed[int, int8]("200 to int8", 200),
	changed[int, uint]("-1 to uint", -1), changed[int8, uint64]("-1 to uint64", -1), changed[uint64, int64]("uint64 to int64", math.MaxUint64),
	changed[uint64, int]("uint64 to int", 1<<63), changed("uint64 to int, fits", uint64(7), 7),
	changed("int to int64", 7, int64(7)), changed("int to uint16", 7, uint16(7)),
	changed[float64, int]("float to int", 1.5), changed("whole float to int", 2.0, 2), changed("int to float", 7, 7.0),
	changed[int64, float64]("int to float that loses", 1<<53+1), changed[int64, float32]("int to float32 that loses", 1<<24+1),
	changed[float64, float32]("float64 to float32", 0.1), changed("float32 to float64", float32(0.5), 0.5),
	changed[bool, int]("bool to int", true), changed[int, bool]("int to bool", 1), changed[string, int]("string to int", "5"),
	changed[int, string]("int to string", 5), changed[string, bool]("string to bool", "true"),
	changed("string to bytes", "abcd", []byte("abcd")), changed("bytes to string", []byte("abc"), "abc"),
	changed[[]byte, [4]byte]("3 bytes to an array of 4", []byte("abc")), changed[[4]byte, [3]byte]("[4]byte to [3]byte", [4]byte{}),
	changed[[]byte, []int]("bytes to ints", []byte{1}), changed[[]int, []byte]("ints to bytes", []int{1}),
	changed[[2]int, [3]int]("[2]int to [3]int", [2]int{1, 2}), changed[[3]int, [2]int]("[3]int to [2]int", [3]int{1, 2, 3}),
	changed[[]int, [2]int]("3 to [2]int", []int{1, 2, 3}), changed("2 to [2]int", []int{1, 2}, [2]int{1, 2}),
	changed[[]int, []string]("ints to strings", []int{1}), changed[[]int, int]("ints to an int", []int{1}),
	changed[*int, int]("nil to int", nil), changed[*string, string]("nil to string", nil), changed[*bool, bool]("nil to bool", nil),
	changed[*v1User, v1User]("nil to a struct", nil), changed[*time.Time, time.Time]("nil to a time", nil),
	changed[*[2]int, [2]int]("nil to an array", nil), changed[[]*int, []int]("nil in a slice", []*int{nil}),
	changed[map[string]*int, map[string]int]("nil in a map", map[string]*int{"a": nil}),
	changed[v6User, v1User]("nil in a field", v6User{Name: "x"}), changed("pointer to value", &v1User{1, "x"}, v1User{1, "x"}),
	changed[map[string]int, map[int]int]("keys to ints", map[string]int{"a": 1}), changed[map[int]int, map[int8]int]("keys too large", map[int]int{300: 1}),
	changed[map[int]string, map[uint]string]("negative keys", map[int]string{-1: "a"}),
	changed("a field more", v1User{1, "x"}, v2User{ID: 1, Name: "x"}), changed("a field less", v1User{1, "x"}, v3User{1}),
	changed[v1User, v4User]("no field known", v1User{1, "x"}), changed[wrapped, renamed]("no field known, inside", wrapped{[]v1User{{1, "x"}}}),
	changed[[]v1User, []v4User]("no field known, of elements", []v1User{{1, "x"}}), changed[struct{}, v1User]("no fields", struct{}{}),
	changed[v1User, v5User]("a field too large", v1User{300, "x"}), changed("a field that fits", v1User{3, "x"}, v5User{3, "x"}),
	changed[v1User, []int]("struct to slice", v1User{1, "x"}), changed[[]int, asMap]("slice to struct", []int{1, 2}),
	changed[asArray, []int]("array of fields to slice", asArray{A: 1, B: 2}, []int{1, 2}),
	changed[map[string]int, v1User]("map to struct", map[string]int{"other": 1}), changed[v1User, string]("struct to string", v1User{}),
	changed[string, time.Time]("string to time", "2024-01-02T03:04:05Z"), changed[time.Time, string]("time to string", time.Unix(1, 0)),
	changed[int64, time.Time]("int to time", 1), changed[time.Time, int64]("time to int", time.Unix(1, 0)),
	changed[[2]int64, time.Time]("two ints to time", [2]int64{1, 2}), changed("int to duration", int64(5), 5*time.Nanosecond),
	changed[*netip.Addr, netip.Addr]("nil to what decodes itself", nil), changed[*big.Int, big.Int]("nil to a big number", nil),
	changed[*v1User, struct{ A netip.Addr }]("nil to what holds such", nil), changed[[]byte, net.IP]("bytes to an IP", []byte("x")),
	changed[*json.RawMessage, json.RawMessage]("nil to raw JSON", nil, nil, json.RawMessage("null")),
	changed[any, []int]("nil any to slice", nil, nil), changed[any, int]("nil any to int", nil),
}

// TestChanges_OfTypeAreEqualOrMisses holds that what a release has stored is the same value for the
// next, or a miss, whatever became of its type.
func TestChanges_OfTypeAreEqualOrMisses(t *testing.T) {
	for name, codec := range map[string]readthrough.Codec{"msgpack": readthrough.Msgpack, "json": readthrough.JSON, "raw": readthrough.Raw} {
		read := 0
		for _, c := range changes {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				if c.try(t, codec) {
					read++
				}
			})
		}
		require.GreaterOrEqual(t, read, map[string]int{"msgpack": 13, "json": 8, "raw": 2}[name], "and not all of them are misses")
	}
}
