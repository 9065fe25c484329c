package readthrough

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

// A Codec turns values into the bytes that are stored, and back. It is called from many goroutines at once.
//
// Marshal is given a V, and the bytes it returns belong to the caller. If they are nil, and not merely empty, Unmarshal
// will be given nil.
//
// Unmarshal is given a pointer to a zero V. What it decodes must not share memory with data, which other callers decode
// at the same time. It may be given any bytes at all; an error makes the entry a miss.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// The codecs to choose from with WithCodec.
var (
	// Msgpack encodes any Go value the way github.com/vmihailenco/msgpack/v5 does by default: structs as maps by field
	// name or `msgpack:"name"` tag, time.Time without its location. It is the default codec, and the only one whose
	// values other programs see as part of the entry, not as bytes inside it.
	//
	// Integers of a fixed size keep their type where V holds an any, but an int or uint comes back as the smallest type
	// that holds it. Values nested deeper than 100 containers, cyclic ones among them, are an error.
	//
	// Bytes are checked before they are decoded, so no entry can exhaust memory or the stack: a container takes the
	// memory of the elements that are really there. One limit comes with it, for the `intern` tag: a value with more
	// than 128 different interned strings may be refused when it is decoded. And it ends where a type takes over with an
	// UnmarshalMsgpack of its own, which is given one well-formed value and answers for what it makes of it.
	Msgpack Codec = msgpackCodec{}

	// JSON encodes any Go value the way encoding/json does: a string that is not UTF-8 is repaired, and a number in an any
	// comes back as float64.
	JSON Codec = jsonCodec{}

	// Raw stores a []byte or a string as it is, and nothing else. A nil []byte comes back nil.
	Raw Codec = rawCodec{}
)

// checkCodec reports whether values of type t can be stored with c at all.
func checkCodec(c Codec, t reflect.Type) error {
	switch c.(type) {
	case nil:
		return errors.New("readthrough: the codec is nil")
	case rawCodec:
		if t != reflect.TypeFor[[]byte]() && t != reflect.TypeFor[string]() {
			return fmt.Errorf("readthrough: the Raw codec stores []byte and string, not %v", t)
		}
	}
	return nil
}

// appendValue appends v to dst in the form in which an entry holds it, which is one msgpack value: v itself if c is
// Msgpack, else a bin of what c makes of it, or nil if c makes nil of it. It returns dst as it was if it fails.
func appendValue(dst []byte, c Codec, v any) (wire []byte, err error) {
	defer func() {
		if err = failure("encode", err, recover()); err != nil {
			wire = dst
		}
	}()
	if _, ok := c.(msgpackCodec); ok {
		return appendMsgpack(dst, v)
	}
	b, err := c.Marshal(v)
	if err != nil {
		return nil, err
	}
	return appendBin(dst, b)
}

// decodeValue sets what v points to from the form in which an entry holds it. Whatever wire is, it returns an error
// rather than panic. Nothing it decodes shares memory with wire.
func decodeValue(c Codec, wire []byte, v any) (err error) {
	defer func() { err = failure("decode", err, recover()) }()

	wire = slices.Clip(wire) // so that a codec that appends to what it is given cannot reach what comes after
	if _, ok := c.(msgpackCodec); ok {
		return decodeMsgpack(wire, v)
	}
	b, err := binOf(wire)
	if err != nil {
		return err
	}
	return c.Unmarshal(b, v)
}

type msgpackCodec struct{}

func (msgpackCodec) Marshal(v any) ([]byte, error) {
	b, err := appendMsgpack(make([]byte, 0, 256), v)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (msgpackCodec) Unmarshal(data []byte, v any) error {
	return decodeMsgpack(data, v)
}

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return bytes.Clone(v), nil
	case string:
		return []byte(v), nil
	}
	return nil, fmt.Errorf("raw: cannot encode %T", v)
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		*v = bytes.Clone(data)
		return nil
	case *string:
		*v = string(data)
		return nil
	}
	return fmt.Errorf("raw: cannot decode into %T", v)
}

// maxPooled is the size of a value, in bytes, up to which the encoder or decoder that it went through is used again. One
// that has seen a larger value may hold a buffer as large.
const maxPooled = 64 << 10

