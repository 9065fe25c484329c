package compress_test

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	s2lib "github.com/klauspost/compress/s2"
	zstdlib "github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/compress"
	"github.com/readthrough-go/readthrough/encrypt"
)

func TestCodecs_GiveBackWhatTheyWereGiven(t *testing.T) {
	for name, wrap := range algorithms(t) {
		t.Run(name, func(t *testing.T) {
			for _, inner := range []readthrough.Codec{readthrough.JSON, readthrough.Msgpack} {
				c := wrap(inner, compress.WithMinBytes(0))
				for n := range 20 {
					requireReads(t, c, marshal(t, c, orderOf(n)), orderOf(n))
					requireReads(t, c, marshal(t, c, userOf(n)), userOf(n))
					requireReads(t, c, marshal(t, c, productsOf(n)), productsOf(n))
					requireReads(t, c, marshal(t, c, textOf(n)), textOf(n))
				}
				requireReads(t, c, marshal(t, c, (*orderDoc)(nil)), (*orderDoc)(nil))
				requireReads(t, c, marshal(t, c, strings.Repeat("ab", 1<<20)), strings.Repeat("ab", 1<<20))
			}
			raw := wrap(readthrough.Raw, compress.WithMinBytes(0))
			requireReads(t, raw, marshal(t, raw, []byte(nil)), []byte(nil))
			for _, n := range []int{0, 1, 7, 255, 256, 1024, 65_535 + 256, 128 << 10, 128<<10 + 1, 3 << 20} {
				requireReads(t, raw, marshal(t, raw, zeros(n)), zeros(n))
				requireReads(t, raw, marshal(t, raw, noise(n)), noise(n))
			}
		})
	}
}

func TestCodecs_CompressFromASizeOnAndOnlyIfSmaller(t *testing.T) {
	for name, first := range map[string]byte{"zstd": zstd1, "s2": s2} {
		t.Run(name, func(t *testing.T) {
			wrap := algorithms(t)[name]
			c := wrap(readthrough.Raw)
			require.Equal(t, append([]byte{stored}, zeros(511)...), marshal(t, c, zeros(511)), "the default of WithMinBytes is 512")
			require.Equal(t, append([]byte{stored}, noise(4096)...), marshal(t, c, noise(4096)))
			require.Equal(t, []byte{stored}, marshal(t, c, []byte{}))
			require.Nil(t, marshal(t, c, []byte(nil)))

			b := marshal(t, c, zeros(512))
			require.Equal(t, first, b[0])
			require.Less(t, len(b), 40)

			require.Equal(t, first, marshal(t, wrap(readthrough.Raw, compress.WithMinBytes(64)), zeros(64))[0])
			require.Equal(t, byte(stored), marshal(t, wrap(readthrough.Raw, compress.WithMinBytes(513)), zeros(512))[0])
		})
	}
}

func TestCodecs_ReadEachOther(t *testing.T) {
	zstd, s2 := compress.Zstd(readthrough.JSON), compress.S2(readthrough.JSON)
	requireReads(t, s2, marshal(t, zstd, orderOf(1)), orderOf(1))
	requireReads(t, zstd, marshal(t, s2, orderOf(1)), orderOf(1))
	requireReads(t, s2, marshal(t, zstd, 7), 7)
}

