// Package wellformed makes bytes of unknown origin safe to be decoded by msgpack v5.
//
// A decoder that believes the lengths it reads allocates gigabytes for an array header of five
// bytes, and one that recurses exhausts its stack on a run of 0x91. Either ends the process and
// cannot be recovered from, so [Check] examines the bytes before a decoder reads them.
//
// One hole is not in the bytes alone, because it depends on the type decoded into: where msgpack v5
// wants a map and finds an ext, it drops the header of the ext and reads on inside the body, which
// may declare any length and any depth. [Reader] closes that hole while the decoder reads.
package wellformed

import (
	"encoding/binary"
	"errors"
	"io"
)

// MaxDepth is the deepest nesting of containers that Check accepts: a scalar has depth 0, an array
// of scalars depth 1.
const MaxDepth = 100

// ErrHeavy says that a value would take more memory than is good.
var ErrHeavy = errors.New("msgpack: more memory than in proportion to the encoded value")

// The texts begin as those of msgpack itself do and, like those, hold nothing of the input.
var (
	errTruncated = errors.New("msgpack: the value is cut short")
	errTrailing  = errors.New("msgpack: bytes after the value")
	errDepth     = errors.New("msgpack: nested deeper than 100 containers")
	errLeadByte  = errors.New("msgpack: no value begins with c1")
	errExtAsMap  = errors.New("msgpack: an ext where a map is wanted")
)

// Check returns nil if and only if b is exactly one well-formed msgpack value: every declared
// length fits in what remains (an array of n elements needs at least n more bytes, a map of n pairs
// 2n), containers are nested at most [MaxDepth] deep, and nothing trails. It neither recurses nor
// allocates.
func Check(b []byte) error { return Walk(b, nil) }

// Walk is Check that calls visit, if it is not nil, for each container: with the number of those
// around it and of the values in it, as declared. If visit reports false, the error is ErrHeavy.
func Walk(b []byte, visit func(depth int, values uint64) bool) error {
	next, err := walk(b, 0, MaxDepth, visit)
	if err == nil && next < len(b) {
		err = errTrailing
	}
	return err
}

// Skip returns where the value ends that begins at b[next] with depth containers around it. The
// error is that of Check, but for what trails.
func Skip(b []byte, next, depth int) (int, error) { return walk(b, next, MaxDepth-depth, nil) }

// walk is Walk for a value that begins at b[next] and is nested at most deepest deep. It returns
// where the value ends.
func walk(b []byte, next, deepest int, visit func(depth int, values uint64) bool) (int, error) {
	var (
		outer [MaxDepth]uint64 // outermost first: the values that each enclosing container still lacks
		depth = 0              // the number of enclosing containers
		left  = uint64(1)      // the values that the innermost container still lacks
	)
	for {
		if next >= len(b) {
			return 0, errTruncated
		}
		left--
		if stride := strides[b[next]]; stride != 0 {
			next += int(stride) // perhaps past the end, which both readers of next check for
		} else {
			shape, n, body := header(b, next)
			next = body
			switch {
			case body > len(b) || shape.kind == sized && n > uint64(len(b)-body):
				return 0, errTruncated
			case shape.kind == sized:
				next += int(n)
			case shape.kind != container:
				return 0, errLeadByte
			case depth == deepest:
				return 0, errDepth
			case visit != nil && !visit(depth, n):
				return 0, ErrHeavy
			}
			if shape.kind == container {
				// n need not be compared with what remains: each value takes a byte or more.
				outer[depth], left = left, n
				depth++
			}
		}
		for left == 0 {
			if depth == 0 {
				return ended(b, next)
			}
			depth--
			left = outer[depth]
		}
	}
}

// ended returns next, where a value ends, if that is in b.
func ended(b []byte, next int) (int, error) {
	if next > len(b) {
		return 0, errTruncated
	}
	return next, nil
}

// header returns the shape of the value that begins at b[next], its length, and where its body
// begins: past the end of b if the length is cut short.
func header(b []byte, next int) (s *shape, n uint64, body int) {
	s = &shapes[b[next]]
	body = next + 1 + int(s.width)
	if body <= len(b) {
		n = s.length(b[next+1:])
	}
	return s, n, body
}

// HidesMap reports whether b, a value that Check accepts, has an ext in it whose body a msgpack v5
// decoder without a Reader could take for a map.
func HidesMap(b []byte) bool {
	for next := 0; next < len(b); {
		shape, n, body := header(b, next)
		if shape.ext && body+1 < len(b) && opensMap(b[body+1]) {
			return true
		}
		if next = body; shape.kind != container { // whose elements are the next values
			next += int(n)
		}
	}
	return false
}

// CheckPrefix returns nil if b, followed by more bytes, could become a value that [Check] accepts.
// It stops an encoder that follows a cycle of pointers while there is stack left.
func CheckPrefix(b []byte) error {
	if err := Check(b); err != errTruncated { //nolint:errorlint // the very one
		return err
	}
	return nil
}

