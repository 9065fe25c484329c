package wellformed

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// formats is the table of the msgpack specification, written down apart from the one under test:
// for each range of lead bytes what follows for the value to be complete.
var formats = []struct {
	name        string
	first, last byte
	rest        func(lead byte) []byte
}{
	{"positive fixint", 0x00, 0x7f, zeros(0)},
	{"fixmap", 0x80, 0x8f, func(lead byte) []byte { return make([]byte, 2*int(lead-0x80)) }},
	{"fixarray", 0x90, 0x9f, func(lead byte) []byte { return make([]byte, lead-0x90) }},
	{"fixstr", 0xa0, 0xbf, func(lead byte) []byte { return make([]byte, lead-0xa0) }},
	{"nil", 0xc0, 0xc0, zeros(0)},
	{"false, true", 0xc2, 0xc3, zeros(0)},
	{"bin 8", 0xc4, 0xc4, rest([]byte{3}, 3)},
	{"bin 16", 0xc5, 0xc5, rest([]byte{1, 2}, 0x102)},
	{"bin 32", 0xc6, 0xc6, rest([]byte{0, 1, 0, 2}, 0x10002)},
	{"ext 8", 0xc7, 0xc7, rest([]byte{3, 0x52}, 3)},
	{"ext 16", 0xc8, 0xc8, rest([]byte{1, 2, 0x52}, 0x102)},
	{"ext 32", 0xc9, 0xc9, rest([]byte{0, 1, 0, 2, 0x52}, 0x10002)},
	{"float 32", 0xca, 0xca, zeros(4)},
	{"float 64", 0xcb, 0xcb, zeros(8)},
	{"uint 8", 0xcc, 0xcc, zeros(1)},
	{"uint 16", 0xcd, 0xcd, zeros(2)},
	{"uint 32", 0xce, 0xce, zeros(4)},
	{"uint 64", 0xcf, 0xcf, zeros(8)},
	{"int 8", 0xd0, 0xd0, zeros(1)},
	{"int 16", 0xd1, 0xd1, zeros(2)},
	{"int 32", 0xd2, 0xd2, zeros(4)},
	{"int 64", 0xd3, 0xd3, zeros(8)},
	{"fixext 1", 0xd4, 0xd4, zeros(1 + 1)},
	{"fixext 2", 0xd5, 0xd5, zeros(1 + 2)},
	{"fixext 4", 0xd6, 0xd6, zeros(1 + 4)},
	{"fixext 8", 0xd7, 0xd7, zeros(1 + 8)},
	{"fixext 16", 0xd8, 0xd8, zeros(1 + 16)},
	{"str 8", 0xd9, 0xd9, rest([]byte{3}, 3)},
	{"str 16", 0xda, 0xda, rest([]byte{1, 2}, 0x102)},
	{"str 32", 0xdb, 0xdb, rest([]byte{0, 1, 0, 2}, 0x10002)},
	{"array 16", 0xdc, 0xdc, rest([]byte{1, 2}, 0x102)},
	{"array 32", 0xdd, 0xdd, rest([]byte{0, 1, 0, 2}, 0x10002)},
	{"map 16", 0xde, 0xde, rest([]byte{1, 2}, 2*0x102)},
	{"map 32", 0xdf, 0xdf, rest([]byte{0, 1, 0, 2}, 2*0x10002)},
	{"negative fixint", 0xe0, 0xff, zeros(0)},
}

func zeros(n int) func(byte) []byte { return rest(nil, n) }

func rest(header []byte, n int) func(byte) []byte {
	return func(byte) []byte { return append(slices.Clone(header), make([]byte, n)...) }
}

func TestCheck_KnowsEveryLeadByte(t *testing.T) {
	seen := map[byte]bool{0xc1: true}
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			for c := int(f.first); c <= int(f.last); c++ {
				seen[byte(c)] = true
				value := append([]byte{byte(c)}, f.rest(byte(c))...)

				require.NoError(t, Check(value), "%#x", c)
				require.Equal(t, errTrailing, Check(append(value, 0)), "%#x and a byte", c)
				require.Equal(t, errTruncated, Check(value[:len(value)-1]), "%#x less a byte", c)
				for n := range min(len(value), 12) {
					require.Equal(t, errTruncated, Check(value[:n]), "%#x, %d bytes", c, n)
				}
			}
		})
	}
	require.Len(t, seen, 256, "the table has every lead byte")
}

func TestCheck_RefusesC1(t *testing.T) {
	require.Equal(t, errLeadByte, Check([]byte{0xc1}))
	require.Equal(t, errLeadByte, Check([]byte{0x92, 0x01, 0xc1}))
}

