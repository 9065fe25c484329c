package value

import (
	"encoding"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

// Scale weighs encoded values of one Go type, before they are decoded: a byte of msgpack can become
// a struct of any size. Scale[d] is for the containers that are inside d others; nil is the Scale of
// a type whose values are never too heavy.
type Scale []weights

// weights is the memory that the values in a container take beyond the container's own.
type weights struct {
	element uint64 // each of a slice or map
	field   uint64 // each field of a struct, or element of an array: what it points to
	fields  uint64 // all of these together, however many values there are
}

// of returns the most that n values can take.
func (w *weights) of(n uint64) uint64 { return max(n*w.element, min(n*w.field, w.fields)) }

const (
	// perByte is how many bytes of memory an encoded byte may take: as much as in a value without
	// structure, of empty maps for one thing.
	perByte = 64
	// free is how many bytes of memory any value may take.
	free = 8 << 20
	// maxValues is more than there can be in a container that is decoded; no product overflows.
	maxValues = 1 << 32
)

var scales sync.Map // of Scale, by reflect.Type

// ScaleOf returns the Scale of values of type t.
func ScaleOf(t reflect.Type) Scale {
	known, ok := scales.Load(t)
	if !ok {
		known, _ = scales.LoadOrStore(t, newScale(t))
	}
	return known.(Scale)
}

func newScale(t reflect.Type) Scale {
	var s Scale
	var heaviest uint64
	for level := (types{t: {}}); len(level) > 0 && len(s) < wellformed.MaxDepth; {
		var w weights
		inside := make(types)
		for t := range level {
			inside.addContents(t, &w)
		}
		heaviest = max(heaviest, w.element, w.field)
		s = append(s, w)
		if maps.Equal(level, inside) {
			break // the last weights are those of all deeper levels
		}
		level = inside
	}
	if heaviest <= perByte {
		return nil
	}
	return s
}

// types is the types of the values that can be at one depth of nesting.
type types map[reflect.Type]struct{}

// addContents adds the types of what a container holds that is decoded into a t, and makes w heavy
// enough for it.
func (ts types) addContents(t reflect.Type, w *weights) {
	for range maxPointers {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	if decodesItself(t) {
		return
	}
	switch t.Kind() {
	case reflect.Slice:
		ts[t.Elem()] = struct{}{}
		w.element = max(w.element, memory(t.Elem()))
	case reflect.Map: // whose keys and values are counted alike
		ts[t.Key()], ts[t.Elem()] = struct{}{}, struct{}{}
		w.element = max(w.element, (memory(t.Key())+memory(t.Elem()))/2)
	case reflect.Interface:
		ts[t] = struct{}{}
		w.element = max(w.element, perByte)
	case reflect.Array:
		ts[t.Elem()] = struct{}{}
		pointee := memory(t.Elem()) - uint64(t.Elem().Size())
		w.field, w.fields = max(w.field, pointee), max(w.fields, uint64(t.Len())*pointee)
	case reflect.Struct:
		w.fields = max(w.fields, ts.addFields(t, w))
	}
}

// addFields is addContents for a struct. It returns the memory of what all fields point to.
func (ts types) addFields(t reflect.Type, w *weights) (all uint64) {
	for _, f := range reflect.VisibleFields(t) { // with those of embedded structs
		if !f.IsExported() && !f.Anonymous {
			continue
		}
		ts[f.Type] = struct{}{}
		pointee := memory(f.Type) - uint64(f.Type.Size())
		w.field = max(w.field, pointee)
		all += pointee
		if strings.Contains(f.Tag.Get("msgpack"), ",inline") && f.Type.Kind() == reflect.Struct && !f.Anonymous {
			all += ts.addFields(f.Type, w)
		}
	}
	return all
}

// maxPointers is how many pointers are followed to a value: a type can point to itself.
const maxPointers = 8

// memory returns the size of a t with what it points to.
func memory(t reflect.Type) uint64 {
	size := uint64(t.Size())
	for range maxPointers {
		if t.Kind() != reflect.Pointer {
			break
		}
		t = t.Elem()
		size += uint64(t.Size())
	}
	return size
}

// decodesItself reports whether t has a decoder of its own, which knows what it makes of a value.
func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	for _, decoder := range itself {
		if p.Implements(decoder) {
			return true
		}
	}
	return false
}

var itself = []reflect.Type{
	reflect.TypeFor[msgpack.CustomDecoder](), reflect.TypeFor[msgpack.Unmarshaler](),
	reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](),
	reflect.TypeFor[encoding.TextUnmarshaler](),
}

// Weigh returns an error if wire, the value of an entry encoded by c, would take memory out of all
// proportion when it is decoded. Codecs of the user's answer for themselves.
func (s Scale) Weigh(c Codec, wire []byte) error {
	if s == nil {
		return nil
	}
	left := perByte*uint64(len(wire)) + free
	add := func(depth int, values uint64) bool {
		weight := s[min(depth, len(s)-1)].of(min(values, maxValues))
		if weight > left {
			return false
		}
		left -= weight
		return true
	}
	switch c.(type) {
	case Msgpack:
		return wellformed.Walk(wire, add)
	case JSON:
		b, err := binOf(wire)
		if err != nil {
			return err
		}
		return walkJSON(b, add)
	}
	return nil
}

// walkJSON calls visit for each array and object of b that ends: with the number of those around it
// and that of its elements, or keys and values, as wellformed.Walk does. It may be given any bytes.
func walkJSON(b []byte, visit func(depth int, values uint64) bool) error {
	var values []uint64 // of the arrays and objects around b[i], the outermost first
	opened, quoted := false, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case quoted:
			if c == '\\' {
				i++
			}
			quoted = c != '"'
			continue
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			continue
		case len(values) == 0:
		case c == ']' || c == '}':
			last := len(values) - 1
			if !visit(last, values[last]) {
				return wellformed.ErrHeavy
			}
			values = values[:last]
		case opened || c == ',' || c == ':':
			values[len(values)-1]++
		}
		opened, quoted = c == '[' || c == '{', c == '"'
		if opened {
			values = append(values, 0)
		}
	}
	return nil
}
