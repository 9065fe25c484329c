package value

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

var (
	errCutShort = errors.New("msgpack: the value is cut short")
	errTrailing = errors.New("msgpack: bytes after the value")
	errDepth    = errors.New("msgpack: nested deeper than 100 containers")
	errHidden   = errors.New("msgpack: a value that decodes itself could take its bytes for more than they are")
)

// check returns nil if b is one well-formed msgpack value, as by wellformed.Check, from which
// msgpack v5 decodes the very value that was encoded: all numbers fit, all lengths are those of the
// type, nothing is nil that cannot be, and of each struct some field is known.
func (s *shape) check(b []byte) error {
	c := checker{b: b}
	switch next := c.value(s, 0, 0); {
	case next < 0:
		return c.err
	case next < len(b):
		return errTrailing
	}
	return nil
}

// checker walks over the msgpack b beside a shape.
type checker struct {
	b    []byte
	dict []string // the strings that others can refer to
	err  error    // why it has stopped
}

const stop = -1

func (c *checker) fail(err error) int {
	if c.err == nil {
		c.err = err
	}
	return stop
}

func (c *checker) misfit(s *shape) int {
	return c.fail(fmt.Errorf("msgpack: what is encoded is no %v", s.t))
}

// value checks the value that begins at b[at] with depth containers around it. It returns where the
// value ends, or stop.
func (c *checker) value(s *shape, at, depth int) int {
	if at >= len(c.b) {
		return c.fail(errCutShort)
	}
	lead := c.b[at]
	if size := int(s.sizes[lead]); size > 0 {
		return c.end(at + size)
	}
	switch s.kind {
	case signed, unsigned, float:
		return c.number(s, at)
	case str:
		return c.text(s, at)
	case instant:
		return c.instant(s, at)
	case pointer:
		return c.value(s.elem, at, depth)
	case byteSlice, byteArray:
		if content, next := c.content(at); next > 0 && (s.kind == byteSlice || len(content) == s.size) {
			return next
		}
	case slice, fixedArray, mapping, record:
		return c.container(s, at, depth)
	case ownDecode:
		return c.own(s, at, depth)
	case anything:
		return c.skip(at, depth)
	}
	return c.misfit(s)
}

// end returns next, where a value ends, if that is in b.
func (c *checker) end(next int) int {
	if next > len(c.b) {
		return c.fail(errCutShort)
	}
	return next
}

func (c *checker) skip(at, depth int) int {
	next, err := wellformed.Skip(c.b, at, depth)
	if err != nil {
		return c.fail(err)
	}
	return next
}

// integer returns the integer at b[at]: its bits, whether they are those of a negative number, and
// where it ends, or stop if there is none.
func (c *checker) integer(at int) (bits uint64, negative bool, next int) {
	lead, b := c.b[at], c.b[at+1:]
	if lead <= msgpcode.PosFixedNumHigh {
		return uint64(lead), false, at + 1
	}
	if lead >= msgpcode.NegFixedNumLow {
		return uint64(int8(lead)), true, at + 1
	}
	if lead < msgpcode.Uint8 || lead > msgpcode.Int64 {
		return 0, false, stop
	}
	size := 1 << ((lead - msgpcode.Uint8) % 4)
	if len(b) < size {
		return 0, false, stop
	}
	isSigned := lead >= msgpcode.Int8
	switch size {
	case 1:
		bits = uint64(b[0])
	case 2:
		bits = uint64(binary.BigEndian.Uint16(b))
	case 4:
		bits = uint64(binary.BigEndian.Uint32(b))
	case 8:
		bits = binary.BigEndian.Uint64(b)
	}
	if isSigned {
		shift := 64 - 8*size
		bits = uint64(int64(bits<<shift) >> shift)
		negative = int64(bits) < 0
	}
	return bits, negative, at + 1 + size
}

