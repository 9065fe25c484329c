package value

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type address struct {
	Street string
	City   string `msgpack:"city" json:"city"`
}

type user struct {
	address // unexported, and yet its fields are promoted
	ID      int64
	Name    string
	Score   float64
	Active  bool
	Tags    []string
	Avatar  []byte
	Limits  map[string]int
	Any     any
	Created time.Time
	Deleted *time.Time
	Boss    *user
	Home    address
}

func someUser() user {
	deleted := time.Unix(1_700_000_000, 0x20000000) // its msgpack begins like a map
	return user{
		address: address{"12 St James's Square", "London"},
		ID:      1 << 40, Name: "Ada", Score: -0.5, Active: true, Tags: []string{"a", ""}, Avatar: []byte{0, 1, 2},
		Limits: map[string]int{"x": -1}, Any: "any", Created: time.Unix(1_800_000_000, 1), Deleted: &deleted,
		Boss: &user{Name: "Charles", Boss: &user{Tags: []string{}}}, Home: address{City: "Ockham"},
	}
}

// requireRoundTrip stores v and reads it back, with bytes before it that must stay as they are.
func requireRoundTrip[V any](t *testing.T, c Codec, v V) {
	t.Helper()
	wire, err := Append([]byte("before"), c, v)
	require.NoError(t, err)
	require.Equal(t, "before", string(wire[:6]))

	var got V
	require.NoError(t, Decode(c, wire[6:], &got))
	require.Equal(t, inUTC(v), inUTC(got))

	b, err := c.Marshal(v)
	require.NoError(t, err)
	var same V
	require.NoError(t, c.Unmarshal(b, &same))
	require.Equal(t, inUTC(v), inUTC(same))
}

// inUTC drops the location of times, which msgpack does not store.
func inUTC(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UTC()
	case user:
		v.Created = v.Created.UTC()
		if v.Deleted != nil {
			deleted := v.Deleted.UTC()
			v.Deleted = &deleted
		}
		if v.Boss != nil {
			boss := inUTC(*v.Boss).(user)
			v.Boss = &boss
		}
		return v
	}
	return v
}

// wrappedCodec is a codec of the user's that encodes like another.
type wrappedCodec struct{ Codec }

// codecFuncs is a codec made for one test.
type codecFuncs struct {
	marshal   func(v any) ([]byte, error)
	unmarshal func(data []byte, v any) error
}

func (c codecFuncs) Marshal(v any) ([]byte, error)      { return c.marshal(v) }
func (c codecFuncs) Unmarshal(data []byte, v any) error { return c.unmarshal(data, v) }
