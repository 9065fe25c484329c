package value

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A jsonField is a field of a struct as encoding/json encodes it, that of an embedded struct
// included.
type jsonField struct {
	reflect.StructField
	name      string
	depth     int // of embedding
	tagged    bool
	omittable bool
	quoted    bool   // by the string option
	path      string // in Go
}

// jsonFields returns all fields of t that encoding/json knows, hidden ones too.
func jsonFields(t reflect.Type, depth int, path string) (all []jsonField) {
	if depth > 16 { // it embeds itself
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && options == "" {
			continue
		}
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		if f.Anonymous && name == "" && embedded.Kind() == reflect.Struct {
			all = append(all, jsonFields(embedded, depth+1, path+f.Name+".")...)
			continue
		}
		if !f.IsExported() {
			continue
		}
		has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
		all = append(all, jsonField{
			f, cmp.Or(name, f.Name), depth, name != "", has("omitempty") || has("omitzero"), has("string"), path + f.Name,
		})
	}
	return all
}

// visible returns those of fields that encoding/json encodes, and those that others hide: of one
// name the least deep, if there are several the one with a tag, and else none.
func visible(fields []jsonField) (seen, hidden []jsonField) {
	for i, f := range fields {
		hides := slices.ContainsFunc(slices.Concat(fields[:i], fields[i+1:]), func(other jsonField) bool {
			return other.name == f.name && (other.depth < f.depth || other.depth == f.depth && (other.tagged || !f.tagged))
		})
		if hides {
			hidden = append(hidden, f)
		} else {
			seen = append(seen, f)
		}
	}
	return seen, hidden
}

// jsonShape is what encoding/json would take for another value without an error.
type jsonShape struct {
	t         reflect.Type
	free      bool // it decodes itself, or is an interface
	nullable  bool
	size      int // elements of an array, or -1
	elem      *jsonShape
	fields    map[string]*jsonShape // of a struct
	omittable bool
}

func newJSONShape(t reflect.Type, made map[reflect.Type]*jsonShape) *jsonShape {
	if s, ok := made[t]; ok {
		return s
	}
	s := &jsonShape{t: t, size: -1}
	made[t] = s
	if ownMethod(t, jsonDecoders) != itselfNot && t != reflect.PointerTo(timeType) {
		s.free, s.nullable = t != timeType, t.Kind() == reflect.Pointer || writesNull(t)
		return s
	}
	switch t.Kind() {
	case reflect.Interface:
		s.free, s.nullable = true, true
	case reflect.Pointer, reflect.Slice, reflect.Map:
		s.nullable, s.elem = true, newJSONShape(t.Elem(), made)
	case reflect.Array:
		s.size, s.elem = t.Len(), newJSONShape(t.Elem(), made)
	case reflect.Struct:
		s.fields, s.omittable = make(map[string]*jsonShape), true
		seen, _ := visible(jsonFields(t, 0, ""))
		for _, f := range seen {
			s.fields[f.name] = newJSONShape(f.Type, made)
			s.omittable = s.omittable && f.omittable
		}
	}
	return s
}

// writesNull reports whether the methods of t make null of its zero value.
func writesNull(t reflect.Type) bool {
	defer func() { _ = recover() }() // a method of t, which is not made for that
	b, err := json.Marshal(reflect.New(t).Interface())
	return err == nil && string(b) == "null"
}

// check returns an error if the JSON b, which encoding/json has decoded, was decoded into another
// value: null into what cannot be nil, an array into one of another length, an object into a struct
// that has none of its fields, a number into one that does not hold it.
func (s *jsonShape) check(b []byte) error {
	if s.t == nil {
		return nil
	}
	if !s.fits(json.NewDecoder(bytes.NewReader(b))) {
		return fmt.Errorf("json: unsupported type: what is encoded is no %v", s.t)
	}
	return nil
}

