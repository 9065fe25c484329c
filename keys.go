package readthrough

import (
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
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

// keyKind is what becomes of the keys of a wrapper when their owner changes them, while a
// load goes on that has outlived its call.
type keyKind uint8

const (
	fixedKeys  keyKind = iota // nothing in them can be changed
	clonedKeys                // a load has a clone of its own
	sharedKeys                // there is no telling what a clone would be: a load sees whether they have changed
)

func kindOfKeys(t reflect.Type) keyKind {
	switch {
	case shareable(t):
		return fixedKeys
	case cloneable(t, 0):
		return clonedKeys
	}
	return sharedKeys
}

// keep returns k for a load that may outlive the call of k's owner.
func (rt *ReadThrough[K, V]) keep(k K) K {
	if rt.types.keys == clonedKeys {
		return clone(reflect.ValueOf(&k).Elem()).Interface().(K)
	}
	return k
}

// isKeyOf reports whether k still has the Redis key that was made of it.
func (rt *ReadThrough[K, V]) isKeyOf(k K, key string) (same bool) {
	if rt.types.keys != sharedKeys {
		return true
	}
	defer func() { _ = recover() }() // a key that cannot be read any more is another
	now, err := rt.RedisKey(k)
	return err == nil && now == key
}

// maxCloneDepth bounds the nesting of types that are cloned: a type can contain itself.
const maxCloneDepth = 8

// cloneable reports whether a clone of a t shares nothing with it that could be changed.
func cloneable(t reflect.Type, depth int) bool {
	if depth > maxCloneDepth || reflect.PointerTo(t).Implements(reflect.TypeFor[sync.Locker]()) {
		return false
	}
	if t == reflect.TypeFor[time.Time]() {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return cloneable(t.Elem(), depth+1)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if !shareable(f.Type) && !f.IsExported() || !cloneable(f.Type, depth+1) {
				return false
			}
		}
		return true
	}
	return shareable(t)
}

// clone returns a copy of v, whose type is cloneable.
func clone(v reflect.Value) reflect.Value {
	t := v.Type()
	if shareable(t) {
		return v
	}
	switch t.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		p := reflect.New(t.Elem())
		p.Elem().Set(clone(v.Elem()))
		return p.Convert(t)
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		s := reflect.MakeSlice(t, v.Len(), v.Len())
		reflect.Copy(s, v)
		if !shareable(t.Elem()) {
			for i := range v.Len() {
				s.Index(i).Set(clone(v.Index(i)))
			}
		}
		return s
	}
	c := reflect.New(t).Elem()
	c.Set(v)
	for i := 0; t.Kind() == reflect.Array && i < t.Len(); i++ {
		c.Index(i).Set(clone(v.Index(i)))
	}
	for i := 0; t.Kind() == reflect.Struct && i < t.NumField(); i++ {
		if !shareable(t.Field(i).Type) {
			c.Field(i).Set(clone(v.Field(i)))
		}
	}
	return c
}