func TestUnmarshal_RefusesWhatIsNoFrame(t *testing.T) {
	frame := marshal(t, compress.Zstd(readthrough.JSON), orderOf(1))
	block := marshal(t, compress.S2(readthrough.JSON), orderOf(1))
	with := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	skippable := []byte{zstd1, 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}
	for name, data := range map[string][]byte{
		"nothing":                    {},
		"a first byte of no meaning": {0xfb, 1, 2, 3},
		"plain JSON":                 marshal(t, readthrough.JSON, orderOf(1)),
		"plain msgpack":              marshal(t, readthrough.Msgpack, orderOf(1)),
		"plain text":                 []byte(textOf(1)),
		"an empty frame":             {zstd1},
		"an empty block":             {s2},
		"half a frame":               frame[:len(frame)/2],
		"half a block":               block[:len(block)/2],
		"a frame and more":           append(bytes.Clone(frame), 0),
		"two frames":                 append(bytes.Clone(frame), frame[1:]...),
		"a skippable frame":          skippable,
		"a skippable frame before":   append(skippable, frame[1:]...),
		"the checksum of others":     with(frame, len(frame)-1),
		"the algorithm of another":   append([]byte{s2}, frame[1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			var o orderDoc
			require.Error(t, compress.Zstd(readthrough.JSON).Unmarshal(data, &o))
			require.Error(t, compress.S2(readthrough.JSON).Unmarshal(data, &o))
			require.Zero(t, o)
		})
	}
	for at := range frame { // a flipped bit that is not noticed cannot change what comes out
		var o orderDoc
		if err := compress.Zstd(readthrough.JSON).Unmarshal(with(frame, at), &o); err == nil {
			require.Equal(t, orderOf(1), o, "byte %d", at)
		}
	}
}

// frameOf returns a frame that another program has made.
func frameOf(t *testing.T, value []byte, opts ...zstdlib.EOption) []byte {
	t.Helper()
	e, err := zstdlib.NewWriter(nil, append(opts, zstdlib.WithEncoderConcurrency(1), zstdlib.WithSingleSegment(true))...)
	require.NoError(t, err)
	return e.EncodeAll(value, []byte{zstd1})
}

