package entry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	loadedAt   = time.UnixMilli(0x010203040506)
	freshUntil = time.UnixMilli(0x0a0b0c0d0e0f)
)

// encode returns the bytes of e with its Value.
func encode(t testing.TB, e Entry) []byte {
	t.Helper()
	b, err := Append(nil, &e, func(dst []byte) ([]byte, error) { return append(dst, e.Value...), nil })
	require.NoError(t, err)
	return b
}

func TestAppend_WritesTheDocumentedBytes(t *testing.T) {
	e := &Entry{LoadedAt: loadedAt, FreshUntil: freshUntil, LoadTime: 0x1234 * time.Millisecond, Version: 7, Identity: 0x11223344}
	b, err := Append([]byte("before"), e, func(dst []byte) ([]byte, error) { return append(dst, 0xa1, 'x'), nil })
	require.NoError(t, err)
	summed := []byte{0x12, 0x34, 0, 7, 0x11, 0x22, 0x33, 0x44, 0xa1, 'x'}
	sum := crc32.Checksum(append([]byte{0x01, 0x02, 0x03, 0x04, 0x05, 0x06}, summed...), crc32.MakeTable(crc32.Castagnoli))
	require.Equal(t, slices.Concat(
		[]byte("before"),
		[]byte{0x92, 0xc7, 0x19, 0x52, 3},
		[]byte{0x01, 0x02, 0x03, 0x04, 0x05, 0x06},
		[]byte{0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f},
		binary.BigEndian.AppendUint32(nil, sum),
		summed,
	), b)
	require.Len(t, b, len("before")+HeaderSize+2)

	failure := errors.New("cannot be encoded")
	_, err = Append(nil, e, func([]byte) ([]byte, error) { return nil, failure })
	require.ErrorIs(t, err, failure)
}

func TestAppend_PutsTheReasonOfANegativeEntryInTheFlags(t *testing.T) {
	b := encode(t, Entry{LoadedAt: loadedAt, Negative: true, Reason: 5})
	require.Equal(t, byte(1|5<<1), b[23])
	require.Equal(t, []byte{0xc0}, b[HeaderSize:])

	e, err := Parse(b)
	require.NoError(t, err)
	require.True(t, e.Negative)
	require.EqualValues(t, 5, e.Reason)
}

