// Package value turns Go values into the value of an entry, and back.
//
// The value of an entry is one msgpack value. With the [Msgpack] codec it is the Go value itself,
// with any other codec a msgpack bin of what the codec returned, or nil if the codec returned nil.
//
// [Decode] may be given any bytes: it returns an error rather than panic, and neither memory nor
// the stack is exhausted, because package wellformed checks the bytes first. The errors of [Append]
// and [Decode] never quote a value.
package value

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

// Codec is the Codec of package readthrough, restated so that this package does not import it.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// Append appends v, encoded by c, to dst as the value of an entry. If it fails, it returns dst as
// it was.
func Append(dst []byte, c Codec, v any) ([]byte, error) {
	return TypeOf(reflect.TypeOf(v)).encode(dst, c, v)
}

// Decode sets what v points to from wire, the value of an entry encoded by c. Nothing that it
// decodes shares memory with wire, if c keeps its promise not to.
func Decode(c Codec, wire []byte, v any) error {
	return TypeOf(pointee(v)).decode(c, wire, v)
}

// pointee returns the type of what v points to, or nil if it is no pointer.
func pointee(v any) reflect.Type {
	if t := reflect.TypeOf(v); t != nil && t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return nil
}

func (t *Type) encode(dst []byte, c Codec, v any) (wire []byte, err error) {
	defer func() {
		if err = wrapError("encode", err, recover()); err != nil {
			wire = dst
		}
	}()
	if _, ok := c.(Msgpack); ok {
		return appendMsgpack(dst, t, v)
	}
	b, err := c.Marshal(v)
	if err != nil {
		return nil, err
	}
	return appendBin(dst, b)
}

func (t *Type) decode(c Codec, wire []byte, v any) (err error) {
	defer func() { err = wrapError("decode", err, recover()) }()

	wire = slices.Clip(wire) // so that a codec that appends to its input cannot reach what comes after
	if _, ok := c.(Msgpack); ok {
		return decodeMsgpack(wire, t, v)
	}
	b, err := binOf(wire)
	if err != nil {
		return err
	}
	return c.Unmarshal(b, v)
}

// appendBin appends b to dst as a msgpack bin, or as nil if b is nil.
func appendBin(dst, b []byte) ([]byte, error) {
	dst = slices.Grow(dst, 5+len(b))
	switch n := uint64(len(b)); {
	case b == nil:
		return append(dst, msgpcode.Nil), nil
	case n <= math.MaxUint8:
		dst = append(dst, msgpcode.Bin8, byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, msgpcode.Bin16), uint16(n))
	case n <= math.MaxUint32:
		dst = binary.BigEndian.AppendUint32(append(dst, msgpcode.Bin32), uint32(n))
	default:
		return nil, errors.New("msgpack: more bytes than a bin can hold")
	}
	return append(dst, b...), nil
}

// binOf returns the bytes of wire, which must be one msgpack bin, or nil if wire is the msgpack
// nil.
func binOf(wire []byte) ([]byte, error) {
	if err := wellformed.Check(wire); err != nil {
		return nil, err
	}
	switch wire[0] {
	case msgpcode.Nil:
		return nil, nil
	case msgpcode.Bin8:
		return wire[2:], nil
	case msgpcode.Bin16:
		return wire[3:], nil
	case msgpcode.Bin32:
		return wire[5:], nil
	}
	return nil, fmt.Errorf("msgpack: a bin or nil is wanted, not code=%x", wire[0])
}
