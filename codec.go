package readthrough

import (
	"errors"
	"fmt"
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
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// The codecs to choose from with WithCodec.
var (
	// Msgpack, the default codec, encodes any Go value the way github.com/vmihailenco/msgpack/v5
	// does by default: structs as maps by field name or `msgpack:"name"` tag, time.Time without its
	// location. It is the only codec whose values other programs can read as part of the entry.
	//
	// Where V holds an any, integers of a fixed size keep their type, but an int or uint comes back
	// as the smallest type that holds it. Values nested over 100 containers deep, such as cyclic
	// ones, are an error.
	//
	// Bytes are checked before they are decoded: no entry exhausts memory or the stack, unless a
	// type's own UnmarshalMsgpack does. A value that would take more than 8 MiB of memory and over 64
	// times its encoded size, as structs do in which nothing is encoded, is not stored. A value with
	// over 128 different strings of the `intern` tag may be refused.
	Msgpack Codec = value.Msgpack{}

	// JSON encodes any Go value the way encoding/json does: a string that is not UTF-8 is repaired,
	// and a number in an any comes back as float64.
	JSON Codec = value.JSON{}

	// Raw stores a []byte or a string as it is, and nothing else. A nil []byte comes back nil.
	Raw Codec = value.Raw{}
)

// checkCodec returns an error if values of type t cannot be stored with c at all.
func checkCodec(c Codec, t reflect.Type) error {
	switch c.(type) {
	case nil:
		return errors.New("the codec is nil")
	case value.Raw:
		if t != reflect.TypeFor[[]byte]() && t != reflect.TypeFor[string]() {
			return fmt.Errorf("the Raw codec stores []byte and string, not %v", t)
		}
	}
	return nil
}

// appendValue appends v, encoded by c, to dst in the form in which an entry holds it. What would
// not be decoded again is an error here, while there is still a caller to tell.
func appendValue(dst []byte, c Codec, scale value.Scale, v any) ([]byte, error) {
	b, err := value.Append(dst, c, v)
	if err == nil {
		err = scale.Weigh(c, b[len(dst):])
	}
	return b, err
}

// decodeValue sets what v points to from the form in which an entry holds it. It may be given any
// bytes: it returns an error rather than panic.
func decodeValue(c Codec, scale value.Scale, wire []byte, v any) error {
	if err := scale.Weigh(c, wire); err != nil {
		return err
	}
	return value.Decode(c, wire, v)
}
