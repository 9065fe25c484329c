// Package entry is the wire format of a stored cache entry, and nothing else.
//
// An entry is one msgpack value, an array of two: a header, which is a msgpack extension of type
// 0x52, and the value itself. Any msgpack reader in any language can take it apart. This is
// version 3 of the format, which is written:
//
//	0x92  0xc7 0x19 0x52  format(1)=3  loadedAt(6) freshUntil(6) checksum(4)
//	      loadMillis(2) flags(1) version(1) identity(4)  value
//
// loadedAt and freshUntil are big-endian Unix milliseconds, loadMillis is the time that the load
// took. Bit 0 of flags marks a negative entry, whose value is nil; its other seven bits then say
// which of the registered not-found errors it stands for. In any other entry they are zero.
// version is that of the value, by the user's count. identity tells who can read the entry: it is a
// hash of the codec's name, or of the list of not-found errors. checksum is the CRC-32C
// (Castagnoli) of loadedAt and of what follows the checksum to the end of the value. freshUntil is
// not in it, so that Redis can change it in place.
//
// A stamped entry, version 4, also names the primary that took it, by its replication ID in hex.
// Redis itself writes the stamp, in a script; the rest is as in version 3:
//
//	0x92  0xc7 0x41 0x52  format(1)=4  loadedAt(6) freshUntil(6) checksum(4)  primary(40)
//	      loadMillis(2) flags(1) version(1) identity(4)  value
//
// Version 1 is read only. It has no checksum, version and identity:
//
//	0x92  0xd8 0x52  format(1)=1 flags(1) loadedAt(6) freshUntil(6) loadMillis(2)  value
package entry

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"
)

const (
	msgpackNil = 0xc0

	flagNegative = 1 << 0
	reasonShift  = 1

	// Magic is what every entry begins with.
	Magic = "\x92\xc7\x19\x52\x03"
	// MagicV1 is what entries of version 1 began with.
	MagicV1 = "\x92\xd8\x52\x01"

	// HeaderSize is the number of bytes before the value, in version 3.
	HeaderSize = 29

	headerSizeV1 = 19

	// FreshUntilOffset is the position in an entry of its freshUntil, which Stamp encodes. It is the
	// same in all versions.
	FreshUntilOffset = 11

	// StampedMagic is what every stamped entry begins with. Its primary is at PrimaryOffset; the fields
	// before and behind that are those of any other entry.
	StampedMagic = "\x92\xc7\x41\x52\x04"
	// PrimaryOffset is the position of the primary in a stamped entry.
	PrimaryOffset = 21
	// PrimarySize is the length of the primary.
	PrimarySize = 40

	checksumOffset = 17

	// MaxReason is the largest Reason that a negative entry has room for.
	MaxReason = math.MaxUint8 >> reasonShift

	// never is the freshUntil of an entry that is never stale.
	never = 1<<48 - 1
)

// ErrFormat and ErrChecksum are returned by Parse for bytes that are no entry of a format that is
// known, or that were changed since they were written.
var (
	ErrFormat   = errors.New("not a readthrough entry")
	ErrChecksum = errors.New("the checksum of the entry is wrong")
)

// Entry is a stored entry taken apart.
type Entry struct {
	LoadedAt   time.Time     // when the loader returned the value; millisecond precision
	FreshUntil time.Time     // when the value becomes stale; the zero Time: never
	LoadTime   time.Duration // how long the load took; saturates at 65535 ms
	Negative   bool          // the loader said that there is no value
	Reason     uint8         // of a negative entry: the index of the not-found error, at most MaxReason
	Version    uint8         // of the value
	Identity   uint32        // of the codec, or of a negative entry: of the list of not-found errors
	V1         bool          // it was read from version 1: its Identity is not known
	Value      []byte        // the value's msgpack; ignored in a negative entry
}

// Fresh reports whether the entry is not yet stale at now.
func (e *Entry) Fresh(now time.Time) bool {
	return e.FreshUntil.IsZero() || now.Before(e.FreshUntil)
}

