package readthrough

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// maxKeyBytes is how long an extracted key may be to be stored as it is.
const maxKeyBytes = 1 << 10

// hashed begins what stands for a longer key. No key that is stored as it is has a percent sign
// that slotEscaper did not write, so that none can be taken for a hash.
const hashed = "%x"

// slotEscaper encodes what would move the entry, or its lease, to another cluster
// slot, and the sign that it encodes with.
var slotEscaper = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D")

// String is a key extractor for keys that are strings.
func String[K ~string](k K) string { return string(k) }

// Int is a key extractor for keys that are integers.
func Int[K ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64](k K) string {
	if k < 0 {
		return strconv.FormatInt(int64(k), 10)
	}
	return strconv.FormatUint(uint64(k), 10)
}

// joinKey is the Redis key of an extracted key in a namespace that ends in a colon.
func joinKey(namespace, key string) (string, error) {
	if key == "" {
		return "", ErrEmptyKey
	}
	if isPlain(key) {
		return namespace + key, nil
	}
	if len(key) > maxKeyBytes {
		sum := sha256.Sum256([]byte(key))
		return namespace + hashed + hex.EncodeToString(sum[:31]), nil
	}
	return namespace + slotEscaper.Replace(key), nil
}

// isPlain reports whether an extracted key is stored as it is.
func isPlain(key string) bool {
	for i := range len(key) {
		if c := key[i]; c == '%' || c == '{' || c == '}' {
			return false
		}
	}
	return key != "" && len(key) <= maxKeyBytes
}
