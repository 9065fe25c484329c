package value

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// CheckType returns an error that names the first type and field in a t that Msgpack would not bring
// back as it was.
func (Msgpack) CheckType(t reflect.Type) error {
	return survey{
		tag: "msgpack", encoders: msgpackEncoders, decoders: msgpackDecoders, fields: msgpackLosses,
	}.check(t, make(map[reflect.Type]bool))
}

// CheckType returns an error that names the first type and field in a t that JSON would not bring
// back as it was.
func (JSON) CheckType(t reflect.Type) error {
	return survey{
		tag: "json", encoders: jsonEncoders, decoders: jsonDecoders, fields: jsonLosses,
	}.check(t, make(map[reflect.Type]bool))
}

// CheckType returns an error if t is neither []byte nor string.
func (Raw) CheckType(t reflect.Type) error {
	if t != reflect.TypeFor[[]byte]() && t != reflect.TypeFor[string]() {
		return fmt.Errorf("the Raw codec stores []byte and string, not %v", t)
	}
	return nil
}

// CodecName returns the name of the format, which the entry carries.
func (Msgpack) CodecName() string { return "msgpack" }

// CodecName returns the name of the format, which the entry carries.
func (JSON) CodecName() string { return "json" }

// CodecName returns the name of the format, which the entry carries.
func (Raw) CodecName() string { return "raw" }

// survey looks for what a codec loses.
type survey struct {
	tag                string
	encoders, decoders []reflect.Type
	fields             func(t reflect.Type) (inside []reflect.StructField, err error)
}

// check returns an error if a t does not survive, whatever its value.
func (s survey) check(t reflect.Type, seen map[reflect.Type]bool) error {
	if seen[t] || t == timeType {
		return nil
	}
	seen[t] = true
	enc, dec := ownMethod(t, s.encoders), ownMethod(t, s.decoders)
	switch {
	case pointsToItself(t):
		return fmt.Errorf("%v points to itself, or through too many pointers", t)
	case t.Kind() == reflect.Pointer:
		return s.check(t.Elem(), seen)
	case t.Kind() == reflect.Interface:
		return nil // it depends on the value
	case enc != dec: // it depends on the value too
		return nil
	case enc != itselfNot:
		return s.checkPromoted(t, s.encoders[enc-1])
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return s.check(t.Elem(), seen)
	case reflect.Map:
		if err := s.check(t.Key(), seen); err != nil && s.tag == "msgpack" {
			return err
		}
		return s.check(t.Elem(), seen)
	case reflect.Struct:
		return s.checkStruct(t, seen)
	}
	return nil
}

func (s survey) checkStruct(t reflect.Type, seen map[reflect.Type]bool) error {
	inside, err := s.fields(t)
	if err != nil {
		return err
	}
	if name := s.unexported(t); name != "" {
		return fmt.Errorf("%v.%s is unexported and would come back zero; tag it `%s:\"-\"` if it may", t, name, s.tag)
	}
	for _, f := range inside {
		if err := s.check(f.Type, seen); err != nil {
			return err
		}
	}
	return nil
}

// unexported returns the name of a field of t that holds data and is not encoded, for it is
// unexported.
func (s survey) unexported(t reflect.Type) string {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get(s.tag), ",")
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		inlined := f.Anonymous && name == "" && embedded.Kind() == reflect.Struct && embedded != timeType &&
			ownMethod(embedded, s.encoders) == itselfNot
		switch {
		case name == "-", f.Name == "_", f.Type.Size() == 0, f.Type.PkgPath() == "sync":
		case inlined && f.Type.Kind() == reflect.Struct: // its exported fields are encoded
			if inner := s.unexported(embedded); inner != "" {
				return f.Name + "." + inner
			}
		case !f.IsExported():
			return f.Name
		}
	}
	return ""
}

// checkPromoted returns an error if t has the encoder of what it embeds, and so none for its other
// fields.
func (s survey) checkPromoted(t reflect.Type, encoder reflect.Type) error {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		encodes := ownMethod(f.Type, []reflect.Type{encoder}) != itselfNot || f.Type == timeType
		if !f.Anonymous || !encodes || !promoted(t, encoder) {
			continue
		}
		for j := range t.NumField() {
			other := t.Field(j)
			if name, _, _ := strings.Cut(other.Tag.Get(s.tag), ","); j != i && name != "-" && other.Type.Size() > 0 {
				return fmt.Errorf("%v.%s would be lost: %v is encoded by the %s of its embedded %v alone",
					t, other.Name, t, encoder.Method(0).Name, f.Type)
			}
		}
	}
	return nil
}

// promoted reports whether the method by which t implements iface is that of a field that t embeds:
// then the compiler has made it.
func promoted(t, iface reflect.Type) bool {
	if !t.Implements(iface) {
		t = reflect.PointerTo(t)
	}
	m, ok := methodOf(t, iface)
	if !ok {
		return false
	}
	f := runtime.FuncForPC(m.Func.Pointer())
	if f == nil {
		return false
	}
	file, _ := f.FileLine(f.Entry())
	return file == "<autogenerated>"
}

// methodOf returns the method of t that makes it implement iface. The names are constants, so that
// the linker need not keep all methods of all types.
func methodOf(t, iface reflect.Type) (reflect.Method, bool) {
	switch iface {
	case reflect.TypeFor[msgpack.CustomEncoder]():
		return t.MethodByName("EncodeMsgpack")
	case reflect.TypeFor[msgpack.Marshaler]():
		return t.MethodByName("MarshalMsgpack")
	case reflect.TypeFor[json.Marshaler]():
		return t.MethodByName("MarshalJSON")
	}
	if iface.Method(0).Name == "MarshalBinary" {
		return t.MethodByName("MarshalBinary")
	}
	return t.MethodByName("MarshalText")
}

// msgpackLosses returns the fields of t that msgpack v5 encodes, or an error if it would lose one.
func msgpackLosses(t reflect.Type) (inside []reflect.StructField, err error) {
	fs := fieldsOf(t)
	if len(fs.pointers) > 0 {
		return nil, fmt.Errorf("%v.%s is an embedded pointer, which would not come back nil if it is: "+
			"tag it `msgpack:\",noinline\"`", t, fs.pointers[0])
	}
	if len(fs.lost) > 0 {
		return nil, fmt.Errorf("%v.%s has the name of another field, and would be lost", t, fs.lost[0])
	}
	for i, f := range fs.list {
		names := append([]string{f.name}, f.aliases...)
		for _, name := range names {
			if at := fs.byName[name]; at != i {
				return nil, fmt.Errorf("%v.%s has the name %q, which is that of %s too", t, f.Name, name, fs.list[at].Name)
			}
		}
		if f.Anonymous && !f.IsExported() {
			return nil, fmt.Errorf("%v.%s is unexported and would not come back; tag it `msgpack:\"-\"` if it may", t, f.Name)
		}
		inside = append(inside, f.StructField)
	}
	return inside, nil
}

// jsonLosses returns the fields of t that encoding/json encodes, or an error if it would lose one.
func jsonLosses(t reflect.Type) (inside []reflect.StructField, err error) {
	seen, hidden := visible(jsonFields(t, 0, ""))
	if len(hidden) > 0 {
		return nil, fmt.Errorf("%v.%s has the name %q, which another field has too", t, hidden[0].path, hidden[0].name)
	}
	for _, f := range seen {
		inside = append(inside, f.StructField)
	}
	return inside, nil
}
