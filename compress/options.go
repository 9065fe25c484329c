package compress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// maxMaxBytes is the largest window that the decoder of Zstandard accepts.
const maxMaxBytes = 512 << 20

// Option is a setting for Zstd and S2.
type Option func(*settings) error

type settings struct {
	minBytes, maxBytes int
	dictionaries       []dictionary // the first writes, all read
}

// dictionary is what values are compressed against.
type dictionary struct {
	id      uint32
	bytes   []byte
	trained bool // with entropy tables, as opposed to mere content
}

// dictionaryMagic is what a trained dictionary begins with (RFC 8878, section 6).
var dictionaryMagic = []byte{0x37, 0xa4, 0x30, 0xec}

// WithMinBytes sets the size from which a value is compressed, in bytes of the inner codec. Default
// 512: below, without a dictionary, little is saved. A smaller value, and one that compression would
// not make smaller, is stored as it is and one byte more.
func WithMinBytes(n int) Option {
	return func(s *settings) error {
		s.minBytes = n
		if n < 0 {
			return fmt.Errorf("compress: WithMinBytes: %d is negative", n)
		}
		return nil
	}
}

// WithMaxBytes sets how many bytes a value may decompress to. Default 8 MiB, at most 512 MiB. What
// would be more is an error, and is not stored.
func WithMaxBytes(n int) Option {
	return func(s *settings) error {
		s.maxBytes = n
		if n < 1 || n > maxMaxBytes {
			return fmt.Errorf("compress: WithMaxBytes: %d is not from 1 to %d", n, maxMaxBytes)
		}
		return nil
	}
}

// WithDictionary has Zstd compress against a dictionary, which makes small values that look alike
// less than half as large; give WithMinBytes(64) with it. Default: none. Given several times, the
// first writes and all read, S2's too, so that a dictionary is replaced as an encryption key is:
// deploy the new one as the second, then as the first, and drop the old one when its entries have
// expired.
//
// A dictionary is a file that `zstd --train` has made, or simply a few typical values of the inner
// codec, one after the other: 16 KiB of them are good. All processes must have the same bytes under
// one id, which is not 0; an entry of another dictionary is a miss.
func WithDictionary(id uint32, dict []byte) Option {
	return func(s *settings) error {
		d := dictionary{id: id, bytes: slices.Clone(dict), trained: bytes.HasPrefix(dict, dictionaryMagic)}
		switch {
		case id == 0:
			return fmt.Errorf("compress: WithDictionary: the id is 0")
		case len(dict) < 8 || len(dict) > maxDictionary:
			return fmt.Errorf("compress: WithDictionary: %d bytes are not from 8 to %d", len(dict), maxDictionary)
		case d.trained && binary.LittleEndian.Uint32(dict[4:]) != id:
			own := binary.LittleEndian.Uint32(dict[4:])
			return fmt.Errorf("compress: WithDictionary: the dictionary has the id %d, not %d", own, id)
		case slices.ContainsFunc(s.dictionaries, func(other dictionary) bool { return other.id == id }):
			return fmt.Errorf("compress: WithDictionary: two dictionaries with the id %d", id)
		}
		if err := d.check(); err != nil {
			return fmt.Errorf("compress: WithDictionary: %w", err)
		}
		s.dictionaries = append(s.dictionaries, d)
		return nil
	}
}
