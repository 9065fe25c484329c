// Package encrypt is a codec that encrypts what another codec makes of a value, and binds it to the
// Redis key under which it is stored.
//
//	key, err := encrypt.NewKey(20261125, secret) // 32 bytes out of your secret store
//	codec, err := encrypt.New(readthrough.JSON, key)
//	users, err := readthrough.New(cache, "user", findUser, readthrough.Int, readthrough.WithCodec(codec))
//
// Whoever can read Redis, its replicas or its backups then sees no values, and whoever can write to
// it cannot make up a value, change one, or pass one key's for another's: all of these are a miss.
// docs/codecs.md says how to rotate keys, and what stays visible and possible.
//
// The cipher is AES-256-GCM under a key derived for each entry: XAES-256-GCM
// (https://c2sp.org/XAES-256-GCM). Encrypted bytes do not compress: compress first, by giving New a
// codec that does.
package encrypt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
)

// Inner is a codec whose bytes are encrypted: any readthrough.Codec.
type Inner interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// An encrypted value begins with its form and the id of its key, which are authenticated with it:
//
//	form (1)  key id (4, big-endian)  nonce (24)  ciphertext  tag (16)
const (
	formBytes = 1 // the ciphertext is that of Inner's bytes
	formNil   = 2 // Inner returned nil, and not merely no bytes

	headerSize = 5
	// Overhead is how many bytes longer than those of the inner codec the encrypted bytes are.
	Overhead = headerSize + nonceSize + tagSize
)

var (
	errUnbound = errors.New("encrypt: this codec needs to be told the Redis key, and can only be the outermost codec")
	errFormat  = errors.New("encrypt: not an encrypted value")
)

// Codec is a readthrough.KeyedCodec: it is told the Redis key of each value. It may be used by many
// goroutines at once.
type Codec struct {
	inner Inner
	write Key
	keys  map[uint32]Key
}

// New returns a codec that encrypts what inner makes of a value with the key write, and decrypts
// what was encrypted with write or any of read. Two keys of one id are an error.
func New(inner Inner, write Key, read ...Key) (*Codec, error) {
	if inner == nil {
		return nil, errors.New("encrypt: the inner codec is nil")
	}
	c := &Codec{inner: inner, write: write, keys: make(map[uint32]Key)}
	for _, k := range append([]Key{write}, read...) {
		if k.derive == nil {
			return nil, errors.New("encrypt: a key was not made by NewKey")
		}
		if _, ok := c.keys[k.id]; ok {
			return nil, fmt.Errorf("encrypt: two keys with the id %d", k.id)
		}
		c.keys[k.id] = k
	}
	return c, nil
}

// MarshalKey encrypts v for the given Redis key.
func (c *Codec) MarshalKey(key string, v any) ([]byte, error) {
	plain, err := c.inner.Marshal(v)
	if err != nil {
		return nil, err
	}
	form := byte(formBytes)
	if plain == nil {
		form = formNil
	}
	out := make([]byte, 0, Overhead+len(plain))
	out = binary.BigEndian.AppendUint32(append(out, form), c.write.id)
	return c.write.seal(out, plain, additionalData(out, key))
}

// UnmarshalKey sets what v points to from data, which MarshalKey made for the same Redis key. All
// other data are an error, and v is left alone.
func (c *Codec) UnmarshalKey(key string, data []byte, v any) error {
	if len(data) < Overhead || data[0] != formBytes && data[0] != formNil {
		return errFormat
	}
	header, sealed := data[:headerSize], data[headerSize:]
	id := binary.BigEndian.Uint32(header[1:])
	k, ok := c.keys[id]
	if !ok {
		return fmt.Errorf("encrypt: no key with the id %d", id)
	}
	plain, err := k.open(sealed, additionalData(header, key))
	if err != nil {
		return err
	}
	if header[0] == formNil {
		plain = nil
	}
	return c.inner.Unmarshal(plain, v)
}

// additionalData returns what is authenticated with a ciphertext but not encrypted: the header, whose
// size is fixed, and the Redis key.
func additionalData(header []byte, key string) []byte {
	return append(append(make([]byte, 0, headerSize+len(key)), header...), key...)
}

// Marshal returns an error: without the Redis key nothing is encrypted, so that nothing is ever
// stored that is not bound to its key.
func (c *Codec) Marshal(any) ([]byte, error) { return nil, errUnbound }

// Unmarshal returns an error, as Marshal does.
func (c *Codec) Unmarshal([]byte, any) error { return errUnbound }

// CheckType returns an error if the inner codec says that it cannot keep values of type t.
func (c *Codec) CheckType(t reflect.Type) error {
	if inner, ok := c.inner.(interface{ CheckType(reflect.Type) error }); ok {
		return inner.CheckType(t)
	}
	return nil
}

// CodecName returns the name of the format: that of the inner codec, encrypted.
func (c *Codec) CodecName() string {
	if inner, ok := c.inner.(interface{ CodecName() string }); ok {
		return "encrypt(" + inner.CodecName() + ")"
	}
	return fmt.Sprintf("encrypt(%T)", c.inner)
}

// String returns the name of the codec and the id of the key that it writes with.
func (c *Codec) String() string { return fmt.Sprintf("%s with %v", c.CodecName(), c.write) }

// GoString returns what String does, for %#v.
func (c *Codec) GoString() string { return c.String() }
