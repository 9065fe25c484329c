// Package compress is a codec that compresses what another codec makes of a value.
//
//	orders, err := readthrough.New(cache, "order", findOrder, readthrough.Int,
//		readthrough.WithCodec(compress.Zstd(readthrough.JSON)))
//
// Zstd makes values smallest, S2 costs least time: docs/codecs.md measures both. Either reads what
// the other has written, so that a fleet may change from one to the other. What neither has written
// is an error of Unmarshal, which makes the entry a miss; so is what would decompress to more than
// WithMaxBytes, which is found before the memory for it is allocated.
package compress

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/readthrough-go/readthrough"
)

// The first byte of what is stored says what the rest is. These bytes do not occur in UTF-8, so that
// no text or JSON that was stored before compression is taken for a frame.
const (
	frameStored byte = 0xf8 + iota // the bytes of the inner codec as they are
	frameZstd                      // one frame of Zstandard (RFC 8878)
	frameS2                        // one block of S2
)

var errFrame = errors.New("compress: not written by this codec")

// Zstd returns a codec that compresses what inner makes of a value with Zstandard (RFC 8878). A
// wrong option is an error of all that is done with the codec.
func Zstd(inner readthrough.Codec, opts ...Option) readthrough.Codec {
	c := newCodec(inner, opts)
	c.compress = func(dst, plain []byte) []byte { return c.coders.encode(append(dst, frameZstd), plain) }
	return c
}

// S2 returns a codec that compresses what inner makes of a value with S2, an extension of Snappy. A
// wrong option is an error of all that is done with the codec.
func S2(inner readthrough.Codec, opts ...Option) readthrough.Codec {
	c := newCodec(inner, opts)
	c.compress = func(dst, plain []byte) []byte {
		dst = slices.Grow(append(dst, frameS2), s2.MaxEncodedLen(len(plain)))
		block := s2.Encode(dst[len(dst):cap(dst)], plain)
		return dst[:len(dst)+len(block)]
	}
	return c
}

// codec is a readthrough.Codec around another.
type codec struct {
	settings
	inner    readthrough.Codec
	coders   *coders
	compress func(dst, plain []byte) []byte // appends the frame of plain to dst
	err      error                          // of the options
}

func newCodec(inner readthrough.Codec, opts []Option) *codec {
	c := &codec{settings: settings{minBytes: 512, maxBytes: 8 << 20}, inner: inner}
	if inner == nil {
		c.err = errors.New("compress: the inner codec is nil")
	}
	for _, opt := range opts {
		c.err = errors.Join(c.err, opt(&c.settings))
	}
	c.coders = plainCoders
	if len(c.dictionaries) > 0 {
		c.coders = newCoders(c.dictionaries)
	}
	return c
}

// Marshal returns the bytes of the inner codec in a frame. It fails where Unmarshal would refuse
// what it returned, while there is still somebody to tell.
func (c *codec) Marshal(v any) ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	plain, err := c.inner.Marshal(v)
	if err != nil || plain == nil { // what is nil is to come back as nil
		return nil, err
	}
	switch n := len(plain); {
	case n > c.maxBytes:
		return nil, fmt.Errorf("compress: the value has %d bytes, more than the %d of WithMaxBytes", n, c.maxBytes)
	case n >= c.minBytes:
		if frame := c.compress(make([]byte, 0, n+1), plain); len(frame) <= n {
			return frame, nil
		}
	}
	return slices.Insert(plain, 0, frameStored), nil
}

// Unmarshal sets what v points to from a frame.
func (c *codec) Unmarshal(data []byte, v any) error {
	if c.err != nil {
		return c.err
	}
	plain, err := c.decompress(data)
	if err != nil {
		return err
	}
	return c.inner.Unmarshal(plain, v)
}

// decompress returns the bytes of the inner codec, which are nil only if data are.
func (c *codec) decompress(data []byte) ([]byte, error) {
	if data == nil {
		return nil, nil
	}
	if len(data) == 0 {
		return nil, errFrame
	}
	switch body := data[1:]; data[0] {
	case frameStored:
		return body, nil
	case frameZstd:
		return c.coders.decode(body, c.maxBytes)
	case frameS2:
		n, err := s2.DecodedLen(body)
		if err != nil {
			return nil, err
		}
		if n > c.maxBytes {
			return nil, errTooLarge(uint64(n), c.maxBytes)
		}
		return s2.Decode(make([]byte, n), body)
	}
	return nil, errFrame
}

// CheckType returns the error of a wrong option, or an error if the inner codec says that it cannot
// keep values of type t.
func (c *codec) CheckType(t reflect.Type) error {
	if c.err != nil {
		return c.err
	}
	if inner, ok := c.inner.(interface{ CheckType(reflect.Type) error }); ok {
		return inner.CheckType(t)
	}
	return nil
}

// CodecName returns the name of the format, which is one whatever the algorithm: that of the inner
// codec, compressed.
func (c *codec) CodecName() string {
	if inner, ok := c.inner.(interface{ CodecName() string }); ok {
		return "compress(" + inner.CodecName() + ")"
	}
	return fmt.Sprintf("compress(%T)", c.inner)
}
