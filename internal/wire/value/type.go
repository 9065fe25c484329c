package value

import (
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"strings"
	"sync"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Type is what is known of a Go type whose values are encoded.
type Type struct {
	t         reflect.Type
	scale     Scale
	shape     *shape
	json      *jsonShape
	uncertain bool   // whether a value survives depends on the value
	blobs     uint32 // tells apart types that JSON encodes alike: see newBlobs
}

var knownTypes sync.Map // of *Type, by reflect.Type

// TypeOf returns what is known of t, which is nil where nothing is.
func TypeOf(t reflect.Type) *Type {
	if known, ok := knownTypes.Load(t); ok {
		return known.(*Type)
	}
	made := &Type{t: t, shape: &shape{sizes: new([256]uint8)}, json: new(jsonShape)}
	if t != nil {
		made.scale = newScale(t)
		made.shape = newShape(t, make(map[reflect.Type]*shape))
		made.json = newJSONShape(t, make(map[reflect.Type]*jsonShape))
		made.uncertain = uncertain(t, make(map[reflect.Type]bool))
		made.blobs = newBlobs(t)
	}
	known, _ := knownTypes.LoadOrStore(t, made)
	return known.(*Type)
}

// Append appends v, which is a t, encoded by c, to dst as the value of an entry. What would not be
// decoded again, or as another value, is an error here, while there is still a caller to tell.
func (t *Type) Append(dst []byte, c Codec, v any) ([]byte, error) {
	b, err := t.encode(dst, c, v)
	if err == nil {
		err = t.scale.Weigh(c, b[len(dst):])
	}
	if err == nil && t.uncertain {
		err = t.survives(c, b[len(dst):], v)
	}
	return b, err
}

// Decode sets what v points to, which is a t, from the value of an entry that c has encoded. It may
// be given any bytes: it returns an error rather than panic.
func (t *Type) Decode(c Codec, wire []byte, v any) error {
	if err := t.scale.Weigh(c, wire); err != nil {
		return err
	}
	return t.decode(c, wire, v)
}

// ErrAltered says that a value would come back as another one, or not at all.
var ErrAltered = errors.New("the value would not come back as it is")

// survives returns ErrAltered if wire does not decode to v.
func (t *Type) survives(c Codec, wire []byte, v any) error {
	again := reflect.New(t.t)
	if err := t.decode(c, wire, again.Interface()); err != nil {
		return fmt.Errorf("%w: %w", ErrAltered, err)
	}
	switch c.(type) {
	case Msgpack, JSON: // another codec answers for itself
		original := reflect.New(t.t).Elem()
		if v != nil {
			original.Set(reflect.ValueOf(v))
		}
		if !same(original, again.Elem()) {
			return ErrAltered
		}
	}
	return nil
}

// Identity returns what entries of a t by c carry, so that no other codec takes them for its own.
func (t *Type) Identity(c Codec) uint32 {
	switch c := c.(type) {
	case Msgpack:
		return identityMsgpack
	case JSON:
		return identityJSON ^ t.blobs
	case Raw:
		return identityRaw
	case interface{ CodecName() string }:
		name := c.CodecName()
		if strings.Contains(name, "json") { // JSON, compressed or encrypted
			return hashOf(name) ^ t.blobs
		}
		return hashOf(name)
	}
	return hashOf(fmt.Sprintf("%T", c))
}

var identityMsgpack, identityJSON, identityRaw = hashOf("msgpack"), hashOf("json"), hashOf("raw")

// hashOf returns the 32-bit FNV-1a hash of name.
func hashOf(name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return h.Sum32()
}

// OnlyMsgpack reports whether wire, the value of an entry that does not say which codec wrote it,
// can be of no other than c. Msgpack alone writes values that are neither bin nor nil; a nil is taken
// for its own, since with whatever codec it was a nil value.
func OnlyMsgpack(c Codec, wire []byte) bool {
	_, ok := c.(Msgpack)
	return ok && len(wire) > 0 && (wire[0] < msgpcode.Bin8 || wire[0] > msgpcode.Bin32)
}
