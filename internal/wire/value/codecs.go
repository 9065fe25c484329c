package value

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Msgpack is the codec whose values are part of the entry, not bytes inside it. Marshal and
// Unmarshal are for its use outside an entry.
type Msgpack struct{}

// Marshal returns the msgpack of v.
func (Msgpack) Marshal(v any) ([]byte, error) {
	b, err := appendMsgpack(make([]byte, 0, 256), v)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Unmarshal sets what v points to from the msgpack in data.
func (Msgpack) Unmarshal(data []byte, v any) error {
	return decodeMsgpack(data, v)
}

// JSON is the codec of encoding/json.
type JSON struct{}

// Marshal returns the JSON of v.
func (JSON) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal sets what v points to from the JSON in data.
func (JSON) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

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
