package value

import (
	"encoding/json"
	math "math/big"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// believer decodes by itself the msgpack that it is given.
type believer struct{ M map[string]any }

func (b believer) MarshalMsgpack() ([]byte, error)     { return msgpack.Marshal(b.M) }
func (b *believer) UnmarshalMsgpack(data []byte) error { return msgpack.Unmarshal(data, &b.M) }

// binaryBeliever does, of a bin.
type binaryBeliever struct{ L []int64 }

func (b binaryBeliever) MarshalBinary() ([]byte, error) {
	return msgpack.Marshal(append([]int64{}, b.L...))
}
func (b *binaryBeliever) UnmarshalBinary(data []byte) error { return msgpack.Unmarshal(data, &b.L) }

// nestedBeliever does, of a bin that its own msgpack is.
type nestedBeliever struct{ L []int64 }

func (b nestedBeliever) EncodeMsgpack(e *msgpack.Encoder) error {
	inner, err := msgpack.Marshal(append([]int64{}, b.L...))
	if err != nil {
		return err
	}
	return e.EncodeBytes(inner)
}

func (b *nestedBeliever) DecodeMsgpack(d *msgpack.Decoder) error {
	inner, err := d.DecodeBytes()
	if err != nil {
		return err
	}
	return msgpack.Unmarshal(inner, &b.L)
}

// mapBeliever is nil for zero, in msgpack too.
type mapBeliever map[string]any

func (m mapBeliever) MarshalBinary() ([]byte, error) { return msgpack.Marshal(map[string]any(m)) }

func (m *mapBeliever) UnmarshalBinary(b []byte) error {
	return msgpack.Unmarshal(b, (*map[string]any)(m))
}

func TestDecode_KeepsBytesThatKillFromTypesThatDecodeByThemselves(t *testing.T) {
	const huge = "\xdd\x7f\xff\xff\xff" // 2^31 elements
	for name, row := range map[string]struct {
		into any
		wire string
	}{
		"an ext as a map":          {new(believer), "\xc7\x05\x05\xdf\x7f\xff\xff\xff"},
		"a time as a map":          {new(believer), "\xd7\xff\xdf\x7f\xff\xff\xff\xa0\xa0\xa0"},
		"inside a map":             {new(believer), "\x81\xa1k\xd7\xff\xdf\x7f\xff\xff\xff\xa0\xa0\xa0"},
		"in a field":               {new(struct{ B believer }), "\x81\xa1B\xc7\x05\x05\xdf\x7f\xff\xff\xff"},
		"by a pointer":             {new([]*believer), "\x91\xc7\x05\x05\xdf\x7f\xff\xff\xff"},
		"a bin with a long array":  {new(binaryBeliever), "\xc4\x05" + huge},
		"a str with a long array":  {new(binaryBeliever), "\xa5" + huge},
		"a bin with what trails":   {new(binaryBeliever), "\xc4\x02\x90\x90"},
		"a bin in a DecodeMsgpack": {new(nestedBeliever), "\xc4\x05" + huge},
		"a bin, zero is nil":       {new(mapBeliever), "\xc4\x02\x80\x80"},
		"bins in a slice":          {new([]binaryBeliever), "\x92\xc4\x01\x90\xc4\x05" + huge},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, Decode(Msgpack{}, []byte(row.wire), row.into))
		})
	}
	requireRoundTrip(t, Msgpack{}, believer{map[string]any{"a": "b"}})
	requireRoundTrip(t, Msgpack{}, binaryBeliever{[]int64{1, 2}})
	requireRoundTrip(t, Msgpack{}, mapBeliever{"a": "b"})
	requireRoundTrip(t, Msgpack{}, nestedBeliever{[]int64{1, 2}})
}

// TestShape_TakesWhatTypesWithTheirOwnEncodingWrite holds that none of these is refused.
func TestShape_TakesWhatTypesWithTheirOwnEncodingWrite(t *testing.T) {
	address, n := netip.MustParseAddr("10.0.0.1"), math.NewInt(1<<40)
	link, err := url.Parse("https://example.org/")
	require.NoError(t, err)
	at := time.Date(2400, 1, 2, 3, 4, 5, 999_999_999, time.UTC)
	requireRoundTrip(t, Msgpack{}, []netip.Addr{address, {}})
	requireRoundTrip(t, Msgpack{}, map[netip.Addr]*math.Int{address: n})
	requireRoundTrip(t, Msgpack{}, struct{ L *url.URL }{link})
	requireRoundTrip(t, Msgpack{}, json.RawMessage(`{"a":1}`))
	requireRoundTrip(t, Msgpack{}, json.Number("1.5"))
	requireRoundTrip(t, Msgpack{}, msgpack.RawMessage("\x91\x01"))
	requireRoundTrip(t, Msgpack{}, struct{ A, B *time.Time }{nil, nil})
	for _, at := range []time.Time{at, time.Unix(0, 0), time.Unix(-1, 5), {}} {
		wire, err := Append(nil, Msgpack{}, &at)
		require.NoError(t, err)
		var got *time.Time
		require.NoError(t, Decode(Msgpack{}, wire, &got))
		require.True(t, at.Equal(*got))
	}
}

