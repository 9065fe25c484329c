// Package proto is a codec for messages of Protocol Buffers, as google.golang.org/protobuf generates
// them.
//
//	users, err := readthrough.New(cache, "user", findUser, readthrough.Int, // returns a *shop.User
//		readthrough.WithCodec(proto.Codec{}))
//
// What is stored is a hash of the message's full name and the message in the wire format. So a
// message of another name is a miss, and so is one that the type it is read into would not write as
// long: an int64 too large for the int32 that the field has become, say. Fields that were added or
// removed are what Protocol Buffers make of them: zero, or unknown and kept. Changes of a field's type
// that leave the size alone are not noticed: give the changed field a new number, as Protocol Buffers
// ask for anyway. docs/codecs.md has them one by one.
package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// nameSize is the size of the hash of the message's full name.
const nameSize = 4

// Codec is a readthrough.Codec. It keeps pointers to generated messages, nil ones as nil, and nothing
// else. It may be used by many goroutines at once.
type Codec struct {
	// Deterministic has equal messages be equal bytes, for one release of google.golang.org/protobuf:
	// maps are sorted by key. Default false.
	Deterministic bool
}

var (
	errFormat = errors.New("not written by this codec, or another message")
	errShape  = errors.New("the message holds what this type would not write")
)

// Marshal returns the bytes of v, a message; nil if v is nil.
func (c Codec) Marshal(v any) ([]byte, error) {
	m, err := newMessage(reflect.TypeOf(v))
	if err != nil {
		return nil, err
	}
	if reflect.ValueOf(v).IsNil() {
		return nil, nil
	}
	b, err := proto.MarshalOptions{Deterministic: c.Deterministic}.MarshalAppend(hashOfName(m), v.(proto.Message))
	return b, named(m, err)
}

// Unmarshal sets v, a pointer to a pointer to a message, to a new message; to nil if data is nil.
func (c Codec) Unmarshal(data []byte, v any) error {
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer {
		return fmt.Errorf("proto: cannot decode into %T", v)
	}
	m, err := newMessage(target.Type().Elem())
	if err != nil {
		return err
	}
	if data == nil {
		target.Elem().SetZero()
		return nil
	}
	if len(data) < nameSize || string(data[:nameSize]) != string(hashOfName(m)) {
		return named(m, errFormat)
	}
	if err := proto.Unmarshal(data[nameSize:], m); err != nil {
		return named(m, err)
	}
	// Unknown fields are kept, so a message has the size that it had, if none of it was cut off.
	if proto.Size(m) != len(data)-nameSize {
		return named(m, errShape)
	}
	target.Elem().Set(reflect.ValueOf(m))
	return nil
}

// CheckType returns an error if values of type t are not pointers to generated messages.
func (c Codec) CheckType(t reflect.Type) error {
	_, err := newMessage(t)
	return err
}

// CodecName returns the name of the format.
func (c Codec) CodecName() string { return "proto" }

// newMessage returns a new message of type t.
func newMessage(t reflect.Type) (proto.Message, error) {
	if t != nil && t.Kind() == reflect.Pointer && t.Implements(reflect.TypeFor[proto.Message]()) {
		m := reflect.New(t.Elem()).Interface().(proto.Message)
		if m.ProtoReflect().Descriptor() != nil { // a dynamicpb.Message has none of its own
			return m, nil
		}
	}
	if t != nil && reflect.PointerTo(t).Implements(reflect.TypeFor[proto.Message]()) {
		return nil, fmt.Errorf("proto: %v is kept as a *%v only", t, t)
	}
	return nil, fmt.Errorf("proto: %v is no pointer to a generated message", t)
}

// hashOfName returns the 32-bit FNV-1a hash of the full name of m.
func hashOfName(m proto.Message) []byte {
	h := fnv.New32a()
	h.Write([]byte(m.ProtoReflect().Descriptor().FullName()))
	return binary.BigEndian.AppendUint32(make([]byte, 0, nameSize), h.Sum32())
}

// named returns err with the name of the message's type.
func named(m proto.Message, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("proto: %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
}
