// Package entry is the wire format of a stored cache entry, and nothing else.
//
// An entry is one msgpack value, an array of two: a header, which is a msgpack extension of type
// 0x52 with a body of 16 bytes, and the value itself. Any msgpack reader in any language can take
// it apart.
//
//	0x92  0xd8 0x52  version(1)=1 flags(1) loadedAt(6) freshUntil(6) loadMillis(2)  value
//
// loadedAt and freshUntil are big-endian Unix milliseconds, loadMillis is the time that the load
// took. Bit 0 of flags marks a negative entry, whose value is nil; its other seven bits then say
// which of the registered not-found errors it stands for. In any other entry they are zero.
//
// A stamped entry, version 2, also names the primary that took it, by its replication ID in hex.
// Redis itself writes the stamp, in a script; the rest is as in version 1:
//
//	0x92  0xc7 0x38 0x52  version(1)=2 flags(1) loadedAt(6) freshUntil(6) loadMillis(2) primary(40)  value
package entry

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

const (
	msgpackNil = 0xc0

	flagNegative = 1 << 0
	reasonShift  = 1

	// HeaderSize is the number of bytes before the value.
	HeaderSize = 19

	// Magic is what every entry of this version begins with.
	Magic = "\x92\xd8\x52\x01"

	// FreshUntilOffset is the position in an entry of its freshUntil, which Stamp encodes.
	FreshUntilOffset = 11

	// StampedMagic is what every stamped entry begins with. Its fields follow, as those of any other
	// entry follow the Magic.
	StampedMagic = "\x92\xc7\x38\x52\x02"
	// StampedHeaderSize is the length of the header of a stamped entry.
	StampedHeaderSize = HeaderSize + len(StampedMagic) - len(Magic) + PrimarySize
	// PrimarySize is the length of the last field of that header.
	PrimarySize = 40

	// MaxReason is the largest Reason that a negative entry has room for.
	MaxReason = math.MaxUint8 >> reasonShift

	// never is the freshUntil of an entry that is never stale.
	never = 1<<48 - 1
)

// ErrFormat is returned by Parse for bytes that are no entry of this format.
var ErrFormat = errors.New("not a readthrough entry")

// Entry is a stored entry taken apart.
type Entry struct {
	LoadedAt   time.Time     // when the loader returned the value; millisecond precision
	FreshUntil time.Time     // when the value becomes stale; the zero Time: never
	LoadTime   time.Duration // how long the load took; saturates at 65535 ms
	Negative   bool          // the loader said that there is no value
	Reason     uint8         // of a negative entry: the index of the not-found error, at most MaxReason
	Value      []byte        // the value's msgpack; ignored in a negative entry
}

// Fresh reports whether the entry is not yet stale at now.
func (e *Entry) Fresh(now time.Time) bool {
	return e.FreshUntil.IsZero() || now.Before(e.FreshUntil)
}

// AppendHeader appends the header of e to dst. The caller appends the value right behind it; the
// nil that is the value of a negative entry is appended here.
func AppendHeader(dst []byte, e *Entry) []byte {
	var flags byte
	if e.Negative {
		flags = flagNegative | e.Reason<<reasonShift
	}
	until := uint64(never)
	if !e.FreshUntil.IsZero() {
		// Short of never, so that a clock gone wild makes no entry immortal.
		until = min(millis(e.FreshUntil), never-1)
	}
	dst = append(append(dst, Magic...), flags)
	dst = appendUint48(dst, millis(e.LoadedAt))
	dst = appendUint48(dst, until)
	dst = binary.BigEndian.AppendUint16(dst, uint16(min(max(e.LoadTime.Milliseconds(), 0), math.MaxUint16)))
	if e.Negative {
		dst = append(dst, msgpackNil)
	}
	return dst
}

// Parse takes b apart. The Value of the entry aliases b and is not checked: it may be anything but
// empty. The error is ErrFormat for every b that no AppendHeader can have begun, stamped or not.
func Parse(b []byte) (Entry, error) {
	var fields, value []byte
	switch {
	case len(b) > HeaderSize && string(b[:len(Magic)]) == Magic:
		fields, value = b[len(Magic):], b[HeaderSize:]
	case len(b) > StampedHeaderSize && string(b[:len(StampedMagic)]) == StampedMagic:
		fields, value = b[len(StampedMagic):], b[StampedHeaderSize:]
	default:
		return Entry{}, ErrFormat
	}
	flags := fields[0]
	e := Entry{
		LoadedAt: time.UnixMilli(int64(uint48(fields[1:]))),
		LoadTime: time.Duration(binary.BigEndian.Uint16(fields[13:])) * time.Millisecond,
		Value:    value,
	}
	if until := uint48(fields[FreshUntilOffset-len(Magic):]); until != never {
		e.FreshUntil = time.UnixMilli(int64(until))
	}
	if flags&flagNegative == 0 {
		// A flag that this version does not know may change what the value means, so an entry with
		// such a flag cannot be read here.
		if flags != 0 {
			return Entry{}, ErrFormat
		}
		return e, nil
	}
	if len(e.Value) != 1 || e.Value[0] != msgpackNil {
		return Entry{}, ErrFormat
	}
	e.Negative, e.Reason = true, flags>>reasonShift
	return e, nil
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
