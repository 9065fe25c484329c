// Package wellformed makes bytes of unknown origin safe to be decoded by msgpack v5.
//
// A decoder that believes the lengths it reads can be made to allocate gigabytes by an array header of five bytes, and
// one that recurses can be made to exhaust its stack by a run of 0x91. Both end the process and neither can be recovered
// from, so [Check] looks at the bytes before a decoder does.
//
// One hole is left that no look at the bytes alone can close, because it depends on the type decoded into: where msgpack
// v5 wants a map and finds an ext, it drops the header of the ext and reads on inside the body, which is opaque and may
// declare any length and any depth. [Reader] closes it while the decoder reads.
package wellformed

import (
	"encoding/binary"
	"errors"
	"io"
)

// MaxDepth is how deep containers may be nested: a scalar has depth 0, an array of scalars depth 1.
const MaxDepth = 100

// Worded to stand beside the errors of msgpack itself; like those, they hold nothing of the input.
var (
	errTruncated = errors.New("msgpack: the value is cut short")
	errTrailing  = errors.New("msgpack: bytes after the value")
	errDepth     = errors.New("msgpack: nested deeper than 100 containers")
	errLeadByte  = errors.New("msgpack: no value begins with c1")
	errExtAsMap  = errors.New("msgpack: an ext where a map is wanted")
)

// Check returns nil if and only if b is exactly one well-formed msgpack value: every declared length fits in what
// remains (an array of n elements needs at least n more bytes, a map of n pairs 2n), containers are nested at most
// [MaxDepth] deep, and nothing trails. It neither recurses nor allocates.
func Check(b []byte) error {
	var (
		outer [MaxDepth]uint64 // outermost first: how many values each enclosing container still waits for
		depth = 0              // how many of those there are
		left  = uint64(1)      // how many values are still to come where we are
		next  = 0              // where the next of them begins
	)
	for {
		if next >= len(b) {
			return errTruncated
		}
		left--
		if stride := strides[b[next]]; stride != 0 {
			next += int(stride) // past the end, perhaps: whoever looks at next finds out
		} else {
			lead := &shapes[b[next]]
			next++
			if len(b)-next < int(lead.width) {
				return errTruncated
			}
			n := lead.length(b[next:])
			next += int(lead.width)

			switch lead.kind {
			case sized:
				if n > uint64(len(b)-next) {
					return errTruncated
				}
				next += int(n)
			case container:
				// No need to compare n with what remains: a value takes at least a byte, so the bytes run out before the
				// values do, here and not in a decoder that makes room for n of them before it has seen the first.
				if depth == MaxDepth {
					return errDepth
				}
				outer[depth] = left
				depth++
				left = n
			default:
				return errLeadByte
			}
		}

		for left == 0 {
			if depth == 0 {
				switch {
				case next > len(b):
					return errTruncated
				case next < len(b):
					return errTrailing
				}
				return nil
			}
			depth--
			left = outer[depth]
		}
	}
}

// CheckPrefix returns nil if b, followed by more bytes, could become a value that [Check] accepts. It stops an encoder
// that runs round a cycle of pointers while there is stack left.
func CheckPrefix(b []byte) error {
	if err := Check(b); err != errTruncated {
		return err
	}
	return nil
}

// A Reader hands a value that [Check] has accepted to a msgpack v5 decoder, and fails where the decoder would take the
// body of an ext for a map.
//
// The decoder gives itself away by how it reads: the first byte of a value with ReadByte, a body in one piece with Read.
// So whoever asks for the first byte of a body with ReadByte takes it for a value, and if that byte could begin a map (or
// be nil, an absent one) the answer is an error. On any other byte msgpack v5 gives up by itself.
//
// Two things that are rightly read in this way are refused with it, as nothing tells them apart: the reference to an
// interned string whose number in its value is 128 to 143, 192, 222 or 223, and a map that follows an ext without a body.
type Reader struct {
	b    []byte
	pos  int // what is read next
	lead int // how far atBody has walked: where a value begins
	body int // where the body of the last ext before lead begins, 0 if there was none
}

// Reset makes r read b from its beginning. Reset(nil) lets go of what it read before.
func (r *Reader) Reset(b []byte) {
	*r = Reader{b: b}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.pos >= len(r.b) {
		return 0, io.EOF
	}
	n := copy(p, r.b[r.pos:])
	r.pos += n
	return n, nil
}

// ReadByte implements io.ByteReader.
func (r *Reader) ReadByte() (byte, error) {
	if r.pos >= len(r.b) {
		return 0, io.EOF
	}
	c := r.b[r.pos]
	if opensMap(c) && r.behindExt() && r.atBody() {
		return 0, errExtAsMap
	}
	r.pos++
	return c, nil
}

// UnreadByte implements io.ByteScanner.
func (r *Reader) UnreadByte() error {
	if r.pos == 0 {
		return errors.New("msgpack: nothing to unread")
	}
	r.pos--
	return nil
}

