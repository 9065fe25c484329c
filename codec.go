package readthrough

import (
	"errors"
	"reflect"

	"github.com/readthrough-go/readthrough/internal/wire/value"
)

// A Codec turns values into the bytes that are stored, and back. It is called from many goroutines
// at once.
//
// Marshal is given a V, and the bytes it returns belong to the caller. If they are nil, and not
// merely empty, Unmarshal will be given nil.
//
// Unmarshal is given a pointer to a zero V. What it decodes must not share memory with data, which
// other callers decode at the same time. It may be given any bytes at all; an error makes the entry
// a miss.
//
// Two optional methods are called if a Codec has them. CodecName() string names the format: an entry
// of a codec of another name is a miss. Without it the name is that of the Codec's Go type.
// CheckType(reflect.Type) error is asked by New whether values of type V can be kept.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// The codecs to choose from with WithCodec.
//
// What they decode is the value that was encoded, or an error, which makes the entry a miss:
// docs/values.md says what becomes of an entry when the type of a value has changed. New refuses
// types that Msgpack or JSON would alter whatever the value is, and names the field. Values that
// would not come back as they are, as some in an interface do, are not stored.
var (
	// Msgpack, the default codec, encodes any Go value the way github.com/vmihailenco/msgpack/v5
	// does by default: structs as maps by field name or `msgpack:"name"` tag, time.Time without its
	// location. It is the only codec whose values other programs can read as part of the entry.
	//
	// Where V holds an any, integers of a fixed size keep their type, but an int or uint comes back
	// as the smallest type that holds it. Values nested over 100 containers deep, such as cyclic
	// ones, are an error.
	//
	// Bytes are checked before they are decoded: no entry exhausts memory or the stack, and those
	// given to a type's own UnmarshalMsgpack are checked too. A value that would take more than
	// 8 MiB of memory and over 128 times its encoded size, as structs do in which nothing is encoded,
	// is not stored. A value with over 128 different strings of the `intern` tag may be refused.
	Msgpack Codec = value.Msgpack{}

	// JSON encodes any Go value the way encoding/json does. A string that is not UTF-8 is an error,
	// and a number in an any comes back as float64.
	JSON Codec = value.JSON{}

	// Raw stores a []byte or a string as it is, and nothing else. A nil []byte comes back nil.
	Raw Codec = value.Raw{}
)

// checkCodec returns an error if values of type t cannot be stored with c at all.
func checkCodec(c Codec, t reflect.Type) error {
	switch c := c.(type) {
	case nil:
		return errors.New("the codec is nil")
	case interface{ CheckType(t reflect.Type) error }:
		return c.CheckType(t)
	}
	return nil
}

// A KeyedCodec is a Codec that is also told the Redis key of the value, which it can bind the bytes
// to. A Cache calls MarshalKey and UnmarshalKey in place of Marshal and Unmarshal, whose contracts
// they share. It must be the codec that the Cache is given, not one inside another.
type KeyedCodec interface {
	Codec
	MarshalKey(key string, v any) ([]byte, error)
	UnmarshalKey(key string, data []byte, v any) error
}

// forKey returns c, told the key if it wants to be.
func forKey(c Codec, key string) Codec {
	if keyed, ok := c.(KeyedCodec); ok {
		return keyedCodec{keyed, key}
	}
	return c
}

// keyedCodec is a KeyedCodec that has been told the key.
type keyedCodec struct {
	codec KeyedCodec
	key   string
}

func (c keyedCodec) Marshal(v any) ([]byte, error)      { return c.codec.MarshalKey(c.key, v) }
func (c keyedCodec) Unmarshal(data []byte, v any) error { return c.codec.UnmarshalKey(c.key, data, v) }
