package wellformed

import (
	"encoding/binary"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// A value of n bytes takes at most perByte*n+constant bytes to decode into the types of this file.
// Most of that is what Go needs to hold such a value at all: of the two bytes of a map of one pair
// in a map of one pair come a map and the eight slots of its first group, 336 bytes for
// map[string]any.
const (
	perByte  = 256
	constant = 1 << 20 // what else allocates meanwhile: the fuzzer, and msgpack when it first sees a type
)

// tree is a type through which a decoder recurses, with the fields that it makes room for in
// advance.
type tree struct {
	N int64
	S string
	B []byte
	L []int64
	M map[string]string
	T *time.Time
	K []*tree
	P *tree
}

// targets are types that msgpack v5 decodes without a panic from any well-formed value. It has
// others.
var targets = []func() any{
	func() any { return new(any) },
	func() any { return new([]any) },
	func() any { return new(map[string]any) },
	func() any { return new(map[int64]map[string]int8) },
	func() any { return new(tree) },
	func() any { return new([]tree) },
	func() any { return new([]string) },
	func() any { return new(struct{ A []int64 }) }, // 32 GiB in six bytes
	func() any { return new([]byte) },
	func() any { return new([][4]int32) },
	func() any { return new(time.Time) },
	func() any { return new(msgpack.RawMessage) },
}

// FuzzCheck holds Check to both halves of its promise: what it accepts can be decoded without a
// panic and within the bound above, and whatever msgpack encodes it accepts.
func FuzzCheck(f *testing.F) {
	f.Add(rich())
	f.Add([]byte("\x81\xa1A\xdd\x7f\xff\xff\xff"))
	f.Add([]byte("\x91\x91\x91\x91\x91\x91\x91\x91"))
	f.Add([]byte("\x91\x81\xa1M\xd7\xff\xde\xff\xff\xa0\xa0\xa0\xa0\xa0"))
	f.Add([]byte("\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x81\xa0\xc0"))
	f.Add([]byte("\x88\xa1N\x05\xa1S\xa1s\xa1B\xc4\x01b\xa1L\x92\x01\x02\xa1M\x81\xa1k\xa1v\xa1T\xd6\xff\x00\x00\x00\x05\xa1K\x91\x80\xa1P\xc0"))
	for _, ext := range disguises {
		f.Add([]byte("\x81\xa1M" + ext))
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		if Check(data) == nil {
			for _, target := range targets {
				requireBounded(t, data, target)
			}
		}

		encoded, err := msgpack.Marshal((&source{data}).value(20))
		require.NoError(t, err)
		require.NoError(t, Check(encoded), "% x", encoded)
		for n := range min(len(encoded), 100) {
			require.Equal(t, errTruncated, Check(encoded[:n]))
		}
	})
}

// TestCheck_BoundsWhatDecodingAllocates shows the bound at work on the values that come nearest to
// it.
func TestCheck_BoundsWhatDecodingAllocates(t *testing.T) {
	for name, element := range map[string]string{
		"maps in maps":       "\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x81\xa0\x81\xa0\xc0",
		"small maps":         "\x81\xa0\xc0",
		"empty maps":         "\x80",
		"empty arrays":       "\x90",
		"nils":               "\xc0",
		"arrays in arrays":   "\x91\x91\x91\x91\x91\x91\x91\xc0",
		"trees":              "\x81\xa1P\x81\xa1P\x81\xa1P\x80",
		"trees with a map":   "\x81\xa1M\x81\xa0\xa0",
		"trees with slices":  "\x81\xa1K\x93\x80\x80\x80",
		"maps by number":     "\x81\x01\x81\xa1k\x02",
		"times":              "\xd6\xff\x00\x00\x00\x05",
		"interned reference": "\xd4\x80\x00",
	} {
		t.Run(name, func(t *testing.T) {
			value := []byte{0xdd, 0, 0, 0x10, 0}
			for range 0x1000 {
				value = append(value, element...)
			}
			require.NoError(t, Check(value))

			for _, target := range targets {
				requireBounded(t, value, target)
			}
		})
	}
}

// requireBounded decodes data and fails if that panics, or allocates more than is documented above.
func requireBounded(t *testing.T, data []byte, target func() any) {
	t.Helper()
	limit := uint64(perByte*len(data) + constant)
	allocated := uint64(math.MaxUint64)
	for range 3 { // only a decoder goes over the limit each time
		var before, after runtime.MemStats
		v := target()
		runtime.ReadMemStats(&before)
		_ = newDecoder(data).Decode(v)
		runtime.ReadMemStats(&after)
		if allocated = min(allocated, after.TotalAlloc-before.TotalAlloc); allocated <= limit {
			return
		}
	}
	t.Fatalf("%d bytes allocated to decode %d bytes into %T: % x", allocated, len(data), target(), data[:min(len(data), 64)])
}

// A source makes a value of what bytes a fuzzer gives it, and zeros when those are used up.
type source struct{ data []byte }

func (s *source) take(n int) []byte {
	b := make([]byte, n)
	s.data = s.data[copy(b, s.data):]
	return b
}

func (s *source) uint64() uint64 { return binary.BigEndian.Uint64(s.take(8)) }

func (s *source) value(depth int) any {
	kinds := byte(20)
	if depth == 0 {
		kinds = 14 // no more containers
	}
	switch s.take(1)[0] % kinds {
	default:
		return nil
	case 1:
		return s.take(1)[0]&1 == 0
	case 2:
		return int(s.uint64())
	case 3:
		return int8(s.uint64())
	case 4:
		return int16(s.uint64())
	case 5:
		return int32(s.uint64())
	case 6:
		return int64(s.uint64())
	case 7:
		return uint(s.uint64())
	case 8:
		return [3]uint32{uint32(s.uint64())}
	case 9:
		return math.Float32frombits(uint32(s.uint64()))
	case 10:
		return math.Float64frombits(s.uint64())
	case 11:
		return string(s.take(int(binary.BigEndian.Uint16(append([]byte{0}, s.take(1)...))) * 3))
	case 12:
		return s.take(int(s.take(1)[0]) * 300)
	case 13:
		return time.Unix(int64(s.uint64()>>20), int64(uint32(s.uint64())))
	case 14, 15:
		values := make([]any, s.take(1)[0]%20)
		for i := range values {
			values[i] = s.value(depth - 1)
		}
		return values
	case 16:
		m := make(map[string]any)
		for range s.take(1)[0] % 20 {
			m[string(s.take(2))] = s.value(depth - 1)
		}
		return m
	case 17:
		m := make(map[any]int)
		for range s.take(1)[0] % 20 {
			m[int64(s.uint64())] = int(s.uint64())
		}
		return m
	case 18:
		return &struct {
			A any `msgpack:",omitempty"`
			B *[]any
			C string `msgpack:",intern"`
			D string `msgpack:",intern"`
		}{A: s.value(depth - 1), C: string(s.take(4)), D: string(s.take(4))}
	case 19:
		return make([]struct{}, int(s.take(1)[0])*300)
	}
}
