package value

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// big takes 2 KiB in memory, and a byte as nil.
type big struct{ Numbers [256]int64 }

// sparse is as large, and points to another.
type sparse struct {
	Numbers [256]int64
	Name    string   `msgpack:",omitempty" json:",omitempty"`
	Next    *sparse  `msgpack:",omitempty" json:",omitempty"`
	Tags    []string `msgpack:",omitempty" json:",omitempty"`
}

type embedded struct{ Bigs []big }

type outer struct {
	embedded
	Inline struct{ More []*big } `msgpack:",inline"`
	Other  int
}

type selfMade struct{ Numbers [256]int64 }

func (s *selfMade) DecodeMsgpack(d *msgpack.Decoder) error { return d.Skip() }

// ownJSON decodes itself by JSON, and ownBinary by Msgpack: each is for the other codec a struct.
type ownJSON struct{ Bigs []big }

func (o *ownJSON) UnmarshalJSON([]byte) error { return nil }

type ownBinary struct{ Bigs []big }

func (o *ownBinary) UnmarshalBinary([]byte) error { return nil }

type loop *loop

// array is the msgpack of an array of n elements.
func array(n int, element string) []byte {
	head := []byte{0xdd, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	return append(head, strings.Repeat(element, n)...)
}

// asJSON is the JSON of an array of n elements, as an entry holds it.
func asJSON(t *testing.T, n int, element string) []byte {
	t.Helper()
	b, err := appendBin(nil, []byte("[ "+strings.TrimSuffix(strings.Repeat(element+", ", n), ", ")+"]"))
	require.NoError(t, err)
	return b
}

// asField is the JSON of an object with one field, an array of n elements.
func asField(t *testing.T, name string, n int, element string) []byte {
	t.Helper()
	array, err := binOf(asJSON(t, n, element))
	require.NoError(t, err)
	b, err := appendBin(nil, fmt.Appendf(nil, "{%q: %s}", name, array))
	require.NoError(t, err)
	return b
}

func TestScale_RefusesWhatTakesMemoryOutOfProportion(t *testing.T) {
	t.Parallel()
	const many = 256 << 10
	field := func(name string, b []byte) []byte {
		return append(append([]byte{0x81, 0xa0 | byte(len(name))}, name...), b...)
	}
	for name, row := range map[string]struct {
		v     any
		codec Codec
		wire  []byte
	}{
		"nils":                {[]big{}, Msgpack{}, array(many, "\xc0")},
		"empty maps":          {[]sparse{}, Msgpack{}, array(many, "\x80")},
		"empty arrays":        {[]*big{}, Msgpack{}, array(many, "\x90")},
		"pointers":            {[]**big{}, Msgpack{}, array(many, "\x80")},
		"behind a pointer":    {new([]big), Msgpack{}, array(many, "\xc0")},
		"in a field":          {embedded{}, Msgpack{}, field("Bigs", array(many, "\xc0"))},
		"in embedded":         {outer{}, Msgpack{}, field("Bigs", array(many, "\xc0"))},
		"in inlined":          {outer{}, Msgpack{}, field("More", array(many, "\x80"))},
		"in a map":            {map[string][]big{}, Msgpack{}, field("k", array(many, "\xc0"))},
		"values of a map":     {map[int]big{}, Msgpack{}, append([]byte{0xdf, 0, 1, 0, 0}, strings.Repeat("\x01\xc0", 64<<10)...)},
		"arrays":              {[][300]int64{}, Msgpack{}, array(many, "\xc0")},
		"byte arrays":         {[][2048]byte{}, Msgpack{}, array(many, "\xa0")},
		"pointers in array":   {[][4]*big{}, Msgpack{}, array(many/4, "\x94\x80\x80\x80\x80")},
		"recursive":           {sparse{}, Msgpack{}, nested(90, array(20_000, "\x80"))},
		"JSON nulls":          {[]big{}, JSON{}, asJSON(t, 64<<10, "null")},
		"JSON objects":        {[]sparse{}, JSON{}, asJSON(t, 64<<10, "{}")},
		"JSON with strings":   {[]sparse{}, JSON{}, asJSON(t, 64<<10, `{"Name":"a,\"[{"}`)},
		"more than there are": {[]big{}, Msgpack{}, array(many, "")},
		"maps of one pair":    {[]map[string]struct{ A [16]int64 }{}, Msgpack{}, array(many, "\x81\xa0\xc0")},
		"its own JSON":        {ownJSON{}, Msgpack{}, field("Bigs", array(many, "\xc0"))},
		"its own binary form": {ownBinary{}, JSON{}, asField(t, "Bigs", 64<<10, "null")},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "recursive" {
				row.v = []tree{}
			}
			require.Error(t, ScaleOf(reflect.TypeOf(row.v)).Weigh(row.codec, row.wire))
		})
	}
}