func TestCheck_RefusesLengthsThatDoNotFit(t *testing.T) {
	for _, payload := range []string{
		"\x81\xa1A\xdd\x7f\xff\xff\xff", // 32 GiB in msgpack v5 when decoded into a field of []int64
		"\xdd\xff\xff\xff\xff",
		"\xdf\xff\xff\xff\xff",
		"\xdf\x80\x00\x00\x00\x00", // twice that overflows 32 bits
		"\xdc\x00\x03\x00\x00",
		"\xde\x00\x02\x00\x00\x00", // a map of two pairs has four values
		"\xc6\xff\xff\xff\xff\x00",
		"\xdb\xff\xff\xff\xff\x00",
		"\xc9\xff\xff\xff\xff\x00", // the length does not count the type
		"\xc7\x02\x01\x00",
		"\x92\x91\x00", // the inner array has taken what the outer waits for
		"",
	} {
		require.Equal(t, errTruncated, Check([]byte(payload)), "% x", payload)
	}
}

func TestCheck_RefusesTruncationAnywhere(t *testing.T) {
	value := rich()
	require.NoError(t, Check(value))

	for n := range value {
		require.Equal(t, errTruncated, Check(value[:n]), "%d of %d bytes", n, len(value))
		require.NoError(t, CheckPrefix(value[:n]), "%d of %d bytes", n, len(value))
	}
	require.Equal(t, errTrailing, Check(append(value, 0xc0)))
	require.Equal(t, errTrailing, CheckPrefix(append(value, 0xc0)))
}

func TestCheck_BoundsDepth(t *testing.T) {
	nests := map[string]string{"arrays": "\x91", "maps": "\x81\xa1k", "arrays of two": "\x92\x00", "array 32": "\xdd\x00\x00\x00\x01"}
	for name, open := range nests {
		t.Run(name, func(t *testing.T) {
			nest := func(depth int, core string) []byte {
				return append(bytes.Repeat([]byte(open), depth), core...)
			}
			require.NoError(t, Check(nest(MaxDepth, "\xc0")))
			require.NoError(t, CheckPrefix(nest(MaxDepth, "")))
			require.Equal(t, errDepth, Check(nest(MaxDepth+1, "\xc0")))
			require.Equal(t, errDepth, CheckPrefix(nest(MaxDepth+1, "")))
			require.NoError(t, Check(nest(MaxDepth-1, "\x90")), "an empty container is one")
			require.Equal(t, errDepth, Check(nest(MaxDepth, "\x90")), "an empty container is one")
		})
	}
}

func TestCheck_CountsDepthNotContainers(t *testing.T) {
	branch := append(bytes.Repeat([]byte{0x91}, MaxDepth-1), 0xc0)
	value := append([]byte{0xdc, 0x01, 0x00}, bytes.Repeat(branch, 256)...)

	require.NoError(t, Check(value))
}

func TestCheckPrefix_FindsDepthBehindLongContainers(t *testing.T) {
	level := []byte{0xdd, 0x00, 0x00, 0xff, 0xff} // far more elements than there are bytes yet

	require.NoError(t, CheckPrefix(bytes.Repeat(level, MaxDepth)))
	require.Equal(t, errDepth, CheckPrefix(bytes.Repeat(level, MaxDepth+1)))
}

func TestCheck_GivesUpEarlyOnFiveMillionNestedArrays(t *testing.T) {
	payload := bytes.Repeat([]byte{0x91}, 5_000_000)

	start := time.Now()
	require.Equal(t, errDepth, Check(payload))
	require.Less(t, time.Since(start), 100*time.Millisecond)
}

func TestCheck_DoesNotAllocate(t *testing.T) {
	value, deep := rich(), bytes.Repeat([]byte{0x91}, 200)

	require.Zero(t, testing.AllocsPerRun(100, func() { _ = Check(value) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = Check(deep) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = Check(value[:50]) }))
}

