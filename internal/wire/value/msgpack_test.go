package value

import (
	"errors"
	"fmt"
	"io"
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

// What can go wrong in a codec, and what any bytes can do to it: promise 5.

func TestDecode_RefusesHostilePayloadsQuicklyAndCheaply(t *testing.T) {
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
			err := Decode(Msgpack{}, []byte(tt.wire), tt.into)
			took := time.Since(start)
			runtime.ReadMemStats(&after)

			require.ErrorContains(t, err, "decode: msgpack: ")
			require.Less(t, took, 10*time.Second)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4*len(tt.wire)+4<<20))
		})
	}
}

func TestAppend_RefusesCyclicAndDeepValues(t *testing.T) {
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
		_, err := Append([]byte("before"), Msgpack{}, v)
		require.EqualError(t, err, "encode: msgpack: nested deeper than 100 containers")
	}
	requireRoundTrip(t, Msgpack{}, deep.Next)

	_, err := Append(nil, JSON{}, ring)
	require.Error(t, err)
}

func TestAppend_RefusesMalformedEncodings(t *testing.T) {
	for _, v := range []any{
		msgpack.RawMessage{}, msgpack.RawMessage("\x01\x02"), msgpack.RawMessage("\xc1"),
		struct{ R msgpack.RawMessage }{msgpack.RawMessage{}}, // writes a key without a value
	} {
		_, err := Append(nil, Msgpack{}, v)
		require.ErrorContains(t, err, "encode: msgpack: ")
	}
}

func TestMsgpack_IsSafeForConcurrentUse(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 { // end by themselves
		wg.Go(func() {
			for j := range 200 {
				v := user{Name: fmt.Sprint(i, j), Tags: []string{strconv.Itoa(i)}, Limits: map[string]int{"j": j}}
				wire, err := Append(nil, Msgpack{}, v)
				var got user
				if err != nil || Decode(Msgpack{}, wire, &got) != nil || !reflect.DeepEqual(v, got) {
					t.Errorf("%v came back as %v", v, got)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestDecode_DropsADecoderThatFailed(t *testing.T) {
	d := decoders.New().(*decoder)
	decoders.Put(d)
	require.Error(t, Decode(Msgpack{}, []byte("\x81\xa1A\x01"), new([]int)))
	require.Error(t, Decode(Msgpack{}, []byte("\xa1A"), new(int)))

	for range 4 {
		got := decoders.Get().(*decoder)
		_, err := got.src.ReadByte()
		require.Equal(t, io.EOF, err, "holds on to what it failed to decode")
	}
}

func TestPools_KeepNoHugeBuffers(t *testing.T) {
	runtime.GC()
	runtime.GC() // empties the pools
	huge := struct {
		S string
		A [4 * maxPooled]byte
	}{S: strings.Repeat("x", 4*maxPooled)}
	for range 10 {
		wire, err := Append(nil, Msgpack{}, huge)
		require.NoError(t, err)
		require.NoError(t, Decode(Msgpack{}, wire, &huge))
	}

	for range 10 {
		e, d := encoders.Get().(*encoder), decoders.Get().(*decoder)
		require.Empty(t, e.out)
		require.LessOrEqual(t, reflect.ValueOf(e.msgpack).Elem().FieldByName("buf").Cap(), maxPooled)
		require.LessOrEqual(t, reflect.ValueOf(d.msgpack).Elem().FieldByName("buf").Cap(), maxPooled)
	}
}

func TestPools_KeepNoSettings(t *testing.T) {
	wire, err := Append(nil, Msgpack{}, meddler{})
	require.NoError(t, err)
	require.NoError(t, Decode(Msgpack{}, wire, &meddler{}))

	requireRoundTrip(t, Msgpack{}, any(map[string]any{"n": int32(5)})) // with the encoder and decoder that a meddler had
}

// meddler changes the settings of the encoder and decoder it is given.
type meddler struct{}

func (meddler) EncodeMsgpack(enc *msgpack.Encoder) error {
	enc.UseCompactInts(true)
	return enc.EncodeBool(true)
}

func (*meddler) DecodeMsgpack(dec *msgpack.Decoder) error {
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
	b.Run("Append", func(b *testing.B) {
		b.ReportAllocs()
		var wire []byte
		for b.Loop() {
			wire, _ = Append(wire[:0], Msgpack{}, v)
		}
	})
	b.Run("Msgpack.Marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Msgpack{}.Marshal(v)
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
	wire, err := Append(nil, Msgpack{}, someBenchRecord)
	require.NoError(b, err)
	for _, bb := range []struct {
		name   string
		decode func([]byte, any) error
	}{
		{"Decode", func(wire []byte, v any) error { return Decode(Msgpack{}, wire, v) }},
		{"Msgpack.Unmarshal", Msgpack{}.Unmarshal},
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
