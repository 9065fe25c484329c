package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

const (
	headerExt   = 0x52 // the msgpack extension type of an entry's header
	headerBytes = 25   // format, loadedAt(6), freshUntil(6), checksum(4), loadMillis(2), flags, version, identity(4)
	neverStale  = 1<<48 - 1
)

// storedEntry is an entry as a program without this library reads it from
// Redis: with a msgpack reader, and the table of the header in mind.
type storedEntry struct {
	Format     byte // 3
	Flags      byte // bit 0: a remembered not-found
	LoadedAt   time.Time
	FreshUntil time.Time // zero: never stale
	LoadTime   time.Duration
	Value      any
}

// decodeEntry takes stored bytes apart: [ext 0x52 header, value].
func decodeEntry(stored []byte) (storedEntry, error) {
	dec := msgpack.NewDecoder(bytes.NewReader(stored))
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return storedEntry{}, fmt.Errorf("array: %w", err)
	}
	if n != 2 {
		return storedEntry{}, fmt.Errorf("an array of %d, not 2", n)
	}
	ext, size, err := dec.DecodeExtHeader()
	if err != nil {
		return storedEntry{}, fmt.Errorf("header: %w", err)
	}
	if ext != headerExt || size != headerBytes {
		return storedEntry{}, fmt.Errorf("ext %#x of %d bytes is no header", ext, size)
	}
	var header [headerBytes]byte
	if err := dec.ReadFull(header[:]); err != nil {
		return storedEntry{}, fmt.Errorf("header: %w", err)
	}
	e := parseHeader(header)
	if e.Value, err = dec.DecodeInterface(); err != nil {
		return storedEntry{}, fmt.Errorf("value: %w", err)
	}
	if _, err := dec.PeekCode(); err == nil {
		return storedEntry{}, errors.New("bytes after the value")
	}
	return e, nil
}

func parseHeader(h [headerBytes]byte) storedEntry {
	e := storedEntry{
		Format:   h[0],
		LoadedAt: time.UnixMilli(uint48(h[1:7])),
		LoadTime: time.Duration(binary.BigEndian.Uint16(h[17:])) * time.Millisecond,
		Flags:    h[19],
	}
	if until := uint48(h[7:13]); until != neverStale {
		e.FreshUntil = time.UnixMilli(until)
	}
	return e
}

func uint48(b []byte) int64 {
	return int64(binary.BigEndian.Uint16(b))<<32 | int64(binary.BigEndian.Uint32(b[2:]))
}