// disguises are exts that msgpack v5 takes for maps, with a map of 65535 pairs for a body where
// there is room for it.
var disguises = map[string]string{
	"fixext 1":             "\xd4\x05\x81",
	"fixext 1, nil":        "\xd4\x05\xc0",
	"fixext 2":             "\xd5\x05\x81\xa0",
	"fixext 4":             "\xd6\x05\xde\xff\xff\xa0",
	"fixext 8, a time":     "\xd7\xff\xde\xff\xff\xa0\xa0\xa0\xa0\xa0",
	"fixext 16":            "\xd8\x05\xdf\x00\x00\xff\xff" + "\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0",
	"ext 8":                "\xc7\x05\x05\xdf\x00\x00\xff\xff",
	"ext 8 without a body": "\xc7\x00\x05\x80",
	"ext 16":               "\xc8\x00\x05\x05\xdf\x00\x00\xff\xff",
	"ext 32":               "\xc9\x00\x00\x00\x05\x05\xdf\x00\x00\xff\xff",
	"interned string":      "\xd4\x80\x8f",
	"unseen array length":  "\xd7\x05\x81\xa1A\xdd\x00\x00\xff\xff",
	"unseen depth":         "\xc7\xff\x05\x81\xa0" + string(bytes.Repeat([]byte{0x91}, 253)),
}

func TestReader_RefusesToReadAnExtAsAMap(t *testing.T) {
	// What looks like an ext, but is a number, a length or text.
	noise := []string{"\x01", "\xcc\xd7", "\xd0\xc7", "\xd9\x01\xd6", "\xc4\x01\xd5", "\xa2\xd4\x05", "\xcd\xd4\x05", "\xca\xd7\xff\x81\x00"}

	for name, ext := range disguises {
		value := []byte{0xdc, 0, byte(len(noise) + 1)}
		if name == "ext 8 without a body" {
			value[2]++ // the map that follows is an element of its own
		}
		value = append(value, strings.Join(noise, "")+ext...)
		require.NoError(t, Check(value), name)

		for _, target := range []any{new(map[string]any), new(map[string]string), new(map[int]int)} {
			t.Run(fmt.Sprintf("%s into %T", name, target), func(t *testing.T) {
				dec := newDecoder(value)
				_, err := dec.DecodeArrayLen()
				require.NoError(t, err)
				for range noise {
					_, err := dec.DecodeInterface()
					require.NoError(t, err)
				}

				require.Equal(t, errExtAsMap, dec.Decode(target))
			})
		}
	}
}

func TestReader_RefusesAnExtAsAMapAfterAnyValue(t *testing.T) {
	for _, f := range formats {
		for c := int(f.first); c <= int(f.last); c++ {
			value := append([]byte{0x92, byte(c)}, f.rest(byte(c))...)
			value = append(value, disguises["fixext 8, a time"]...)
			require.NoError(t, Check(value))

			dec := newDecoder(value)
			_, err := dec.DecodeArrayLen()
			require.NoError(t, err)
			require.NoError(t, dec.Skip())

			var m map[string]string
			require.Equal(t, errExtAsMap, dec.Decode(&m), "after %#x", c)
		}
	}
}

func TestReader_ReadsMapsAfterWhatLooksLikeAnExt(t *testing.T) {
	for _, before := range []string{
		"\xcd\xd4\x05", "\xce\x00\x00\xd8\x05", "\xa2\xd5\x05", "\x91\xcc\xd6\xd1\xd7\x05", // fixext
		"\xce\x00\xc7\x09\x05", "\xce\xc8\x00\x09\x05", "\xc4\x06\xc9\x00\x00\x00\x09\x05", // ext 8, 16, 32
		"\xd4\xd5\xd6", // an ext, whose type and body look like another
	} {
		value := []byte("\x92" + before + "\x81\xa1k\xa1v")
		if before[0] == 0x91 {
			value[0]++ // it is two values
		}
		require.NoError(t, Check(value), "% x", before)

		dec := newDecoder(value)
		n, err := dec.DecodeArrayLen()
		require.NoError(t, err)
		for range n - 1 {
			require.NoError(t, dec.Skip())
		}

		var m map[string]string
		require.NoError(t, dec.Decode(&m), "after % x", before)
		require.Equal(t, map[string]string{"k": "v"}, m)
	}
}

func TestReader_RefusesDepthThatCheckCannotSee(t *testing.T) {
	// Flat as Check sees it: [[ext, map], [ext, map] ...]. But msgpack v5 takes each ext and map for
	// one element, and the next array for the second, so that it recurses as often as there are
	// arrays.
	type link struct {
		M    map[string]int
		Next *link
	}
	value := append([]byte{0xdc, 0x27, 0x10}, bytes.Repeat([]byte("\x92\xc7\x00\x05\x80"), 10_000)...)
	require.NoError(t, Check(value))

	var links []link
	require.Equal(t, errExtAsMap, newDecoder(value).Decode(&links))
}

