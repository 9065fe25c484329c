package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

// Msgpack is the codec whose values are part of the entry, not bytes inside it. Marshal and
// Unmarshal are for its use outside an entry.
type Msgpack struct{}

// Marshal returns the msgpack of v.
func (Msgpack) Marshal(v any) ([]byte, error) {
	b, err := appendMsgpack(make([]byte, 0, 256), TypeOf(reflect.TypeOf(v)), v)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Unmarshal sets what v points to from the msgpack in data.
func (Msgpack) Unmarshal(data []byte, v any) error {
	return decodeMsgpack(data, TypeOf(pointee(v)), v)
}

// JSON is the codec of encoding/json.
type JSON struct{}

// Marshal returns the JSON of v.
func (JSON) Marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err == nil && repaired(b) {
		return nil, errNotUTF8
	}
	return b, err
}

var errNotUTF8 = errors.New("json: unsupported type: a string that is not UTF-8")

// repaired reports whether encoding/json has put U+FFFD into b in place of what is not UTF-8: it
// writes an escape then, and U+FFFD itself where that was in the string.
func repaired(b []byte) bool {
	for {
		i := bytes.Index(b, []byte(`\ufffd`))
		if i < 0 {
			return false
		}
		before := len(b[:i]) - len(bytes.TrimRight(b[:i], `\`))
		if before%2 == 0 { // the backslash is not escaped itself
			return true
		}
		b = b[i+1:]
	}
}

// Unmarshal sets what v points to from the JSON in data, if that is the JSON of such a value.
func (JSON) Unmarshal(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	return TypeOf(pointee(v)).json.check(data)
}

// Raw is the codec that stores a []byte or a string as it is.
type Raw struct{}

// Marshal returns a copy of v, which is a []byte or a string.
func (Raw) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return bytes.Clone(v), nil
	case string:
		return []byte(v), nil
	}
	return nil, fmt.Errorf("raw: cannot encode %T", v)
}

// Unmarshal sets v, which is a *[]byte or a *string, to a copy of data.
func (Raw) Unmarshal(data []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		*v = bytes.Clone(data)
		return nil
	case *string:
		*v = string(data)
		return nil
	}
	return fmt.Errorf("raw: cannot decode into %T", v)
}