func TestParse_GivesBackWhatWasAppended(t *testing.T) {
	for name, want := range map[string]Entry{
		"all set": {LoadedAt: loadedAt, FreshUntil: freshUntil, LoadTime: 7 * time.Millisecond, Version: 255,
			Identity: math.MaxUint32, Value: []byte{0x01}},
		"never stale":      {LoadedAt: loadedAt, Value: []byte{0xa1, 'x'}},
		"negative":         {LoadedAt: loadedAt, FreshUntil: freshUntil, Negative: true, Identity: 9, Value: []byte{0xc0}},
		"largest reason":   {LoadedAt: loadedAt, Negative: true, Reason: MaxReason, Value: []byte{0xc0}},
		"nil is a value":   {LoadedAt: loadedAt, Value: []byte{0xc0}},
		"longest load":     {LoadedAt: loadedAt, LoadTime: math.MaxUint16 * time.Millisecond, Value: []byte{0x01}},
		"start of the era": {LoadedAt: time.UnixMilli(0), FreshUntil: time.UnixMilli(1), Value: []byte{0x01}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(encode(t, want))
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestAppend_ClampsTimesOutOfRange(t *testing.T) {
	e, err := Parse(encode(t, Entry{
		LoadedAt:   time.UnixMilli(-5),
		FreshUntil: time.UnixMilli(1 << 60),
		LoadTime:   time.Hour,
		Value:      []byte{0x01},
	}))
	require.NoError(t, err)
	require.Equal(t, time.UnixMilli(0), e.LoadedAt)
	require.Equal(t, time.UnixMilli(never-1), e.FreshUntil, "a wild clock must not make the entry immortal")
	require.Equal(t, math.MaxUint16*time.Millisecond, e.LoadTime)

	e, err = Parse(encode(t, Entry{LoadedAt: loadedAt, LoadTime: -time.Second, Value: []byte{0x01}}))
	require.NoError(t, err)
	require.Zero(t, e.LoadTime)
}

// TestParse_FindsEveryBitFlip flips each bit of an entry: but for those of freshUntil, which Redis
// changes in place, none goes unnoticed.
func TestParse_FindsEveryBitFlip(t *testing.T) {
	for name, e := range map[string]Entry{
		"value":    {LoadedAt: loadedAt, FreshUntil: freshUntil, LoadTime: time.Second, Value: []byte("\xa5hello")},
		"negative": {LoadedAt: loadedAt, FreshUntil: freshUntil, Negative: true, Reason: 2},
	} {
		good := encode(t, e)
		for bit := range 8 * len(good) {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			_, err := Parse(b)
			inFreshUntil := bit/8 >= FreshUntilOffset && bit/8 < FreshUntilOffset+6
			require.Equal(t, inFreshUntil, err == nil, "%s, bit %d", name, bit)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, size := range []int{16, 200, 4096, 64 << 10} {
		v3 := encode(b, Entry{LoadedAt: loadedAt, FreshUntil: freshUntil, Value: bytes.Repeat([]byte{'x'}, size)})
		v1 := slices.Concat([]byte(MagicV1), make([]byte, headerSizeV1-len(MagicV1)), v3[HeaderSize:])
		for name, wire := range map[string][]byte{"checksum": v3, "none": v1} {
			b.Run(fmt.Sprintf("%d,%s", size, name), func(b *testing.B) {
				for b.Loop() {
					if _, err := Parse(wire); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func TestFresh_EndsAtFreshUntil(t *testing.T) {
	e := Entry{FreshUntil: freshUntil}
	require.True(t, e.Fresh(freshUntil.Add(-time.Millisecond)))
	require.False(t, e.Fresh(freshUntil))
	require.True(t, (&Entry{}).Fresh(freshUntil), "no freshUntil: never stale")
}

func TestParse_RefusesWhatIsNoEntry(t *testing.T) {
	good := encode(t, Entry{LoadedAt: loadedAt, Value: []byte{0x01}})
	negative := encode(t, Entry{LoadedAt: loadedAt, Negative: true})
	goodV1 := append([]byte(MagicV1), make([]byte, headerSizeV1-len(MagicV1)+1)...)
	with := func(b []byte, at int, to ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], to)
		if string(b[:len(Magic)]) == Magic {
			binary.BigEndian.PutUint32(b[checksumOffset:], checksum(b, b[PrimaryOffset:]))
		}
		return b
	}
	stamped := stamp(good)
	rows := map[string][]byte{
		"no array":                with(good, 0, 0x93),
		"no ext8":                 with(good, 1, 0xd7),
		"another length":          with(good, 2, 0x18),
		"another ext type":        with(good, 3, 0x53),
		"another format":          with(good, 4, 2),
		"unknown flag":            with(good, 23, 2),
		"unknown flag of v1":      with(goodV1, 4, 2),
		"negative without nil":    with(good, 23, 1),
		"negative with more":      with(append(bytes.Clone(negative), 0xc0), 0),
		"stamped, no ext8":        with(stamped, 1, 0xc8),
		"stamped, another length": with(stamped, 2, 0x42),
		"stamped, version 1":      with(stamped, 4, 1),
		"a value of another kind": []byte("plain text of a good length for a header"),
	}
	for n := range good {
		rows[fmt.Sprintf("cut to %d", n)] = good[:n]
	}
	for n := range stamped {
		rows[fmt.Sprintf("stamped, cut to %d", n)] = stamped[:n]
	}
	for n := range goodV1 {
		rows[fmt.Sprintf("v1 cut to %d", n)] = goodV1[:n]
	}
	for name, b := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(b)
			require.True(t, errors.Is(err, ErrFormat) || errors.Is(err, ErrChecksum) && strings.Contains(name, "cut"))
		})
	}
	_, err := Parse(goodV1)
	require.NoError(t, err)
	plain, err := Parse(good)
	require.NoError(t, err)
	again, err := Parse(stamped)
	require.NoError(t, err)
	require.Equal(t, plain, again)
}

// TestEntry_IsMsgpackForEveryone reads an entry as a program would that knows
// msgpack and nothing of this package.
func TestEntry_IsMsgpackForEveryone(t *testing.T) {
	value, err := msgpack.Marshal(map[string]any{"title": "Emma"})
	require.NoError(t, err)
	b := encode(t, Entry{LoadedAt: loadedAt, FreshUntil: freshUntil, Value: value})

	dec := msgpack.NewDecoder(bytes.NewReader(b))
	n, err := dec.DecodeArrayLen()
	require.NoError(t, err)
	require.Equal(t, 2, n)
	id, size, err := dec.DecodeExtHeader()
	require.NoError(t, err)
	require.EqualValues(t, 0x52, id)
	require.Equal(t, 25, size)
	require.NoError(t, dec.ReadFull(make([]byte, size)))
	v, err := dec.DecodeInterface()
	require.NoError(t, err)
	require.Equal(t, map[string]any{"title": "Emma"}, v)
}

// stamp returns an entry as Redis stores it, stamped.
func stamp(b []byte) []byte {
	return slices.Concat([]byte(StampedMagic), b[len(Magic):PrimaryOffset], bytes.Repeat([]byte("a"), PrimarySize), b[PrimaryOffset:])
}

func FuzzParse(f *testing.F) {
	f.Add(encode(f, Entry{LoadedAt: loadedAt, FreshUntil: freshUntil, LoadTime: time.Second, Value: []byte{0x01}}))
	f.Add(encode(f, Entry{LoadedAt: loadedAt, Negative: true, Reason: 3}))
	f.Add([]byte("\x92\xd8\x52\x01\x00aaaaaabbbbbbcc\x01"))
	f.Add([]byte{0x92, 0xd8, 0x52})
	f.Add(stamp(encode(f, Entry{LoadedAt: loadedAt, FreshUntil: freshUntil, Value: []byte{0x01}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		switch {
		case err != nil:
			require.True(t, errors.Is(err, ErrFormat) || errors.Is(err, ErrChecksum))
		case !e.V1: // every other entry that Parse accepts is one that Append writes, or Redis with a stamp
			if string(b[:len(StampedMagic)]) == StampedMagic {
				b = slices.Concat([]byte(Magic), b[len(Magic):PrimaryOffset], b[PrimaryOffset+PrimarySize:])
			}
			require.Equal(t, b, encode(t, e))
		}
	})
}
