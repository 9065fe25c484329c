package readthrough

import (
	"reflect"
	"sync"
	"time"
)

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