// number checks a number, which must be in the type exactly what it was.
func (c *checker) number(s *shape, at int) int {
	bits, negative, next := c.integer(at)
	if next == stop {
		return c.misfit(s)
	}
	fits := false
	switch shift := 64 - s.size; s.kind {
	case signed:
		n := int64(bits)
		fits = negative == (n < 0) && n<<shift>>shift == n
	case unsigned:
		fits = !negative && bits<<shift>>shift == bits
	case float:
		const exact32, exact64 = 1 << 24, 1 << 53
		limit := int64(exact64)
		if s.size == 32 {
			limit = exact32
		}
		n := int64(bits)
		fits = negative == (n < 0) && -limit <= n && n <= limit
	}
	if !fits {
		return c.misfit(s)
	}
	return next
}

// content returns the bytes of the str or bin at b[at], and where it ends, or stop if there is none.
func (c *checker) content(at int) (content []byte, next int) {
	lead, b := c.b[at], c.b[at+1:]
	var n, width int
	switch {
	case lead&0xe0 == msgpcode.FixedStrLow:
		n = int(lead & msgpcode.FixedStrMask)
	case (lead == msgpcode.Str8 || lead == msgpcode.Bin8) && len(b) >= 1:
		n, width = int(b[0]), 1
	case (lead == msgpcode.Str16 || lead == msgpcode.Bin16) && len(b) >= 2:
		n, width = int(binary.BigEndian.Uint16(b)), 2
	case (lead == msgpcode.Str32 || lead == msgpcode.Bin32) && len(b) >= 4:
		n, width = int(binary.BigEndian.Uint32(b)), 4
	default:
		return nil, stop
	}
	if n > len(b)-width {
		return nil, stop
	}
	return b[width : width+n], at + 1 + width + n
}

// text checks a string: its content, or a reference to one that was interned.
func (c *checker) text(s *shape, at int) int {
	content, next := c.content(at)
	if next == stop {
		if _, next = c.reference(at); next == stop {
			return c.misfit(s)
		}
		return next
	}
	const shortest = 3
	if s.intern && len(content) >= shortest && len(c.dict) < math.MaxUint16 {
		c.dict = append(c.dict, string(content))
	}
	return next
}

// reference returns the interned string that is referred to at b[at], and where the reference ends,
// or stop if there is none.
func (c *checker) reference(at int) (name string, next int) {
	b := c.b[at:]
	if len(c.dict) == 0 || len(b) < 3 || b[1] != 0x80 {
		return "", stop
	}
	i := 0
	switch b[0] {
	case msgpcode.FixExt1:
		i, next = int(b[2]), at+3
	case msgpcode.FixExt2:
		if len(b) < 4 {
			return "", stop
		}
		i, next = int(binary.BigEndian.Uint16(b[2:])), at+4
	default:
		return "", stop
	}
	if i >= len(c.dict) {
		return "", stop
	}
	return c.dict[i], next
}

// instant checks a time.Time, in one of the three forms of the msgpack specification.
func (c *checker) instant(s *shape, at int) int {
	b := c.b[at:]
	size := 0
	switch {
	case b[0] == msgpcode.FixExt4 && len(b) >= 6 && b[1] == 0xff:
		size = 6
	case b[0] == msgpcode.FixExt8 && len(b) >= 10 && b[1] == 0xff:
		size = 10
	case b[0] == msgpcode.Ext8 && len(b) >= 15 && b[1] == 12 && b[2] == 0xff:
		size = 15
	default:
		return c.misfit(s)
	}
	return at + size
}

// own checks what decodes itself, with a decoder that may believe what it reads.
func (c *checker) own(s *shape, at, depth int) int {
	next := c.skip(at, depth)
	if next == stop {
		return stop
	}
	wire := c.b[at:next]
	if wire[0] == msgpcode.Nil && !s.believes.null {
		return c.misfit(s)
	}
	if s.believes.wire && hidesMap(wire) {
		return c.fail(errHidden)
	}
	if s.believes.content && contentOf(wire) != nil {
		content := contentOf(wire)
		if err := wellformed.Check(content); err != nil {
			return c.fail(err)
		}
		if wellformed.HidesMap(content) {
			return c.fail(errHidden)
		}
	}
	return next
}