// TestShape_KnowsFieldsAsMsgpackDoes holds fieldsOf to the names that msgpack v5 writes.
func TestShape_KnowsFieldsAsMsgpackDoes(t *testing.T) {
	type inner struct {
		A int
		B int `msgpack:"bee"`
	}
	type Deep struct{ inner }
	type Text struct{ time.Time }
	for _, v := range []any{
		inner{}, Deep{}, struct {
			inner
			C int
		}{},
		struct {
			A int
			inner
		}{},
		struct {
			Deep `msgpack:",noinline"`
			X    int `msgpack:"x,alias:y"`
		}{},
		struct {
			Deep    `msgpack:"deep"`
			T       Text
			skipped int
			Skipped int `msgpack:"-"`
		}{},
		struct {
			A     int
			inner `msgpack:",inline"`
		}{},
		struct {
			_msgpack struct{} `msgpack:",omitempty"`
			A        int
		}{},
	} {
		var want []string
		e := encoderOf(v)
		for _, f := range fieldsOf(reflect.TypeOf(v)).list {
			if !f.omitEmpty {
				want = append(want, f.name)
			}
		}
		require.Equal(t, e, want, "%T", v)
	}
}

// encoderOf returns the names of the fields that msgpack v5 encodes, in their order.
func encoderOf(v any) (names []string) {
	wire, err := encodeMsgpack(nil, v)
	if err != nil {
		panic(err)
	}
	c := checker{b: wire}
	n, _, next := c.header(0)
	for range n {
		name, end := c.content(next)
		names, next = append(names, string(name)), c.skip(end, 1)
	}
	return names
}

func TestShape_FollowsInternedStrings(t *testing.T) {
	type tagged struct {
		A string `msgpack:",intern"`
		B string `msgpack:",intern"`
		C string
		D map[string]string
	}
	requireRoundTrip(t, Msgpack{}, []tagged{{"Ada Lovelace", "Ada Lovelace", "Ada Lovelace", map[string]string{"Ada Lovelace": "Ada Lovelace"}}, {"Ada Lovelace", "x", "", nil}})
	require.Error(t, Decode(Msgpack{}, []byte("\x81\xa1C\xd4\x80\x00"), new(tagged)), "a reference to nothing")
}

// FuzzShape holds that what is accepted decodes without an error to what encodes to a value that is
// accepted again.
func FuzzShape(f *testing.F) {
	type record struct {
		A int8
		B *uint16
		C []string
		D map[int]float32
		E [2]bool
		F []byte
		G *record
		H string `msgpack:",intern"`
		I time.Time
		J [3]byte
		K float64
	}
	for _, v := range []record{{}, {A: 1, C: []string{"a"}, D: map[int]float32{1: 2}, G: &record{H: "hello"}, H: "hello", I: time.Unix(1, 0)}} {
		wire, err := Append(nil, Msgpack{}, v)
		require.NoError(f, err)
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		shape := TypeOf(reflect.TypeFor[record]()).shape
		if shape.check(wire) != nil {
			return
		}
		var v record
		require.NoError(t, Decode(Msgpack{}, wire, &v))
		again, err := Append(nil, Msgpack{}, v)
		require.NoError(t, err)
		require.NoError(t, shape.check(again))
	})
}

// extended is encoded as an ext, whose body is the msgpack of a map.
type extended struct{ M map[string]int }

func (x *extended) MarshalMsgpack() ([]byte, error) { return msgpack.Marshal(x.M) }
func (x *extended) UnmarshalMsgpack(b []byte) error { return msgpack.Unmarshal(b, &x.M) }

// registered is encoded as a string, though it is a number.
type registered int

func TestShape_KnowsTypesThatWereRegistered(t *testing.T) {
	msgpack.RegisterExt(77, (*extended)(nil))
	defer msgpack.UnregisterExt(77)
	requireRoundTrip(t, Msgpack{}, []*extended{{map[string]int{"a": 1}}, nil})
	require.Error(t, Decode(Msgpack{}, []byte("\xc7\x05\x4d\xdf\x7f\xff\xff\xff"), new(*extended)))

	msgpack.Register(registered(0), func(e *msgpack.Encoder, v reflect.Value) error {
		return e.EncodeString(strconv.FormatInt(v.Int(), 10))
	}, func(d *msgpack.Decoder, v reflect.Value) error {
		s, err := d.DecodeString()
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(s, 10, 64)
		v.SetInt(n)
		return err
	})
	requireRoundTrip(t, Msgpack{}, []registered{5})
	requireRoundTrip(t, Msgpack{}, struct{ R registered }{5})
}
