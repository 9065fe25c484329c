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
	if !s.fits(&jsonReader{b: b}) {
		return fmt.Errorf("json: unsupported type: what is encoded is no %v", s.t)
	}
	return nil
}

// jsonReader reads valid JSON from b[next] on.
type jsonReader struct {
	b    []byte
	next int
}

// peek returns the first byte behind white space, commas and colons, all of which are where they
// belong.
func (r *jsonReader) peek() byte {
	for {
		switch c := r.b[r.next]; c {
		case ' ', '\t', '\n', '\r', ',', ':':
			r.next++
		default:
			return c
		}
	}
}

// text reads a string, and returns it as it is between the quotes.
func (r *jsonReader) text() []byte {
	start := r.next + 1
	for r.next = start; r.b[r.next] != '"'; r.next++ {
		if r.b[r.next] == '\\' {
			r.next++
		}
	}
	r.next++
	return r.b[start : r.next-1]
}

// number reads a number.
func (r *jsonReader) number() []byte {
	start := r.next
	for r.next < len(r.b) && strings.IndexByte("+-.0123456789eE", r.b[r.next]) >= 0 {
		r.next++
	}
	return r.b[start:r.next]
}

// fits reads one value, and reports whether it is one of the shape.
func (s *jsonShape) fits(r *jsonReader) bool {
	c := r.peek()
	if c == 'n' {
		r.next += len("null")
		return s.nullable
	}
	for s.t.Kind() == reflect.Pointer && s.elem != nil {
		s = s.elem
	}
	switch c {
	case 't':
		r.next += len("true")
	case 'f':
		r.next += len("false")
	case '"':
		r.text()
	case '{', '[':
		if s.free {
			s = unknownJSON
		}
		return s.fitsContainer(r, c == '{')
	default:
		return s.holds(r.number())
	}
	return true
}

func (s *jsonShape) fitsContainer(r *jsonReader, object bool) bool {
	n, known := 0, 0
	r.next++
	for ; r.peek() != ']' && r.b[r.next] != '}'; n++ {
		elem := s.elem
		if object {
			if key := r.text(); s.fields != nil {
				elem = s.field(key)
			}
		}
		if elem != nil {
			known++
		} else {
			elem = unknownJSON
		}
		if !elem.fits(r) {
			return false
		}
	}
	r.next++
	if s.fields != nil {
		return known > 0 || n == 0 && s.omittable
	}
	return s.size < 0 || n == s.size
}

// unknownJSON is the shape of what is skipped.
var unknownJSON = &jsonShape{t: reflect.TypeFor[any](), free: true, nullable: true, size: -1}

// field returns the shape of the field of that name, in any case of letters, or nil.
func (s *jsonShape) field(quoted []byte) *jsonShape {
	if f, ok := s.fields[string(quoted)]; ok {
		return f
	}
	name := string(quoted)
	if strings.Contains(name, `\`) {
		_ = json.Unmarshal(slices.Concat([]byte{'"'}, quoted, []byte{'"'}), &name) // it is valid
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
func (s *jsonShape) holds(number []byte) bool {
	if kind := s.t.Kind(); kind != reflect.Float32 && kind != reflect.Float64 || bytes.ContainsAny(number, ".eE") {
		return true
	}
	f, err := strconv.ParseFloat(string(number), s.t.Bits())
	return err == nil && strconv.FormatFloat(f, 'f', -1, s.t.Bits()) == string(number)
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
