package value

import (
	"math"
	"reflect"
	"strings"
	"time"
)

// uncertain reports whether a t can survive Msgpack or JSON or not, depending on its value: what is
// in an interface, a pointer to what is nil, what has an encoding of its own.
func uncertain(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] || t == timeType {
		return false
	}
	seen[t] = true
	if encodesItself(t) != itselfNot || decodedByItself(t) != itselfNot ||
		ownMethod(t, jsonEncoders) != itselfNot || ownMethod(t, jsonDecoders) != itselfNot {
		return t != reflect.PointerTo(timeType)
	}
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer:
		return nilable(t.Elem()) || uncertain(t.Elem(), seen)
	case reflect.Slice, reflect.Array:
		return uncertain(t.Elem(), seen)
	case reflect.Map:
		return uncertain(t.Key(), seen) || uncertain(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			omits := strings.Contains(string(f.Tag), "omitempty") || strings.Contains(string(f.Tag), "omitzero")
			if f.Anonymous && f.Type.Kind() == reflect.Pointer || omits && saysZero(f.Type) || uncertain(f.Type, seen) {
				return true
			}
		}
	}
	return false
}

// saysZero reports whether t says itself what is omitted.
func saysZero(t reflect.Type) bool {
	return t != timeType && t.Implements(reflect.TypeFor[interface{ IsZero() bool }]())
}

// nilable reports whether a t can be nil.
func nilable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func:
		return true
	}
	return false
}

// same reports whether b, which was decoded from what a was encoded to, is a, but for what the codecs
// are documented to change: the location of a time, the type of a number in an any, and whether
// what omitempty has left out is nil or empty.
func same(a, b reflect.Value) bool {
	if a.Type() != b.Type() {
		return sameNumber(a, b)
	}
	if trusted(a.Type()) {
		return sameTime(a, b)
	}
	switch a.Kind() {
	case reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() && b.IsNil()
		}
		return same(a.Elem(), b.Elem())
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() && b.IsNil()
		}
		return same(a.Elem(), b.Elem())
	case reflect.Struct:
		return sameFields(a, b)
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		return sameMap(a, b)
	case reflect.String:
		return a.String() == b.String()
	case reflect.Bool:
		return a.Bool() == b.Bool()
	}
	return sameNumber(a, b)
}

// trusted reports whether the type says itself how its values are encoded and decoded.
func trusted(t reflect.Type) bool {
	own := encodesItself(t)
	if own != itselfNot && own == decodedByItself(t) {
		return true
	}
	own = ownMethod(t, jsonEncoders)
	return own != itselfNot && own == ownMethod(t, jsonDecoders)
}

// sameTime compares two times, or trusts what has an encoding of its own.
func sameTime(a, b reflect.Value) bool {
	if nilable(a.Type()) && (a.IsNil() || b.IsNil()) {
		return a.IsNil() == b.IsNil()
	}
	if a.Type() != timeType || !a.CanInterface() {
		return true
	}
	return a.Interface().(time.Time).Equal(b.Interface().(time.Time))
}

// sameFields compares two structs by their exported fields, and those of what they embed: New has
// refused types with others.
func sameFields(a, b reflect.Value) bool {
	for i := range a.NumField() {
		f := a.Type().Field(i)
		if !f.IsExported() && !f.Anonymous || f.Tag.Get("msgpack") == "-" || f.Tag.Get("json") == "-" {
			continue
		}
		if !same(a.Field(i), b.Field(i)) {
			return false
		}
	}
	return true
}

func sameMap(a, b reflect.Value) bool {
	if a.Len() != b.Len() {
		return false
	}
	for each := a.MapRange(); each.Next(); {
		other := b.MapIndex(each.Key())
		if !other.IsValid() || !same(each.Value(), other) {
			return false
		}
	}
	return true
}

// sameNumber compares two numbers of one type, or of any two that have no names of their own.
func sameNumber(a, b reflect.Value) bool {
	if a.Type() != b.Type() && (a.Type().PkgPath() != "" || b.Type().PkgPath() != "") {
		return false
	}
	switch {
	case a.CanFloat() && b.CanFloat():
		return a.Float() == b.Float() || math.IsNaN(a.Float()) && math.IsNaN(b.Float())
	case a.CanFloat() || b.CanFloat():
		f, n := a, b
		if b.CanFloat() {
			f, n = b, a
		}
		const exact = 1 << 53
		x := f.Float()
		return x == math.Trunc(x) && math.Abs(x) <= exact && sameInteger(reflect.ValueOf(int64(x)), n)
	}
	return sameInteger(a, b)
}

func sameInteger(a, b reflect.Value) bool {
	switch {
	case a.CanInt() && b.CanInt():
		return a.Int() == b.Int()
	case a.CanUint() && b.CanUint():
		return a.Uint() == b.Uint()
	case a.CanInt() && b.CanUint():
		return a.Int() >= 0 && uint64(a.Int()) == b.Uint()
	case a.CanUint() && b.CanInt():
		return b.Int() >= 0 && uint64(b.Int()) == a.Uint()
	}
	return false
}
