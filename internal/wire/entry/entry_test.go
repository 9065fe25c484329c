package entry

import (
	"bytes"
	"math"
	"slices"
	"strconv"
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

func TestAppendHeader_WritesTheDocumentedBytes(t *testing.T) {
	b := AppendHeader([]byte("before"), &Entry{LoadedAt: loadedAt, FreshUntil: freshUntil, LoadTime: 0x1234 * time.Millisecond})
	require.Equal(t, []byte{
		'b', 'e', 'f', 'o', 'r', 'e',
		0x92, 0xd8, 0x52, 1, 0,
		0x01, 0x02, 0x03, 0x04, 0x05, 0x06,
		0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
		0x12, 0x34,
	}, b)
}

func TestAppendHeader_PutsTheReasonOfANegativeEntryInTheFlags(t *testing.T) {
	b := AppendHeader(nil, &Entry{LoadedAt: loadedAt, Negative: true, Reason: 5})
	require.Equal(t, byte(1|5<<1), b[4])
	require.Equal(t, []byte{0xc0}, b[HeaderSize:])

	e, err := Parse(b)
	require.NoError(t, err)
	require.True(t, e.Negative)
	require.EqualValues(t, 5, e.Reason)
}

func TestParse_GivesBackWhatWasAppended(t *testing.T) {
	for name, want := range map[string]Entry{
		"all set":          {LoadedAt: loadedAt, FreshUntil: freshUntil, LoadTime: 7 * time.Millisecond, Value: []byte{0x01}},
		"never stale":      {LoadedAt: loadedAt, Value: []byte{0xa1, 'x'}},
		"negative":         {LoadedAt: loadedAt, FreshUntil: freshUntil, Negative: true, Value: []byte{0xc0}},
		"largest reason":   {LoadedAt: loadedAt, Negative: true, Reason: MaxReason, Value: []byte{0xc0}},
		"nil is a value":   {LoadedAt: loadedAt, Value: []byte{0xc0}},
		"longest load":     {LoadedAt: loadedAt, LoadTime: math.MaxUint16 * time.Millisecond, Value: []byte{0x01}},
		"start of the era": {LoadedAt: time.UnixMilli(0), FreshUntil: time.UnixMilli(1), Value: []byte{0x01}},
	} {
		t.Run(name, func(t *testing.T) {
			b := AppendHeader(nil, &want)
			if !want.Negative {
				b = append(b, want.Value...)
			}
			got, err := Parse(b)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestAppendHeader_ClampsTimesOutOfRange(t *testing.T) {
	b := AppendHeader(nil, &Entry{
		LoadedAt:   time.UnixMilli(-5),
		FreshUntil: time.UnixMilli(1 << 60),
		LoadTime:   time.Hour,
	})
	e, err := Parse(append(b, 0x01))
	require.NoError(t, err)
	require.Equal(t, time.UnixMilli(0), e.LoadedAt)
	require.Equal(t, time.UnixMilli(never-1), e.FreshUntil, "a wild clock must not make the entry immortal")
	require.Equal(t, math.MaxUint16*time.Millisecond, e.LoadTime)

	b = AppendHeader(nil, &Entry{LoadedAt: loadedAt, LoadTime: -time.Second})
	e, err = Parse(append(b, 0x01))
	require.NoError(t, err)
	require.Zero(t, e.LoadTime)
}

func TestFresh_EndsAtFreshUntil(t *testing.T) {
	e := Entry{FreshUntil: freshUntil}
	require.True(t, e.Fresh(freshUntil.Add(-time.Millisecond)))
	require.False(t, e.Fresh(freshUntil))
	require.True(t, (&Entry{}).Fresh(freshUntil), "no freshUntil: never stale")
}

func TestParse_RefusesWhatIsNoEntry(t *testing.T) {
	good := append(AppendHeader(nil, &Entry{LoadedAt: loadedAt}), 0x01)
	negative := AppendHeader(nil, &Entry{LoadedAt: loadedAt, Negative: true})
	stamped := stamp(good)
	with := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	rows := map[string][]byte{
		"no array":                with(good, 0, 0x93),
		"no ext16":                with(good, 1, 0xd7),
		"another ext type":        with(good, 2, 0x53),
		"another version":         with(good, 3, 2),
		"unknown flag":            with(good, 4, 2),
		"stamped, no ext8":        with(stamped, 1, 0xc8),
		"stamped, another length": with(stamped, 2, 0x39),
		"stamped, version 1":      with(stamped, 4, 1),
		"stamped, unknown flag":   with(stamped, 5, 2),
		"negative without nil":    with(good, 4, 1),
		"negative with more":      append(bytes.Clone(negative), 0xc0),
		"a value of another kind": []byte("plain text of a good length for a header"),
	}
	for n := range good {
		rows["cut to "+string(rune('0'+n/10))+string(rune('0'+n%10))] = good[:n]
	}
	for n := range stamped {
		rows["stamped, cut to "+strconv.Itoa(n)] = stamped[:n]
	}
	for name, b := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(b)
			require.ErrorIs(t, err, ErrFormat)
		})
	}
}

// TestEntry_IsMsgpackForEveryone reads an entry as a program would that knows
// msgpack and nothing of this package.
func TestEntry_IsMsgpackForEveryone(t *testing.T) {
	value, err := msgpack.Marshal(map[string]any{"title": "Emma"})
	require.NoError(t, err)
	b := append(AppendHeader(nil, &Entry{LoadedAt: loadedAt, FreshUntil: freshUntil}), value...)

	dec := msgpack.NewDecoder(bytes.NewReader(b))
	n, err := dec.DecodeArrayLen()
	require.NoError(t, err)
	require.Equal(t, 2, n)
	id, size, err := dec.DecodeExtHeader()
	require.NoError(t, err)
	require.EqualValues(t, 0x52, id)
	require.Equal(t, 16, size)
	require.NoError(t, dec.ReadFull(make([]byte, size)))
	v, err := dec.DecodeInterface()
	require.NoError(t, err)
	require.Equal(t, map[string]any{"title": "Emma"}, v)
}

// stamp returns an entry as Redis stores it, stamped.
func stamp(b []byte) []byte {
	return slices.Concat([]byte(StampedMagic), b[len(Magic):HeaderSize], bytes.Repeat([]byte("a"), PrimarySize), b[HeaderSize:])
}

func FuzzParse(f *testing.F) {
	f.Add(append(AppendHeader(nil, &Entry{LoadedAt: loadedAt, FreshUntil: freshUntil, LoadTime: time.Second}), 0x01))
	f.Add(AppendHeader(nil, &Entry{LoadedAt: loadedAt, Negative: true, Reason: 3}))
	f.Add([]byte{0x92, 0xd8, 0x52})
	f.Add(stamp(append(AppendHeader(nil, &Entry{LoadedAt: loadedAt, FreshUntil: freshUntil}), 0x01)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		// Every header that Parse accepts is one that AppendHeader writes, or Redis with a stamp.
		if string(b[:len(StampedMagic)]) == StampedMagic {
			b = slices.Concat([]byte(Magic), b[len(StampedMagic):StampedHeaderSize-PrimarySize], b[StampedHeaderSize:])
		}
		again := AppendHeader(nil, &e)
		if !e.Negative {
			again = append(again, e.Value...)
		}
		require.Equal(t, b, again)
	})
}