var (
	encoders = sync.Pool{New: func() any {
		e := new(encoder)
		e.msgpack = msgpack.NewEncoder(e)
		return e
	}}
	decoders = sync.Pool{New: func() any {
		d := new(decoder)
		d.msgpack = msgpack.NewDecoder(&d.src)
		return d
	}}
)

// appendMsgpack appends the msgpack of v to dst. What it appends, decodeMsgpack accepts: a value that could never be read
// back is an error here, where there is still somebody to tell.
func appendMsgpack(dst []byte, v any) ([]byte, error) {
	e := encoders.Get().(*encoder)
	e.out, e.start, e.probe = dst, len(dst), len(dst)+maxPooled
	if err := e.msgpack.Encode(v); err != nil {
		return nil, err
	}
	out := e.out
	if len(out)-len(dst) <= maxPooled {
		e.out = nil
		e.msgpack.Reset(e) // undoes what a type's own encoder may have set
		encoders.Put(e)
	}
	if err := wellformed.Check(out[len(dst):]); err != nil {
		return nil, err
	}
	return out, nil
}

// An encoder collects what a msgpack encoder writes, behind what is in out already.
type encoder struct {
	msgpack *msgpack.Encoder
	out     []byte
	start   int // where the value begins in out
	probe   int // the length of out at which to look again whether all is well
}

func (e *encoder) Write(p []byte) (int, error) {
	e.out = append(e.out, p...)
	return len(p), e.look()
}

func (e *encoder) WriteByte(c byte) error {
	e.out = append(e.out, c)
	return e.look()
}

// look stops the encoding of a cyclic value, in which msgpack would recurse until the stack overflows and the process
// ends. It looks each time the size has doubled, so all looks together read at most twice what is written.
func (e *encoder) look() error {
	if len(e.out) < e.probe {
		return nil
	}
	e.probe += len(e.out) - e.start
	return wellformed.CheckPrefix(e.out[e.start:])
}

// decodeMsgpack sets what v points to from data.
func decodeMsgpack(data []byte, v any) error {
	if err := wellformed.Check(data); err != nil {
		return err
	}
	d := decoders.Get().(*decoder)
	d.src.Reset(data)
	// The decoder is not to preallocate values in chunks as msgpack.Unmarshal does: msgpack then starts a goroutine for
	// each type that never ends.
	if err := d.msgpack.Decode(v); err != nil {
		return err // and drop the decoder, which may be left recording what it reads
	}
	if len(data) <= maxPooled {
		d.src.Reset(nil)
		d.msgpack.Reset(&d.src) // undoes what a type's own decoder may have set
		decoders.Put(d)
	}
	return nil
}

// A decoder reads from its src.
type decoder struct {
	msgpack *msgpack.Decoder
	src     wellformed.Reader
}

// appendBin appends b to dst as a msgpack bin, or as nil if it is nil.
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

// binOf returns the bytes of the msgpack bin that wire is, or nil if it is nil.
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

// A codecError says what failed without the text of a cause that might quote a value, as those of time.Parse and strconv
// do. errors.Is and errors.As reach the cause.
type codecError struct {
	text  string
	cause error
}

func (e *codecError) Error() string { return e.text }
func (e *codecError) Unwrap() error { return e.cause }

// failure makes one error of how a codec failed: with an error, or with a panic. It returns nil if it did neither.
func failure(op string, err error, panicked any) error {
	if panicked != nil {
		op += ": panic"
		switch p := panicked.(type) {
		case error:
			err = p
		case string:
			err = errors.New(p)
		default:
			err = fmt.Errorf("%T", p)
		}
	}
	if err == nil {
		return nil
	}
	reason := fmt.Sprintf("%T", err)
	if text := fmt.Sprint(err); slices.ContainsFunc(quotable, func(p string) bool { return strings.HasPrefix(text, p) }) {
		reason = text
	}
	return &codecError{text: "readthrough: " + op + ": " + reason, cause: err}
}

// quotable is how the text of errors begins that are known to speak of types, lengths and codes only.
var quotable = []string{"msgpack: ", "raw: ", "json: unsupported type: ", "reflect", "runtime error: ", "interface conversion: "}