// A Reader hands a value that [Check] has accepted to a msgpack v5 decoder, and fails where the
// decoder would take the body of an ext for a map.
//
// The decoder reads the first byte of a value with ReadByte, and a body in one piece with Read. If
// it reads the first byte of a body with ReadByte, it takes the body for a value: ReadByte fails if
// that byte could begin a map (or is nil). On any other byte msgpack v5 gives up by itself.
//
// That refuses two rightful values as well: a reference to the interned string number 128 to 143,
// 192, 222 or 223, and a map that follows an ext without a body.
type Reader struct {
	b      []byte
	pos    int // the position of the next byte to read
	walked int // how far atBody has walked: the beginning of a value
	body   int // where the body of the last ext before walked begins; 0: there was none
}

// Reset makes r read b from its beginning. Reset(nil) drops the reference to what r read before.
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

// behindExt reports whether the bytes before r.pos look like the header of an ext. They may be the
// end of something else, but that is rare, so that most values are spared the walk of atBody.
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

// atBody reports whether the body of an ext begins at r.pos. It walks value by value from where the
// last call stopped, so that all calls together walk over the bytes once.
func (r *Reader) atBody() bool {
	for r.walked < r.pos {
		shape := shapes[r.b[r.walked]]
		r.walked++
		n := shape.length(r.b[r.walked:])
		r.walked += int(shape.width)
		if shape.kind == container {
			continue // its elements are the next values
		}
		if shape.ext {
			r.body = r.walked + 1 // after the byte that holds the type of the ext
		}
		r.walked += int(n)
	}
	return r.body == r.pos
}

// opensMap reports whether msgpack v5 reads a map, or nil in place of one, from a value that begins
// with c.
func opensMap(c byte) bool {
	return c&0xf0 == 0x80 || c == 0xde || c == 0xdf || c == 0xc0
}

// A shape is what the lead byte of a value tells about the rest of the value.
type shape struct {
	kind  kind
	ext   bool
	pair  bool  // the length counts pairs
	width uint8 // the number of bytes of length that follow the lead byte
	size  uint8 // the length, or what is added to the length that follows
}

type kind uint8

const (
	invalid   kind = iota
	fixed          // size bytes follow
	sized          // a length follows, and so many bytes plus size
	container      // a length follows, or size is the length, and so many values
)

// length returns the number of bytes, or for a container of values, that follow the length at the
// beginning of rest.
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

// shapes is the table of the msgpack specification, indexed by lead byte; c1 stays invalid.
// https://github.com/msgpack/msgpack/blob/master/spec.md#formats
var shapes = func() (t [256]shape) {
	all := func(first, last int, of func(n uint8) shape) {
		for c := first; c <= last; c++ {
			t[c] = of(uint8(c - first))
		}
	}
	empty := func(uint8) shape { return shape{kind: fixed} }
	all(0x00, 0x7f, empty) // positive fixint
	all(0xc0, 0xc0, empty) // nil
	all(0xc2, 0xc3, empty) // false, true
	all(0xe0, 0xff, empty) // negative fixint

	// fixmap, fixarray, fixstr
	all(0x80, 0x8f, func(n uint8) shape { return shape{kind: container, size: n, pair: true} })
	all(0x90, 0x9f, func(n uint8) shape { return shape{kind: container, size: n} })
	all(0xa0, 0xbf, func(n uint8) shape { return shape{kind: fixed, size: n} })

	// bin 8 to 32, str 8 to 32, ext 8 to 32, fixext 1 to 16
	all(0xc4, 0xc6, func(i uint8) shape { return shape{kind: sized, width: 1 << i} })
	all(0xd9, 0xdb, func(i uint8) shape { return shape{kind: sized, width: 1 << i} })
	all(0xc7, 0xc9, func(i uint8) shape { return shape{kind: sized, width: 1 << i, size: 1, ext: true} })
	all(0xd4, 0xd8, func(i uint8) shape { return shape{kind: fixed, size: 1 + 1<<i, ext: true} })

	// float 32 and 64, uint 8 to 64, int 8 to 64
	all(0xca, 0xcb, func(i uint8) shape { return shape{kind: fixed, size: 4 << i} })
	all(0xcc, 0xcf, func(i uint8) shape { return shape{kind: fixed, size: 1 << i} })
	all(0xd0, 0xd3, func(i uint8) shape { return shape{kind: fixed, size: 1 << i} })

	// array 16 and 32, map 16 and 32
	all(0xdc, 0xdd, func(i uint8) shape { return shape{kind: container, width: 2 << i} })
	all(0xde, 0xdf, func(i uint8) shape { return shape{kind: container, width: 2 << i, pair: true} })
	return t
}()

// strides holds the size in bytes of a value of fixed size, indexed by lead byte, and 0 for the
// others. Most values have a fixed size, and one memory access finds it: Check owes a quarter of
// its speed to this table.
var strides = func() (t [256]uint8) {
	for c, s := range shapes {
		if s.kind == fixed {
			t[c] = 1 + s.size
		}
	}
	return t
}()
