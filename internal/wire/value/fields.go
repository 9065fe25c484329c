package value

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// A msgpackField is a field of a struct as msgpack v5 encodes it.
type msgpackField struct {
	reflect.StructField
	name      string
	aliases   []string
	omitEmpty bool
	intern    bool
}

// structFields is the fields of a struct in the order in which msgpack v5 encodes them.
type structFields struct {
	list     []msgpackField
	byName   map[string]int // the field that is decoded
	inlined  []msgpackField // embedded structs, which can also be decoded by their own names
	pointers []string       // embedded pointers to such
	lost     []string       // fields of such whose names were taken
	asArray  bool
	within   []reflect.Type // the struct, and those that embed it
}

// fieldsOf returns the fields of t by the rules of msgpack v5: an embedded struct is inlined if it
// has no encoding of its own, and none of its names is taken.
func fieldsOf(t reflect.Type) structFields { return fieldsWithin(t, nil) }

// fieldsWithin is fieldsOf for a struct that is embedded in others.
func fieldsWithin(t reflect.Type, outer []reflect.Type) structFields {
	fs := structFields{byName: make(map[string]int), within: append(slices.Clip(outer), t)}
	allOmitEmpty := false
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
		if name == "-" {
			continue
		}
		has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
		if f.Name == "_msgpack" {
			fs.asArray = has("as_array") || has("asArray")
			allOmitEmpty = allOmitEmpty || has("omitempty")
		}
		if !f.IsExported() && !f.Anonymous {
			continue
		}
		field := msgpackField{f, name, nil, allOmitEmpty || has("omitempty"), has("intern")}
		if name == "" {
			field.name = f.Name
		}
		for _, option := range strings.Split(options, ",") {
			if alias, ok := strings.CutPrefix(option, "alias:"); ok {
				field.aliases = append(field.aliases, alias)
			}
		}
		if f.Anonymous && !has("noinline") && fs.inline(field, has("inline")) {
			continue
		}
		fs.add(field)
	}
	return fs
}

// add adds a field. Of several of one name the last one is decoded.
func (fs *structFields) add(f msgpackField) {
	for _, name := range append([]string{f.name}, f.aliases...) {
		fs.byName[name] = len(fs.list)
	}
	fs.list = append(fs.list, f)
}

// inline adds the fields of an embedded struct, and reports whether there is one that msgpack
// inlines. If it must, names that are taken are left out.
func (fs *structFields) inline(f msgpackField, must bool) bool {
	t := f.Type
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || !must && encodesItself(t) != itselfNot {
		return false
	}
	if slices.Contains(fs.within, t) { // it embeds itself, by a pointer
		fs.pointers = append(fs.pointers, f.Name)
		return true
	}
	inner := fieldsWithin(t, fs.within)
	taken := func(f msgpackField) bool { _, ok := fs.byName[f.name]; return ok }
	if !must && slices.ContainsFunc(inner.list, taken) {
		return false
	}
	for _, inlined := range inner.list {
		if inlined.Name = f.Name + "." + inlined.Name; taken(inlined) {
			fs.lost = append(fs.lost, inlined.Name)
		} else {
			fs.add(inlined)
		}
	}
	fs.lost = append(fs.lost, prefixed(f.Name, inner.lost)...)
	fs.pointers = append(fs.pointers, prefixed(f.Name, inner.pointers)...)
	if f.Type.Kind() == reflect.Pointer {
		fs.pointers = append(fs.pointers, f.Name)
	}
	fs.inlined = append(fs.inlined, f)
	return true
}

// prefixed returns the names of what is in the field of that name.
func prefixed(field string, names []string) []string {
	names = slices.Clone(names)
	for i := range names {
		names[i] = field + "." + names[i]
	}
	return names
}

// itself is how a type is encoded, or decoded, by methods of its own.
type itself uint8

const (
	itselfNot     itself = iota
	itselfMsgpack        // with the encoder
	itselfMarshal        // MarshalMsgpack
	itselfBinary         // MarshalBinary
	itselfText           // MarshalText
	itselfTime           // an ext, for time.Time alone
)

var (
	msgpackEncoders = []reflect.Type{
		reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.Marshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler](),
	}
	msgpackDecoders = []reflect.Type{
		reflect.TypeFor[msgpack.CustomDecoder](), reflect.TypeFor[msgpack.Unmarshaler](),
		reflect.TypeFor[encoding.BinaryUnmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
	}
	jsonEncoders = []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()}
	jsonDecoders = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}

	timeType = reflect.TypeFor[time.Time]()
)

// encodesItself returns which of the interfaces msgpack v5 encodes t by.
func encodesItself(t reflect.Type) itself { return ownMethod(t, msgpackEncoders) }

// decodedByItself returns which of the interfaces msgpack v5 decodes t by.
func decodedByItself(t reflect.Type) itself { return ownMethod(t, msgpackDecoders) }

// ownMethod returns the place in list, from one, of the interface that t implements, or else that a
// pointer to it does; zero if there is none.
func ownMethod(t reflect.Type, list []reflect.Type) itself {
	if t == timeType {
		return itselfTime
	}
	for _, t := range []reflect.Type{t, reflect.PointerTo(t)} {
		for i, iface := range list {
			if t.Kind() != reflect.Interface && t.Implements(iface) {
				return itself(i + 1)
			}
		}
	}
	return itselfNot
}
