package value

import (
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

// maxPooled is the size in bytes of the largest value after which its encoder or decoder is pooled.
// A coder that has seen a larger value may hold a buffer as large.
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

// appendMsgpack appends the msgpack of v, a t, to dst. decodeMsgpack accepts all that it appends: a
// value that could never be read back is an error here, while there is still a caller to tell.
func appendMsgpack(dst []byte, t *Type, v any) ([]byte, error) {
	out, err := encodeMsgpack(dst, v)
	if err != nil {
		return nil, err
	}
	return out, t.shape.check(out[len(dst):])
}

// encodeMsgpack appends the msgpack of v to dst as msgpack v5 makes it.
func encodeMsgpack(dst []byte, v any) ([]byte, error) {
	e := encoders.Get().(*encoder)
	e.out, e.start, e.nextCheck = dst, len(dst), len(dst)+maxPooled
	if err := e.msgpack.Encode(v); err != nil {
		return nil, err
	}
	out := e.out
	if len(out)-len(dst) <= maxPooled {
		e.out = nil
		e.msgpack.Reset(e) // undoes what a type's own encoder may have set
		encoders.Put(e)
	}
	return out, nil
}

// An encoder appends what its msgpack encoder writes to out.
type encoder struct {
	msgpack   *msgpack.Encoder
	out       []byte
	start     int // where the value begins in out
	nextCheck int // the length of out at which checkPrefix checks again
}

// Write implements io.Writer.
func (e *encoder) Write(p []byte) (int, error) {
	e.out = append(e.out, p...)
	return len(p), e.checkPrefix()
}

// WriteByte implements io.ByteWriter.
func (e *encoder) WriteByte(c byte) error {
	e.out = append(e.out, c)
	return e.checkPrefix()
}

// checkPrefix stops the encoding of a cyclic value, in which msgpack would recurse until the stack
// overflows and the process ends. It checks each time the size has doubled, so that all checks
// together read at most twice what is written.
func (e *encoder) checkPrefix() error {
	if len(e.out) < e.nextCheck {
		return nil
	}
	e.nextCheck += len(e.out) - e.start
	return wellformed.CheckPrefix(e.out[e.start:])
}

// decodeMsgpack sets what v points to, a t, from data.
func decodeMsgpack(data []byte, t *Type, v any) error {
	if err := t.shape.check(data); err != nil {
		return err
	}
	d := decoders.Get().(*decoder)
	d.src.Reset(data)
	// The decoder must not preallocate values in chunks as msgpack.Unmarshal does: msgpack then
	// starts a goroutine for each type that never ends.
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