func TestUnmarshal_WantsOneFrameWithAChecksum(t *testing.T) {
	c, value := compress.Zstd(readthrough.Raw), []byte(textOf(1))
	requireReads(t, c, frameOf(t, value), value)
	for name, data := range map[string][]byte{
		"no checksum":         frameOf(t, value, zstdlib.WithEncoderCRC(false)),
		"another frame":       append(frameOf(t, value), frameOf(t, value)[1:]...),
		"another small frame": append(frameOf(t, value), frameOf(t, []byte("more"))[1:]...),
	} {
		var got []byte
		require.Error(t, c.Unmarshal(data, &got), name)
		require.Nil(t, got, name)
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestUnmarshal_RefusesABombBeforeItAllocates(t *testing.T) {
	const size = 64 << 20
	var stream bytes.Buffer // a stream does not say how large it is
	w, err := zstdlib.NewWriter(&stream)
	require.NoError(t, err)
	for range size >> 20 {
		_, err = w.Write(zeros(1 << 20))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	frame := frameOf(t, zeros(size))[1:]
	liar := bytes.Clone(frame) // says 8 MiB, the most that is allowed, and has 64: found when the next block is at hand
	require.Equal(t, uint32(size), binary.LittleEndian.Uint32(liar[5:]), "the content size of the frame")
	binary.LittleEndian.PutUint32(liar[5:], 8<<20)
	short := append(bytes.Clone(liar[:9]), 1, 0, 0, 0, 0, 0, 0) // says 8 MiB, and has nothing

	for name, bomb := range map[string]struct {
		data []byte
		most uint64
	}{
		"zstd":                    {append([]byte{zstd1}, frame...), 64 << 10},
		"zstd, size untold":       {append([]byte{zstd1}, stream.Bytes()...), 64 << 10},
		"zstd that lies":          {append([]byte{zstd1}, liar...), 20 << 20},
		"zstd that lies, briefly": {append([]byte{zstd1}, short...), 1 << 20},
		"s2":                      {append([]byte{s2}, s2lib.Encode(nil, zeros(size))...), 64 << 10},
		"s2 of 4 GiB":             {[]byte{s2, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0}, 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			c := compress.Zstd(readthrough.Raw)
			var got []byte
			requireReads(t, c, marshal(t, c, zeros(1<<20)), zeros(1<<20)) // a decoder is at hand
			least := uint64(1 << 62)
			for range 5 { // the pool may have to make a decoder, and the runtime allocates too
				least = min(least, allocated(func() { require.Error(t, c.Unmarshal(bomb.data, &got)) }))
			}
			require.LessOrEqual(t, least, bomb.most)
			require.Nil(t, got)
		})
	}
}

func TestMaxBytes_BoundsBothDirections(t *testing.T) {
	for name, wrap := range algorithms(t) {
		t.Run(name, func(t *testing.T) {
			small, large := wrap(readthrough.Raw, compress.WithMaxBytes(1000)), wrap(readthrough.Raw)
			requireReads(t, small, marshal(t, large, zeros(1000)), zeros(1000))
			var got []byte
			require.ErrorContains(t, small.Unmarshal(marshal(t, large, zeros(1001)), &got), "1001 bytes when decompressed, more than the 1000 of WithMaxBytes")
			_, err := small.Marshal(zeros(1001))
			require.EqualError(t, err, "compress: the value has 1001 bytes, more than the 1000 of WithMaxBytes")
		})
	}
}

func TestDictionary_HalvesSmallValues(t *testing.T) {
	small := compress.WithMinBytes(64)
	var plain, none, content, trained4k int
	for n := range 50 {
		plain += len(marshal(t, readthrough.JSON, orderOf(n)))
		none += len(marshal(t, compress.Zstd(readthrough.JSON, small), orderOf(n)))
		content += len(marshal(t, compress.Zstd(readthrough.JSON, small, compress.WithDictionary(1, dictionary(t, 16<<10))), orderOf(n)))
		trained4k += len(marshal(t, compress.Zstd(readthrough.JSON, small, compress.WithDictionary(7, trained(t))), orderOf(n)))
	}
	require.Less(t, none, plain*2/3)
	require.Less(t, content, none*6/10)
	require.Less(t, trained4k, none*6/10)
}

func TestDictionary_FirstWritesAndAllRead(t *testing.T) {
	older, newer := compress.WithDictionary(1, dictionary(t, 4096)), compress.WithDictionary(7, trained(t))
	before := compress.Zstd(readthrough.JSON, older)
	during := compress.Zstd(readthrough.JSON, older, newer)
	then := compress.Zstd(readthrough.JSON, newer, older)
	after := compress.Zstd(readthrough.JSON, newer)

	requireReads(t, during, marshal(t, then, orderOf(1)), orderOf(1))
	requireReads(t, then, marshal(t, before, orderOf(1)), orderOf(1))
	requireReads(t, before, marshal(t, during, orderOf(1)), orderOf(1))
	requireReads(t, after, marshal(t, then, orderOf(1)), orderOf(1))
	requireReads(t, compress.S2(readthrough.JSON, older), marshal(t, before, orderOf(1)), orderOf(1))
	requireReads(t, after, marshal(t, compress.Zstd(readthrough.JSON), orderOf(1)), orderOf(1))

	var o orderDoc
	require.ErrorIs(t, after.Unmarshal(marshal(t, before, orderOf(1)), &o), zstdlib.ErrUnknownDictionary)
	require.Error(t, compress.Zstd(readthrough.JSON).Unmarshal(marshal(t, before, orderOf(1)), &o))
	other := dictionary(t, 8192)[4096:]
	require.Error(t, compress.Zstd(readthrough.JSON, compress.WithDictionary(1, other)).Unmarshal(marshal(t, before, orderOf(1)), &o))
}

func TestDictionary_BelongsToTheCodec(t *testing.T) {
	dict := dictionary(t, 4096)
	given := bytes.Clone(dict)
	c := compress.Zstd(readthrough.JSON, compress.WithDictionary(1, given))
	clear(given)
	require.Less(t, len(marshal(t, c, orderOf(1))), len(marshal(t, compress.Zstd(readthrough.JSON), orderOf(1)))*2/3)
	requireReads(t, compress.Zstd(readthrough.JSON, compress.WithDictionary(1, dict)), marshal(t, c, orderOf(1)), orderOf(1))
}

func TestOptions_SayWhatIsWrong(t *testing.T) {
	damaged := append(bytes.Clone(trained(t)[:20]), noise(500)...)
	for want, opts := range map[string][]compress.Option{
		"compress: WithMinBytes: -1 is negative":                          {compress.WithMinBytes(-1)},
		"compress: WithMaxBytes: 0 is not from 1 to 536870912":            {compress.WithMaxBytes(0)},
		"compress: WithMaxBytes: 536870913 is not from 1 to 536870912":    {compress.WithMaxBytes(512<<20 + 1)},
		"compress: WithDictionary: the id is 0":                           {compress.WithDictionary(0, dictionary(t, 100))},
		"compress: WithDictionary: 7 bytes are not from 8 to 262144":      {compress.WithDictionary(1, dictionary(t, 7))},
		"compress: WithDictionary: 262145 bytes are not from 8 to 262144": {compress.WithDictionary(1, dictionary(t, 262145))},
		"compress: WithDictionary: the dictionary has the id 7, not 8":    {compress.WithDictionary(8, trained(t))},
		"compress: WithDictionary: two dictionaries with the id 7":        {compress.WithDictionary(7, trained(t)), compress.WithDictionary(7, dictionary(t, 100))},
		"compress: WithDictionary: loading literal table: ":               {compress.WithDictionary(7, damaged)},
	} {
		c := compress.Zstd(readthrough.JSON, opts...)
		_, err := c.Marshal(1)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, c.Unmarshal([]byte{stored, '1'}, new(int)), want)
		require.ErrorContains(t, checkType[int](c), want)
	}
	require.EqualError(t, checkType[int](compress.S2(nil)), "compress: the inner codec is nil")
}

// checkType asks c whether it can keep values of type V.
func checkType[V any](c readthrough.Codec) error {
	return c.(interface{ CheckType(reflect.Type) error }).CheckType(reflect.TypeFor[V]())
}

// picky is a codec that keeps integers only.
type picky struct{ readthrough.Codec }

func (picky) CodecName() string { return "picky" }
func (picky) CheckType(t reflect.Type) error {
	if t.Kind() != reflect.Int {
		return readthrough.ErrMiss
	}
	return nil
}

func TestCodecs_SpeakForTheInnerOne(t *testing.T) {
	c := compress.Zstd(picky{readthrough.JSON})
	require.NoError(t, checkType[int](c))
	require.ErrorIs(t, checkType[string](c), readthrough.ErrMiss)
	require.NoError(t, checkType[string](compress.S2(struct{ readthrough.Codec }{readthrough.JSON})))
	require.Equal(t, "compress(picky)", c.(interface{ CodecName() string }).CodecName())
}

func TestCodecs_AreForManyGoroutines(t *testing.T) {
	for name, wrap := range algorithms(t) {
		t.Run(name, func(t *testing.T) {
			c := wrap(readthrough.JSON, compress.WithMinBytes(0))
			var group sync.WaitGroup
			for g := range 8 {
				group.Go(func() {
					for n := range 30 {
						requireReads(t, c, marshal(t, c, orderOf(100*g+n)), orderOf(100*g+n))
						_ = c.Unmarshal([]byte{zstd1, 0x28, 0xb5, 0x2f, 0xfd, 0x24, 9, 1, 2, 3}, new(orderDoc))
					}
				})
			}
			group.Wait()
		})
	}
}

func TestZstd_CompressesInsideAnEncryption(t *testing.T) {
	key, err := encrypt.NewKey(1, noise(32))
	require.NoError(t, err)
	sizes := make(map[bool]int)
	for compressed, inner := range map[bool]readthrough.Codec{false: readthrough.JSON, true: compress.Zstd(readthrough.JSON)} {
		c, err := encrypt.New(inner, key)
		require.NoError(t, err)
		data, err := c.MarshalKey("k", productsOf(1))
		require.NoError(t, err)
		sizes[compressed] = len(data)
		var got []product
		require.NoError(t, c.UnmarshalKey("k", data, &got))
		require.Equal(t, productsOf(1), got)

		_, err = compress.Zstd(c).Marshal(productsOf(1)) // the other way around, the key is not told
		require.ErrorContains(t, err, "can only be the outermost codec")
	}
	require.Less(t, sizes[true], sizes[false]/2)
}