// hidesMap is wellformed.HidesMap of wire, or of its body if it is an ext, as msgpack.RegisterExt
// makes of a type. Such a body is msgpack or not, but does not only begin like it.
func hidesMap(wire []byte) bool {
	header := 2 // of a fixext
	switch c := wire[0]; {
	case c >= msgpcode.FixExt1 && c <= msgpcode.FixExt16:
	case c >= msgpcode.Ext8 && c <= msgpcode.Ext32:
		header = 2 + 1<<(c-msgpcode.Ext8)
	default:
		return wellformed.HidesMap(wire)
	}
	body := wire[header:]
	if wellformed.Check(body) != nil {
		return len(body) > 0 && opensContainer(body[0])
	}
	return wellformed.HidesMap(body)
}

// contentOf returns the bytes of wire if that is a str or bin.
func contentOf(wire []byte) []byte {
	if len(wire) == 0 {
		return nil
	}
	c := checker{b: wire}
	content, _ := c.content(0)
	return content
}

// header returns the number of elements of the array or pairs of the map at b[at], and where the
// first begins, or stop if there is neither.
func (c *checker) header(at int) (n int, isMap bool, next int) {
	lead, b := c.b[at], c.b[at+1:]
	isMap = lead&0xf0 == msgpcode.FixedMapLow || lead == msgpcode.Map16 || lead == msgpcode.Map32
	switch {
	case lead&0xe0 == 0x80: // of either
		return int(lead & 0x0f), isMap, at + 1
	case (lead == msgpcode.Array16 || lead == msgpcode.Map16) && len(b) >= 2:
		return int(binary.BigEndian.Uint16(b)), isMap, at + 3
	case (lead == msgpcode.Array32 || lead == msgpcode.Map32) && len(b) >= 4:
		return int(binary.BigEndian.Uint32(b)), isMap, at + 5
	}
	return 0, false, stop
}

// container checks an array or a map.
func (c *checker) container(s *shape, at, depth int) int {
	n, isMap, next := c.header(at)
	if next == stop {
		return c.misfit(s)
	}
	if depth == wellformed.MaxDepth {
		return c.fail(errDepth)
	}
	depth++
	switch {
	case s.kind == record && isMap:
		return c.fields(s, n, next, depth)
	case s.kind == record && s.asArray && n == len(s.fields):
		for i := 0; i < n && next != stop; i++ {
			next = c.value(s.fields[i].shape, next, depth)
		}
	case s.kind == mapping && isMap:
		for i := 0; i < n && next != stop; i++ {
			if next = c.value(s.key, next, depth); next != stop {
				next = c.value(s.elem, next, depth)
			}
		}
	case s.kind == slice && !isMap, s.kind == fixedArray && !isMap && n == s.size:
		for i := 0; i < n && next != stop; i++ {
			next = c.value(s.elem, next, depth)
		}
	default:
		return c.misfit(s)
	}
	return next
}

// fields checks the n fields of a struct. What is not known is skipped, as the decoder does.
func (c *checker) fields(s *shape, n, next, depth int) int {
	known := 0
	for i := range n {
		var of *shape
		if i < len(s.fields) && c.begins(next, s.fields[i].name) {
			of, next = s.fields[i].shape, next+len(s.fields[i].name) // in their order, as they are written
		} else if of, next = c.field(s, next); next == stop {
			return stop
		}
		if of != nil {
			known++
			next = c.value(of, next, depth)
		} else {
			next = c.skip(next, depth)
		}
		if next == stop {
			return stop
		}
	}
	if known == 0 && (n > 0 || !s.omittable) {
		return c.misfit(s)
	}
	return next
}

// begins reports whether what is at b[at] begins with name.
func (c *checker) begins(at int, name string) bool {
	return len(name) <= len(c.b)-at && string(c.b[at:at+len(name)]) == name
}

// field returns the shape of the field whose name is at b[at], or nil if there is none, and where
// its value begins.
func (c *checker) field(s *shape, at int) (*shape, int) {
	if at >= len(c.b) {
		return nil, c.fail(errCutShort)
	}
	name, next := c.content(at)
	if next == stop {
		referred, next := c.reference(at)
		if next == stop {
			return nil, c.misfit(s)
		}
		return s.byName[referred], next
	}
	return s.byName[string(name)], next
}
