package goredis

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"

	"github.com/readthrough-go/readthrough"
)

// Codec writes and reads values as go-redis/cache v9 does without a Marshal or Unmarshal of its user's:
// a string or []byte as it is, anything else as msgpack and one byte that says whether that is
// compressed, with s2 from 64 bytes on. It is for Warm, and for WithCodec where the values are to
// stay compressed.
//
// Unlike the library it bounds what hostile bytes can do: msgpack is checked as by readthrough.Msgpack,
// and a value that claims to be larger than 64 MiB is an error.
var Codec readthrough.Codec = codec{}

const (
	plain      = 0x0 // the last byte of a value
	compressed = 0x1

	compressFrom = 64       // bytes of msgpack
	maxSize      = 64 << 20 // bytes of msgpack
)

type codec struct{}

func (codec) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	}
	b, err := readthrough.Msgpack.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) < compressFrom {
		return append(b, plain), nil
	}
	return append(s2.Encode(nil, b), compressed), nil
}

func (codec) Unmarshal(b []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		*v = bytes.Clone(b)
		return nil
	case *string:
		*v = string(b)
		return nil
	}
	if len(b) == 0 { // what the library makes of nil
		return nil
	}
	last := len(b) - 1
	switch b, marker := b[:last], b[last]; marker {
	case plain:
		return readthrough.Msgpack.Unmarshal(b, v)
	case compressed:
		size, err := s2.DecodedLen(b)
		if err != nil {
			return err
		}
		if size > maxSize {
			return errors.New("goredis: the value claims to be too large")
		}
		if b, err = s2.Decode(nil, b); err != nil {
			return err
		}
		return readthrough.Msgpack.Unmarshal(b, v)
	default:
		return fmt.Errorf("goredis: %#x says no compression that is known", marker)
	}
}