// Append appends e to dst: its header, what value appends, and the checksum of both. A negative
// entry has a value of its own. If value fails, so does Append.
func Append(dst []byte, e *Entry, value func(dst []byte) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	dst = appendHeader(dst, e)
	if e.Negative {
		dst = append(dst, msgpackNil)
	} else {
		var err error
		if dst, err = value(dst); err != nil {
			return nil, err
		}
	}
	b := dst[start:]
	binary.BigEndian.PutUint32(b[checksumOffset:], checksum(b, b[PrimaryOffset:]))
	return dst, nil
}

// appendHeader appends the header of e without its checksum.
func appendHeader(dst []byte, e *Entry) []byte {
	var flags byte
	if e.Negative {
		flags = flagNegative | e.Reason<<reasonShift
	}
	until := uint64(never)
	if !e.FreshUntil.IsZero() {
		// Short of never, so that a clock gone wild makes no entry immortal.
		until = min(millis(e.FreshUntil), never-1)
	}
	dst = append(dst, Magic...)
	dst = appendUint48(dst, millis(e.LoadedAt))
	dst = appendUint48(dst, until)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(min(max(e.LoadTime.Milliseconds(), 0), math.MaxUint16)))
	dst = append(dst, flags, e.Version)
	return binary.BigEndian.AppendUint32(dst, e.Identity)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the checksum of the entry b, of which rest is what follows the checksum, and the
// primary if there is one.
func checksum(b, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[len(Magic):FreshUntilOffset], castagnoli), castagnoli, rest)
}

// Parse takes b apart. The Value of the entry aliases b: it may be anything but empty. The error is
// ErrFormat or ErrChecksum for every b that no Append of a version that is known can have made,
// stamped or not.
func Parse(b []byte) (Entry, error) {
	rest := PrimaryOffset
	switch {
	case len(b) > HeaderSize && string(b[:len(Magic)]) == Magic:
	case len(b) > HeaderSize+PrimarySize && string(b[:len(StampedMagic)]) == StampedMagic:
		rest += PrimarySize
	case len(b) > headerSizeV1 && string(b[:len(MagicV1)]) == MagicV1:
		e := Entry{V1: true}
		err := e.parse(b, b[4], b[17:], b[headerSizeV1:])
		return e, err
	default:
		return Entry{}, ErrFormat
	}
	fields := b[rest:]
	if binary.BigEndian.Uint32(b[checksumOffset:]) != checksum(b, fields) {
		return Entry{}, ErrChecksum
	}
	e := Entry{Version: fields[3], Identity: binary.BigEndian.Uint32(fields[4:])}
	err := e.parse(b, fields[2], fields, fields[HeaderSize-PrimaryOffset:])
	return e, err
}

// parse fills e from the fields that all versions have: the times are where they are in all of them.
func (e *Entry) parse(b []byte, flags byte, loadMillis, value []byte) error {
	e.LoadedAt = time.UnixMilli(int64(uint48(b[5:])))
	e.LoadTime = time.Duration(binary.BigEndian.Uint16(loadMillis)) * time.Millisecond
	e.Value = value
	if until := uint48(b[FreshUntilOffset:]); until != never {
		e.FreshUntil = time.UnixMilli(int64(until))
	}
	e.Negative = flags&flagNegative != 0
	switch {
	case e.Negative && (len(value) != 1 || value[0] != msgpackNil):
		return ErrFormat
	case e.Negative:
		e.Reason = flags >> reasonShift
	case flags != 0:
		// A flag that is not known may change what the value means, so an entry with such a flag
		// cannot be read here.
		return ErrFormat
	}
	return nil
}

// Stamp returns t as the header holds it, in 6 bytes.
func Stamp(t time.Time) []byte { return appendUint48(nil, millis(t)) }

// millis returns t in Unix milliseconds, clamped to what 48 bits hold.
func millis(t time.Time) uint64 {
	return uint64(min(max(t.UnixMilli(), 0), 1<<48-1))
}

func appendUint48(dst []byte, v uint64) []byte {
	return append(dst, byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func uint48(b []byte) uint64 {
	_ = b[5]
	return uint64(b[0])<<40 | uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
}
