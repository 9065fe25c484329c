package compress

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// window is how far back the encoder looks. An encoder keeps a buffer of about that size.
	window = 1 << 20
	// maxDictionary leaves most of the window to the value.
	maxDictionary = window / 4
	// maxPerByte is what one byte of a frame decompresses to at most: a block of 128 KiB has 4 bytes
	// or more.
	maxPerByte = 128 << 10 / 4
	// slack is what the decoder likes to have behind its output, to write past the end.
	slack = 16
)

// coders are pools of encoders and decoders for one list of dictionaries. Neither kind has
// goroutines: those are for streams.
type coders struct{ encoders, decoders sync.Pool }

// plainCoders are those of all codecs without a dictionary.
var plainCoders = newCoders(nil)

func newCoders(dictionaries []dictionary) *coders {
	c := new(coders)
	c.encoders.New = func() any { return must(zstd.NewWriter(nil, encoderOptions(dictionaries)...)) }
	c.decoders.New = func() any { return must(zstd.NewReader(nil, decoderOptions(dictionaries)...)) }
	return c
}

// must returns v: the options were checked when they were given.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func encoderOptions(dictionaries []dictionary) []zstd.EOption {
	opts := []zstd.EOption{
		zstd.WithEncoderConcurrency(1),
		zstd.WithSingleSegment(true), // so that each frame says how large its content is
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(window),
		zstd.WithLowerEncoderMem(true),
	}
	if len(dictionaries) == 0 {
		return opts
	}
	d := dictionaries[0]
	opts = append(opts, zstd.WithEncoderLevel(zstd.SpeedFastest)) // measured: as small as Default with it, in less time
	if d.trained {
		return append(opts, zstd.WithEncoderDict(d.bytes))
	}
	return append(opts, zstd.WithEncoderDictRaw(d.id, d.bytes))
}

func decoderOptions(dictionaries []dictionary) []zstd.DOption {
	opts := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true)}
	for _, d := range dictionaries {
		if d.trained {
			opts = append(opts, zstd.WithDecoderDicts(d.bytes))
		} else {
			opts = append(opts, zstd.WithDecoderDictRaw(d.id, d.bytes))
		}
	}
	return opts
}

// check returns an error if the dictionary cannot be used.
func (d dictionary) check() error {
	if _, err := zstd.NewWriter(nil, encoderOptions([]dictionary{d})...); err != nil {
		return err
	}
	_, err := zstd.NewReader(nil, decoderOptions([]dictionary{d})...)
	return err
}

// encode appends the frame of plain to dst.
func (c *coders) encode(dst, plain []byte) []byte {
	e := c.encoders.Get().(*zstd.Encoder)
	defer c.encoders.Put(e)
	return e.EncodeAll(plain, dst)
}

// decode returns the content of a frame, if it is at most limit bytes. Its checksum tells a frame
// that was damaged, or made with other bytes under the id of a dictionary.
func (c *coders) decode(frame []byte, limit int) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return nil, err
	}
	if !h.HasFCS || !h.HasCheckSum {
		return nil, errFrame
	}
	if h.FrameContentSize > uint64(limit) {
		return nil, errTooLarge(h.FrameContentSize, limit)
	}
	n := int(h.FrameContentSize)
	d := c.decoders.Get().(*zstd.Decoder)
	defer c.decoders.Put(d)
	plain, err := d.DecodeAll(frame, make([]byte, 0, min(n, maxPerByte*len(frame))+slack))
	if err == nil && len(plain) != n { // another frame follows
		return nil, errFrame
	}
	return plain, err
}

// errTooLarge is the error of a value that would decompress to size bytes.
func errTooLarge(size uint64, limit int) error {
	return fmt.Errorf("compress: %d bytes when decompressed, more than the %d of WithMaxBytes", size, limit)
}
