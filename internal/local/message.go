package local

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

var errMessage = errors.New("a message that no release of this format sends")

// ackPrefix is what news begins with; all other messages are decided on.
const ackPrefix = "A "

// parseNews takes apart "A min gen".
func parseNews(payload string) (news, error) {
	text, gen, _ := strings.Cut(payload[len(ackPrefix):], " ")
	min, err := strconv.ParseUint(text, 10, 64)
	return news{min, gen}, err
}

// awaitedMark says of a fence that its writer waits for acknowledgements.
const awaitedMark = "w"

// parse takes apart "J seq", "E sent seq" or "F prev seq awaited keys".
func parse(payload string) (m message, awaited bool, keys string, err error) {
	what, rest, _ := strings.Cut(payload, " ")
	if len(what) != 1 {
		return m, false, "", errMessage
	}
	m.kind = kind(what[0])
	number := func() (n uint64) {
		text, after, _ := strings.Cut(rest, " ")
		n, failed := strconv.ParseUint(text, 10, 64)
		err = errors.Join(err, failed)
		rest = after
		return n
	}
	switch m.kind {
	case joined:
		m.seq = number()
	case echoed:
		m.sent = time.Duration(number())
		m.seq = number()
	case fenced:
		m.prev, m.seq = number(), number()
		what, keys, _ = strings.Cut(rest, " ")
		awaited = what == awaitedMark
	default:
		err = errMessage
	}
	return m, awaited, keys, err
}

// packKeys returns keys in one string, each after its length.
func packKeys(keys []string) string {
	var packed []byte
	for _, key := range keys {
		packed = append(binary.AppendUvarint(packed, uint64(len(key))), key...)
	}
	return string(packed)
}

// unpackKeys calls f with each key of packKeys. It reports false if packed is something else.
func unpackKeys(packed string, f func(key string)) bool {
	for len(packed) > 0 {
		n, size := binary.Uvarint([]byte(packed[:min(len(packed), binary.MaxVarintLen64)]))
		if size <= 0 || n > uint64(len(packed)-size) {
			return false
		}
		f(packed[size : size+int(n)])
		packed = packed[size+int(n):]
	}
	return true
}