func TestReader_RefusesAfterValuesReadAsOnePiece(t *testing.T) {
	value := []byte("\x94\xcd\x01\x02\xa3abc\x92\x01\xcc\xd7\xd7\xff\xde\xff\xff\xa0\xa0\xa0\xa0\xa0")
	require.NoError(t, Check(value))

	dec := newDecoder(value)
	require.NoError(t, dec.ReadFull(make([]byte, 12))) // as a type's own decoder may do
	var m map[string]string
	require.Equal(t, errExtAsMap, dec.Decode(&m))
}

func TestReader_ReadsWhatMsgpackWrites(t *testing.T) {
	type inner struct{ At time.Time }
	type record struct {
		Name   string `msgpack:",intern"`
		Again  string `msgpack:",intern"`
		At     time.Time
		Never  time.Time
		Until  *time.Time
		Any    any
		Blob   []byte
		Counts map[string]int
		Raw    msgpack.RawMessage
		Inner  []inner
	}
	until := time.Unix(1<<33, 0x37c00000) // its ext reads df: a map of 32 bits
	want := record{
		Name: "a name", Again: "a name", At: time.Unix(1_700_000_000, 0x20000000), Until: &until, Any: []any{until, int8(-44)},
		Blob: []byte{0xd4, 0x05, 0x80}, Counts: map[string]int{"\xd4": -44, "n": 0xd4}, Raw: msgpack.RawMessage("\x91\xd7\xff\xdf\x00\x00\x00\x00\x00\x00\x00"),
		Inner: []inner{{until}, {time.Unix(4_294_967_295, 0)}},
	}
	value, err := msgpack.Marshal(want)
	require.NoError(t, err)
	require.NoError(t, Check(value))

	var got record
	require.NoError(t, newDecoder(value).Decode(&got))
	require.Equal(t, want, got)

	var fewer struct{ Name string } // all else is skipped
	require.NoError(t, newDecoder(value).Decode(&fewer))
	require.Equal(t, want.Name, fewer.Name)
}

func TestReader_IsAReader(t *testing.T) {
	value := rich()
	var r Reader
	require.Error(t, r.UnreadByte())

	r.Reset(value)
	require.NoError(t, iotest.TestReader(&r, value))

	r.Reset(value)
	var got []byte
	for {
		c, err := r.ReadByte()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.NoError(t, r.UnreadByte())
		again, err := r.ReadByte()
		require.NoError(t, err)
		require.Equal(t, c, again)
		got = append(got, c)
	}
	require.Equal(t, value, got)

	r.Reset(nil)
	_, err := r.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// rich is one value with every format in it, a few levels deep.
func rich() []byte {
	elements := []string{
		"\x05", "\xe0", "\xc0", "\xc2", "\xc3", "\xca....", "\xcb........",
		"\xcc.", "\xcd..", "\xce....", "\xcf........", "\xd0.", "\xd1..", "\xd2....", "\xd3........",
		"\xa3abc", "\xd9\x03abc", "\xda\x00\x03abc", "\xdb\x00\x00\x00\x03abc",
		"\xc4\x03abc", "\xc5\x00\x03abc", "\xc6\x00\x00\x00\x03abc",
		"\xd4\x05a", "\xd5\x05ab", "\xd6\x05abcd", "\xd7\x05abcdefgh", "\xd8\x05abcdefghabcdefgh",
		"\xc7\x03\x05abc", "\xc8\x00\x03\x05abc", "\xc9\x00\x00\x00\x03\x05abc",
		"\x80", "\x82\xa1k\x92\x01\x81\x02\x90\xa1l\xc0", "\xde\x00\x01\x01\x91\x02", "\xdf\x00\x00\x00\x01\x01\x02",
		"\x90", "\x91\x91\x91\x05", "\xdc\x00\x02\x90\x05", "\xdd\x00\x00\x00\x01\x05",
	}
	return append([]byte{0xdc, 0, byte(len(elements))}, strings.Join(elements, "")...)
}

func newDecoder(value []byte) *msgpack.Decoder {
	r := new(Reader)
	r.Reset(value)
	return msgpack.NewDecoder(r)
}

func BenchmarkCheck(b *testing.B) {
	type address struct{ Street, City, Postcode, Country string }
	value, err := msgpack.Marshal(struct {
		ID, Version int64
		Name, Email string
		Balance     float64
		Active      bool
		Tags        []string
		Created     time.Time
		Address     address
		Parent      *int64
	}{
		1 << 40, 7, "Ada Lovelace", "ada@example.org", 12.5, true, []string{"gift", "express"}, time.Unix(1_700_000_000, 5),
		address{"12 St James's Square", "London", "SW1Y 4JH", "United Kingdom"}, nil,
	})
	require.NoError(b, err)

	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if Check(value) != nil {
			b.Fatal("refused")
		}
	}
}