// fits reads one value of d, and reports whether it is one of the shape.
func (s *jsonShape) fits(d *json.Decoder) bool {
	d.UseNumber()
	for s.t.Kind() == reflect.Pointer && s.elem != nil {
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return false
		}
		if string(raw) == "null" {
			return true
		}
		s, d = s.elem, json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
	}
	if s.free {
		var raw json.RawMessage
		return d.Decode(&raw) == nil && (s.nullable || string(raw) != "null")
	}
	token, err := d.Token()
	if err != nil {
		return false
	}
	switch token := token.(type) {
	case nil:
		return s.nullable
	case json.Number:
		return s.holds(token.String())
	case json.Delim:
		return s.fitsContainer(d, token)
	}
	return true
}

func (s *jsonShape) fitsContainer(d *json.Decoder, open json.Delim) bool {
	n, known := 0, 0
	for ; d.More(); n++ {
		elem := s.elem
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return false
			}
			if s.fields != nil {
				elem = s.field(key.(string))
			}
		}
		if elem == nil {
			elem = unknownJSON
		} else {
			known++
		}
		if !elem.fits(d) {
			return false
		}
	}
	_, err := d.Token()
	switch {
	case err != nil:
		return false
	case s.fields != nil:
		return known > 0 || n == 0 && s.omittable
	}
	return s.size < 0 || n == s.size
}

// unknownJSON is the shape of what is skipped.
var unknownJSON = &jsonShape{t: reflect.TypeFor[any](), free: true, nullable: true}

// field returns the shape of the field of that name, in any case of letters, or nil.
func (s *jsonShape) field(name string) *jsonShape {
	if f, ok := s.fields[name]; ok {
		return f
	}
	for known, f := range s.fields {
		if strings.EqualFold(known, name) {
			return f
		}
	}
	return nil
}

// holds reports whether a number that was decoded into s was so without loss. Of integers
// encoding/json sees to it.
func (s *jsonShape) holds(number string) bool {
	switch s.t.Kind() {
	case reflect.Float32, reflect.Float64:
		if strings.ContainsAny(number, ".eE") {
			return true
		}
		f, err := strconv.ParseFloat(number, s.t.Bits())
		return err == nil && strconv.FormatFloat(f, 'f', -1, s.t.Bits()) == number
	}
	return true
}

// newBlobs returns a hash of where in a t the JSON of another type would be read as a value of its
// own: base64, quoted text, and whatever decodes itself. It is zero where there is none of that.
func newBlobs(t reflect.Type) uint32 {
	var paths []string
	addBlobs(t, "", make(map[reflect.Type]bool), &paths)
	if len(paths) == 0 {
		return 0
	}
	slices.Sort(paths)
	h := fnv.New32a()
	for _, path := range paths {
		fmt.Fprintln(h, path)
	}
	return h.Sum32() | 1
}

func addBlobs(t reflect.Type, path string, within map[reflect.Type]bool, paths *[]string) {
	if within[t] {
		return
	}
	within[t] = true
	defer delete(within, t)
	if ownMethod(t, jsonDecoders) != itselfNot && t.Kind() != reflect.Pointer {
		*paths = append(*paths, path+" "+t.String())
		return
	}
	switch t.Kind() {
	case reflect.Float32:
		*paths = append(*paths, path+" float32")
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			*paths = append(*paths, path+" base64")
			return
		}
		addBlobs(t.Elem(), path+"[]", within, paths)
	case reflect.Pointer:
		addBlobs(t.Elem(), path, within, paths)
	case reflect.Array, reflect.Map:
		addBlobs(t.Elem(), path+"[]", within, paths)
	case reflect.Struct:
		seen, _ := visible(jsonFields(t, 0, ""))
		for _, f := range seen {
			if f.quoted {
				*paths = append(*paths, path+"."+f.name+" quoted")
			}
			addBlobs(f.Type, path+"."+f.name, within, paths)
		}
	}
}