// tree nests in slices, and each node takes 2 KiB.
type tree struct {
	Pad  [256]int64
	Kids []tree
}

// nested puts b into arrays of one element.
func nested(depth int, b []byte) []byte {
	return append(bytes.Repeat([]byte{0x91}, depth), b...)
}

func TestScale_TakesWhatIsInProportion(t *testing.T) {
	t.Parallel()
	tags := make([]string, 100)
	for name, v := range map[string]any{
		"dense":       make([]big, 10_000),
		"some sparse": make([]sparse, 3000),
		"tags of sparse": func() []sparse {
			s := make([]sparse, 1000)
			s[0].Tags = make([]string, 50_000)
			s[1].Tags = tags
			return s
		}(),
		"bytes":            make([]byte, 9<<20),
		"empty strings":    make([]string, 1<<20),
		"times":            make([]time.Time, 1<<20),
		"anything":         make([]any, 1<<20),
		"maps of anything": map[string]any{"a": []any{map[string]any{}, []any{}}},
		"one large":        big{},
		"pointer":          &sparse{Next: &sparse{Next: &sparse{Name: "x"}}},
		"strings in JSON":  []sparse{{Name: strings.Repeat(`[{,:"\`, 100_000)}},
	} {
		for _, codec := range []Codec{Msgpack{}, JSON{}} {
			t.Run(fmt.Sprintf("%s, %T", name, codec), func(t *testing.T) {
				wire, err := Append(nil, codec, v)
				require.NoError(t, err)
				require.NoError(t, ScaleOf(reflect.TypeOf(v)).Weigh(codec, wire))
			})
		}
	}
}

func TestScale_CostsTypesWithoutHeavyElementsNothing(t *testing.T) {
	t.Parallel()
	type flat struct {
		A, B string
		C    [4096]int64
		D    *int
		E    []string
		F    map[string]any
		G    []time.Time
	}
	for _, v := range []any{1, "", flat{}, &flat{}, []string{}, [][]byte{}, map[string]string{}, []any{}, loop(nil), selfMade{}} {
		if _, ok := v.(selfMade); ok {
			require.Nil(t, ScaleOf(reflect.TypeOf(v)).msgpack)
			continue
		}
		require.Equal(t, Scale{}, ScaleOf(reflect.TypeOf(v)), "%T", v)
	}
	require.NoError(t, ScaleOf(reflect.TypeFor[[]big]()).Weigh(Raw{}, array(1<<20, "\xc0")), "no codec of ours")
}

func FuzzWalkJSON(f *testing.F) {
	for _, seed := range []string{`[1,[],{"a":[null]}]`, `]]]{{{`, `"\`, `[[[[`, "", `{"a\"":{}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var values uint64
		_ = walkJSON(b, func(depth int, n uint64) bool {
			if depth < 0 || depth > len(b) {
				t.Fatal(depth)
			}
			values += n
			return true
		})
		if values > uint64(len(b)) {
			t.Fatal(values)
		}
	})
}