// behindExt reports whether what is before r.pos looks like the header of an ext. It may be the end of something else,
// but it seldom looks so, which spares all other values the way through atBody.
func (r *Reader) behindExt() bool {
	before := r.b[:r.pos]
	for _, header := range [...]struct{ length, first, last int }{
		{2, 0xd4, 0xd8}, // fixext: lead byte, type
		{3, 0xc7, 0xc7}, // ext 8, 16 and 32: lead byte, length, type
		{4, 0xc8, 0xc8},
		{6, 0xc9, 0xc9},
	} {
		if n := len(before) - header.length; n >= 0 && int(before[n]) >= header.first && int(before[n]) <= header.last {
			return true
		}
	}
	return false
}

// atBody reports whether r.pos is where the body of an ext begins. It finds that out value by value, from where it was
// asked the last time, so that all its answers together take one walk over the bytes.
func (r *Reader) atBody() bool {
	for r.lead < r.pos {
		lead := shapes[r.b[r.lead]]
		r.lead++
		n := lead.length(r.b[r.lead:])
		r.lead += int(lead.width)
		if lead.kind == container {
			continue // its elements are the next values
		}
		if lead.ext {
			r.body = r.lead + 1 // after the byte that says which ext it is
		}
		r.lead += int(n)
	}
	return r.body == r.pos
}

// opensMap reports whether msgpack v5 reads a map, or nil in place of one, from a value that begins with c.
func opensMap(c byte) bool {
	return c&0xf0 == 0x80 || c == 0xde || c == 0xdf || c == 0xc0
}

// A shape is what the lead byte of a value tells about the rest of it.
type shape struct {
	kind  kind
	ext   bool
	pair  bool  // the length counts pairs
	width uint8 // how many bytes of length follow the lead byte
	size  uint8 // the length, or what is to be added to it
}

type kind uint8

const (
	invalid   kind = iota
	fixed          // size bytes follow
	sized          // a length follows, and so many bytes plus size
	container      // a length follows, or size is the length, and so many values
)

// length returns how many bytes, or for a container how many values, follow what rest begins with: the length itself.
func (s shape) length(rest []byte) uint64 {
	n := uint64(s.size)
	switch s.width {
	case 1:
		n += uint64(rest[0])
	case 2:
		n += uint64(binary.BigEndian.Uint16(rest))
	case 4:
		n += uint64(binary.BigEndian.Uint32(rest))
	}
	if s.pair {
		n *= 2
	}
	return n
}

// shapes is the format of msgpack, indexed by lead byte.
var shapes = func() (t [256]shape) {
	all := func(first, last int, of func(low uint8) shape) {
		for c := first; c <= last; c++ {
			t[c] = of(uint8(c - first))
		}
	}
	all(0x00, 0x7f, func(uint8) shape { return shape{kind: fixed} })                                      // positive fixint
	all(0x80, 0x8f, func(n uint8) shape { return shape{kind: container, size: n, pair: true} })           // fixmap
	all(0x90, 0x9f, func(n uint8) shape { return shape{kind: container, size: n} })                       // fixarray
	all(0xa0, 0xbf, func(n uint8) shape { return shape{kind: fixed, size: n} })                           // fixstr
	t[0xc0] = shape{kind: fixed}                                                                          // nil; c1 stays invalid
	all(0xc2, 0xc3, func(uint8) shape { return shape{kind: fixed} })                                      // false, true
	all(0xc4, 0xc6, func(i uint8) shape { return shape{kind: sized, width: 1 << i} })                     // bin 8, 16, 32
	all(0xc7, 0xc9, func(i uint8) shape { return shape{kind: sized, width: 1 << i, size: 1, ext: true} }) // ext 8, 16, 32
	all(0xca, 0xcb, func(i uint8) shape { return shape{kind: fixed, size: 4 << i} })                      // float 32, 64
	all(0xcc, 0xcf, func(i uint8) shape { return shape{kind: fixed, size: 1 << i} })                      // uint 8, 16, 32, 64
	all(0xd0, 0xd3, func(i uint8) shape { return shape{kind: fixed, size: 1 << i} })                      // int 8, 16, 32, 64
	all(0xd4, 0xd8, func(i uint8) shape { return shape{kind: fixed, size: 1 + 1<<i, ext: true} })         // fixext 1, 2, 4, 8, 16
	all(0xd9, 0xdb, func(i uint8) shape { return shape{kind: sized, width: 1 << i} })                     // str 8, 16, 32
	all(0xdc, 0xdd, func(i uint8) shape { return shape{kind: container, width: 2 << i} })                 // array 16, 32
	all(0xde, 0xdf, func(i uint8) shape { return shape{kind: container, width: 2 << i, pair: true} })     // map 16, 32
	all(0xe0, 0xff, func(uint8) shape { return shape{kind: fixed} })                                      // negative fixint
	return t
}()

// strides holds how many bytes a value of fixed size takes, indexed by lead byte, and 0 for the others. Most values have
// one, and it is found with a single load: Check owes a quarter of its speed to this table.
var strides = func() (t [256]uint8) {
	for c, s := range shapes {
		if s.kind == fixed {
			t[c] = 1 + s.size
		}
	}
	return t
}()
