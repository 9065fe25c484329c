package value

import (
	"maps"
	"reflect"
	"strings"

	"github.com/readthrough-go/readthrough/internal/wire/wellformed"
)

// Scale weighs encoded values of one Go type, before they are decoded: a byte of msgpack can become
// a struct of any size. Each codec has types that decode themselves, which it knows nothing of.
type Scale struct{ msgpack, json levels }

// levels weighs the containers that are inside so many others. Those of a type whose values are
// never too heavy are nil.
type levels []weights

// weights is the memory that the values in a container take beyond the container's own.
type weights struct {
	element uint64 // each of a slice
	pair    uint64 // each key of a map with its value
	field   uint64 // each field of a struct, or element of an array: what it points to
	fields  uint64 // all of these together, however many values there are
}

// of returns the most that n values can take. A map has room for eight pairs from the first on.
func (w *weights) of(n uint64) uint64 {
	heaviest := max(n*w.element, min(n*w.field, w.fields))
	if n > 0 && w.pair > 0 {
		heaviest = max(heaviest, emptyMap+max(n/2, 8)*w.pair)
	}
	return heaviest
}

const (
	// perByte is how many bytes of memory an encoded byte may take: as much as in a value without
	// structure, of maps with one pair for one thing.
	perByte = 128
	// free is how many bytes of memory any value may take.
	free = 8 << 20
	// maxValues is more than there can be in a container that is decoded; no product overflows.
	maxValues = 1 << 32
	// boxed is the memory of a scalar in an interface, emptyMap that of a map with no pair.
	boxed, emptyMap = 64, 48
)

// ScaleOf returns the Scale of values of type t.
func ScaleOf(t reflect.Type) Scale { return TypeOf(t).scale }

func newScale(t reflect.Type) Scale {
	return Scale{
		msgpack: newLevels(t, func(t reflect.Type) bool { return decodedByItself(t) != itselfNot }),
		json:    newLevels(t, func(t reflect.Type) bool { return ownMethod(t, jsonDecoders) != itselfNot }),
	}
}

func newLevels(t reflect.Type, decodesItself func(reflect.Type) bool) levels {
	var ls levels
	var heaviest uint64
	for level := (types{t: {}}); len(level) > 0 && len(ls) < wellformed.MaxDepth; {
		var w weights
		inside := make(types)
		for t := range level {
			if t = pointedTo(t); !decodesItself(t) {
				inside.addContents(t, &w)
			}
		}
		heaviest = max(heaviest, w.element, w.field, w.of(2)/3) // a map of one pair takes three bytes
		ls = append(ls, w)
		if maps.Equal(level, inside) {
			break // the last weights are those of all deeper levels
		}
		level = inside
	}
	if heaviest <= perByte {
		return nil
	}
	return ls
}

// types is the types of the values that can be at one depth of nesting.
type types map[reflect.Type]struct{}

// addContents adds the types of what a container holds that is decoded into a t, and makes w heavy
// enough for it.
func (ts types) addContents(t reflect.Type, w *weights) {
	switch t.Kind() {
	case reflect.Slice:
		ts[t.Elem()] = struct{}{}
		w.element = max(w.element, memory(t.Elem()))
	case reflect.Map:
		ts[t.Key()], ts[t.Elem()] = struct{}{}, struct{}{}
		w.pair = max(w.pair, memory(t.Key())+memory(t.Elem()))
	case reflect.Interface: // also of a map[string]any
		ts[t] = struct{}{}
		w.element, w.pair = max(w.element, boxed), max(w.pair, 2*uint64(t.Size()))
	case reflect.Array:
		ts[t.Elem()] = struct{}{}
		beyond := memory(t.Elem()) - uint64(t.Elem().Size())
		w.field, w.fields = max(w.field, beyond), max(w.fields, uint64(t.Len())*beyond)
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
		beyond := memory(f.Type) - uint64(f.Type.Size())
		w.field = max(w.field, beyond)
		all += beyond
		if strings.Contains(f.Tag.Get("msgpack"), ",inline") && f.Type.Kind() == reflect.Struct && !f.Anonymous {
			all += ts.addFields(f.Type, w)
		}
	}
	return all
}

// maxPointers is how many pointers are followed to a value: a type can point to itself.
const maxPointers = 8

// pointedTo returns the type that a t points to, through several pointers if need be.
func pointedTo(t reflect.Type) reflect.Type {
	for i := 0; i < maxPointers && t.Kind() == reflect.Pointer; i++ {
		t = t.Elem()
	}
	return t
}

// pointsToItself reports whether t points to itself, or through more pointers than are followed.
func pointsToItself(t reflect.Type) bool {
	for range maxPointers {
		if t.Kind() != reflect.Pointer {
			return false
		}
		t = t.Elem()
	}
	return t.Kind() == reflect.Pointer
}

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

// Weigh returns an error if wire, the value of an entry encoded by c, would take memory out of all
// proportion when it is decoded. Codecs of the user's answer for themselves.
func (s Scale) Weigh(c Codec, wire []byte) error {
	switch c.(type) {
	case Msgpack:
		if s.msgpack == nil {
			return nil
		}
		return wellformed.Walk(wire, s.msgpack.weigher(wire))
	case JSON:
		if s.json == nil {
			return nil
		}
		b, err := binOf(wire)
		if err != nil {
			return err
		}
		return walkJSON(b, s.json.weigher(wire))
	}
	return nil
}

// weigher returns what is told of each container in wire, and reports false once they are too heavy.
func (ls levels) weigher(wire []byte) func(depth int, values uint64) bool {
	left := perByte*uint64(len(wire)) + free
	return func(depth int, values uint64) bool {
		weight := ls[min(depth, len(ls)-1)].of(min(values, maxValues))
		if weight > left {
			return false
		}
		left -= weight
		return true
	}
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
