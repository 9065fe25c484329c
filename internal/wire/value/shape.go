package value

import (
	"reflect"

	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

// shape is what the msgpack of a Go type looks like: what msgpack v5 writes for its values, and
// besides what holds the same value, an integer of another size for one.
type shape struct {
	kind   shapeKind
	t      reflect.Type
	size   int  // bits of a number, elements of an array
	intern bool // of a text: it is put into the list of strings that others refer to

	elem, key *shape

	sizes     *[256]uint8 // by first byte: of what fits whatever follows; 0: it depends
	fields    []fieldShape
	byName    map[string]*shape
	asArray   bool
	omittable bool    // a struct may have none of its fields encoded
	believes  beliefs // of what decodes itself
}

// beliefs are what a type that decodes itself takes for a value, and may take for msgpack, with a
// decoder that no Reader guards.
type beliefs struct {
	wire    bool // the msgpack that it is given
	content bool // the bytes of the bin that it is given
	null    bool // nil for a value of its own
}

type fieldShape struct {
	name string // as msgpack
	*shape
}

type shapeKind uint8

const (
	anything  shapeKind = iota // what decodes into any, or what is not known
	ownDecode                  // what decodes itself
	boolean
	signed
	unsigned
	float
	str
	byteSlice
	byteArray
	slice
	fixedArray
	mapping
	record
	pointer
	instant
)

// newShape returns the shape of t. made has those that it is made of, for types that hold
// themselves.
func newShape(t reflect.Type, made map[reflect.Type]*shape) *shape {
	if s, ok := made[t]; ok {
		return s
	}
	s := &shape{t: t, sizes: new([256]uint8)}
	made[t] = s
	switch {
	case t == timeType:
		s.kind = instant
	case t == reflect.PointerTo(timeType):
		s.of(t, made)
	case decodedByItself(t) != itselfNot || encodesItself(t) != itselfNot:
		s.kind = ownDecode
		zero := zeroMsgpack(t)
		s.believes = beliefs{
			wire:    decodedByItself(t) == itselfMarshal,
			content: isMsgpack(contentOf(zero)),
			null:    nilable(t) || len(zero) > 0 && zero[0] == msgpcode.Nil,
		}
	default:
		s.of(t, made)
		if t.PkgPath() != "" && t.Kind() != reflect.Pointer && (Msgpack{}).CheckType(t) == nil && !s.fitsZero() {
			*s = shape{t: t, sizes: new([256]uint8)} // msgpack.Register has given it another encoding
		}
	}
	s.measure()
	return s
}

// measure fills the sizes.
func (s *shape) measure() {
	set := func(first, last byte, size uint8) {
		for c := int(first); c <= int(last); c++ {
			s.sizes[c] = size
		}
	}
	switch s.kind {
	case boolean:
		set(msgpcode.False, msgpcode.True, 1)
	case signed, unsigned:
		set(0, msgpcode.PosFixedNumHigh, 1)
		for i := range uint8(4) { // of 1, 2, 4 and 8 bytes
			if bits := 8 << i; s.kind == unsigned && bits <= s.size || bits < s.size {
				set(msgpcode.Uint8+i, msgpcode.Uint8+i, 1+1<<i)
			}
			if bits := 8 << i; s.kind == signed && bits <= s.size {
				set(msgpcode.Int8+i, msgpcode.Int8+i, 1+1<<i)
			}
		}
		if s.kind == signed {
			set(msgpcode.NegFixedNumLow, 0xff, 1)
		}
	case float:
		set(msgpcode.Float, msgpcode.Float, 5)
		if s.size == 64 {
			set(msgpcode.Double, msgpcode.Double, 9)
		}
	case str:
		for n := range uint8(32) {
			set(msgpcode.FixedStrLow+n, msgpcode.FixedStrLow+n, 1+n)
		}
	case byteSlice, slice, mapping, pointer:
		set(msgpcode.Nil, msgpcode.Nil, 1)
	}
}

// of makes s the shape of t by its kind.
func (s *shape) of(t reflect.Type, made map[reflect.Type]*shape) {
	switch t.Kind() {
	case reflect.Bool:
		s.kind = boolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.kind, s.size = signed, t.Bits()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.kind, s.size = unsigned, t.Bits()
	case reflect.Float32, reflect.Float64:
		s.kind, s.size = float, t.Bits()
	case reflect.String:
		s.kind = str
	case reflect.Pointer:
		if !pointsToItself(t) {
			s.kind, s.elem = pointer, newShape(t.Elem(), made)
		}
	case reflect.Slice:
		if s.kind = byteSlice; t.Elem().Kind() != reflect.Uint8 {
			s.kind, s.elem = slice, newShape(t.Elem(), made)
		}
	case reflect.Array:
		if s.kind, s.size = byteArray, t.Len(); t.Elem().Kind() != reflect.Uint8 {
			s.kind, s.elem = fixedArray, newShape(t.Elem(), made)
		}
	case reflect.Map:
		s.kind, s.key, s.elem = mapping, newShape(t.Key(), made), newShape(t.Elem(), made)
	case reflect.Struct:
		s.ofStruct(t, made)
	}
}

// ofStruct makes s the shape of a struct.
func (s *shape) ofStruct(t reflect.Type, made map[reflect.Type]*shape) {
	fs := fieldsOf(t)
	s.kind, s.asArray, s.omittable = record, fs.asArray, true
	s.byName = make(map[string]*shape)
	for _, f := range fs.inlined {
		s.byName[f.name] = newShape(f.Type, made)
	}
	for _, f := range fs.list {
		of := newShape(f.Type, made)
		if f.intern && f.Type.Kind() == reflect.String {
			of = &shape{t: f.Type, kind: str, intern: true, sizes: new([256]uint8)}
		}
		name, _ := encodeMsgpack(nil, f.name)
		s.fields = append(s.fields, fieldShape{string(name), of})
		s.omittable = s.omittable && f.omitEmpty
	}
	for name, i := range fs.byName {
		s.byName[name] = s.fields[i].shape
	}
}

// fitsZero reports whether the msgpack of the zero value has the shape. If there is none, it does.
func (s *shape) fitsZero() bool {
	wire := zeroMsgpack(s.t)
	return wire == nil || s.check(wire) == nil
}

// isMsgpack reports whether b, which the methods of a type have made of its zero value, is an array
// or map in msgpack: then they will decode it by themselves.
func isMsgpack(b []byte) bool {
	if len(b) == 1 && b[0] == msgpcode.Nil {
		return true // as of a map or slice that encodes itself
	}
	return len(b) > 0 && opensContainer(b[0]) && wellformed.Check(b) == nil
}

// zeroMsgpack returns the msgpack of the zero value of t, or nil if it has none.
func zeroMsgpack(t reflect.Type) (wire []byte) {
	if t.Size() > 1<<16 {
		return nil
	}
	defer func() { _ = recover() }() // a method of t, which is not made for that
	b, err := encodeMsgpack(nil, reflect.New(t).Interface())
	if err != nil || wellformed.Check(b) != nil {
		return nil
	}
	return b
}

// opensContainer reports whether the msgpack of an array or map begins with c.
func opensContainer(c byte) bool { return c&0xe0 == 0x80 || c >= 0xdc && c <= 0xdf }
