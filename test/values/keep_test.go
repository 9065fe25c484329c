// Package values holds that what comes back is what went in, or a miss.
package values

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

type (
	base  struct{ ID int }
	tagIt struct {
		Name string `msgpack:"n,omitempty" json:"n,omitempty"`
		Note string `msgpack:"-" json:"-"`
	}
	celsius float64
	level   int
	money   struct{ cents int64 }
	named   map[string]int
)

func (c celsius) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%g C", float64(c)), nil }
func (l level) String() string                 { return "level" }

// keep is a value, and how it is tried.
type keep struct {
	name string
	try  func(t *testing.T, c readthrough.Codec) verdict
}

type verdict string

const (
	hit     verdict = "hit"
	miss    verdict = "miss"
	refused verdict = "an error of New"
)

// kept returns a keep that stores v and reads it back, by way of the functions Set and Get: New would
// take the compiler a second for each type.
func kept[V any](name string, v V) keep {
	return keep{name, func(t *testing.T, c readthrough.Codec) verdict {
		if c.(interface{ CheckType(t reflect.Type) error }).CheckType(reflect.TypeFor[V]()) != nil {
			return refused
		}
		cache, server := newCache(t, readthrough.WithCodec(c))
		if readthrough.Set(t.Context(), cache, "k", v, time.Hour) != nil {
			require.False(t, server.Exists("k"), "what is never a hit is not written")
			return miss
		}
		got, err := readthrough.Get[V](t.Context(), cache, "k")
		require.NoError(t, err, "what was stored is read")
		requireSame(t, v, got)
		return hit
	}}
}

// requireSame wants got to be v, but for the locations of times, and the type of numbers in an any.
func requireSame(t *testing.T, v, got any) {
	t.Helper()
	if reflect.DeepEqual(v, got) {
		return
	}
	if at, ok := v.(time.Time); ok {
		require.True(t, at.Equal(got.(time.Time)))
		return
	}
	require.Equal(t, fmt.Sprintf("%#v", normal(v)), fmt.Sprintf("%#v", normal(got)))
}

// normal returns v as JSON has it, which knows one type of number.
func normal(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var any any
	_ = json.Unmarshal(b, &any)
	return any
}

var values = []keep{
	kept("bool", true), kept("int", -5), kept("int8", int8(-8)), kept("int64", int64(1)<<62), kept("uint64", ^uint64(0)),
	kept("float32", float32(0.1)), kept("float64", 1e300), kept("string", "Ada"), kept("empty string", ""),
	kept("bytes", []byte{0, 255}), kept("nil bytes", []byte(nil)), kept("no bytes", []byte{}),
	kept("array", [3]int{1, 2, 3}), kept("byte array", [4]byte{1, 2}), kept("slice", []int{1}), kept("nil slice", []int(nil)),
	kept("strings", []string{"a", ""}), kept("map", map[string]int{"a": 1}), kept("nil map", map[string]int(nil)),
	kept("map of ints", map[int]string{1: "a"}), kept("named map", named{"a": 1}),
	kept("pointer", &base{1}), kept("nil pointer", (*base)(nil)), kept("struct", base{1}), kept("empty struct", struct{}{}),
	kept("tags", tagIt{Name: "Ada"}), kept("omitted", tagIt{}), kept("time", time.Unix(1_700_000_000, 5)), kept("zero time", time.Time{}),
	kept("duration", time.Second), kept("enumeration", level(3)), kept("nested", map[string][]*base{"a": {nil, {2}}}),
	kept("any: text", any("x")), kept("any: nil", any(nil)), kept("any: float", any(1.5)), kept("any: list", any([]any{"a", nil, true})),
	kept("any: map", map[string]any{"a": []any{"x"}}),
	kept("any: map of ints", map[string]any{"a": map[int]string{1: "x"}}),
	kept("any: struct", any(base{1})), kept("any: list of strings", any([]string{"a"})),
	kept("interface", struct{ S fmt.Stringer }{level(1)}), kept("nil interface", struct{ S fmt.Stringer }{}),
	kept("error", struct{ Err error }{errors.ErrUnsupported}),
	kept("pointer to nil", func() **int { var p *int; return &p }()), kept("pointer to pointer", func() **int { n := 1; p := &n; return &p }()),
	kept("pointer to nil slice", new([]int)),
	kept("text without its counterpart", celsius(20)),
	kept("unexported", money{5}), kept("unexported inside", []map[string]*money{}),
	kept("embedded time", struct {
		time.Time
		Note string
	}{time.Unix(1, 0), "x"}),
	kept("embedded time alone", struct{ time.Time }{time.Unix(1, 0).UTC()}),
	kept("embedded pointer", struct {
		*base
		Name string
	}{nil, "x"}),
	kept("embedded exported pointer", struct {
		*Base
		Name string
	}{nil, "x"}),
	kept("embedded", struct {
		base
		Name string
	}{base{1}, "x"}),
	kept("embedded ID beside an ID", struct {
		base
		ID int
	}{base{1}, 2}),
	kept("an ID beside an embedded ID", struct {
		ID int
		Base
	}{2, Base{1}}),
	kept("two embedded IDs", struct {
		base
		Base
	}{base{1}, Base{2}}),
	kept("two of one name", struct {
		A int `msgpack:"a"`
		B int `msgpack:"a"`
	}{1, 2}),
	kept("a zero that is none", struct {
		A amount `msgpack:",omitempty" json:",omitzero"`
	}{amount{0, "EUR"}}),
	kept("addresses", []netip.Addr{{}, netip.MustParseAddr("::1")}), kept("big number", big.NewInt(1<<40)), kept("nil big number", (*big.Int)(nil)),
	kept("no IP", net.IP(nil)), kept("NaN", math.Inf(1)), kept("duration in any", any(time.Second)), kept("time in any", any(time.Unix(5, 0))),
	kept("bytes in any", any([]byte("x"))), kept("large int in any", any(int64(1<<53+1))),
	kept("raw JSON", json.RawMessage(`{"a":1}`)), kept("not UTF-8", "\xff"), kept("complex", complex(1, 2)), kept("func", func() {}),
}

// amount says that it is zero though it is not.
type amount struct {
	N        int
	Currency string
}

func (a amount) IsZero() bool { return a.N == 0 }

// Base is base, exported.
type Base struct{ ID int }

// wanted are the outcomes that are no hit, by codec.
var wanted = map[string]map[string]verdict{
	"msgpack": {
		"a zero that is none": miss, "duration in any": miss,
		"any: map of ints": miss, "any: struct": miss, "any: list of strings": miss, "interface": miss, "pointer to nil": miss,
		"pointer to nil slice": miss, "text without its counterpart": miss, "complex": miss, "func": miss,
		"unexported": refused, "unexported inside": refused, "embedded time": refused, "embedded pointer": refused,
		"embedded exported pointer": refused, "embedded ID beside an ID": refused, "two embedded IDs": hit, "two of one name": refused,
	},
	"json": {
		"a zero that is none": miss, "NaN": miss, "duration in any": miss, "time in any": miss, "bytes in any": miss, "large int in any": miss,
		"any: map of ints": miss, "any: struct": miss, "any: list of strings": miss, "interface": miss, "error": miss, "pointer to nil": miss,
		"pointer to nil slice": miss, "text without its counterpart": miss, "complex": miss, "func": miss, "not UTF-8": miss,
		"unexported": refused, "unexported inside": refused, "embedded time": refused, "embedded pointer": refused,
		"embedded ID beside an ID": refused, "an ID beside an embedded ID": refused, "two embedded IDs": refused,
	},
}

// TestValues_ComeBackAsTheyWentIn holds that a value comes back equal, or is not written, or that
// its type is refused.
func TestValues_ComeBackAsTheyWentIn(t *testing.T) {
	for name, codec := range map[string]readthrough.Codec{"msgpack": readthrough.Msgpack, "json": readthrough.JSON} {
		for _, v := range values {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				want, ok := wanted[name][v.name]
				if !ok {
					want = hit
				}
				require.Equal(t, want, v.try(t, codec))
			})
		}
	}
	for _, v := range values {
		t.Run("raw/"+v.name, func(t *testing.T) {
			want := refused
			switch v.name {
			case "string", "empty string", "bytes", "nil bytes", "no bytes", "not UTF-8":
				want = hit
			}
			require.Equal(t, want, v.try(t, readthrough.Raw))
		})
	}
}

// TestNew_NamesTypeAndFieldThatWouldBeLost holds the errors of New.
// Ledger is embedded in account, and exported.
type Ledger struct {
	cents int64 //nolint:unused // nothing but its type matters
	Name  string
}

type account struct {
	Ledger
	ID int
}

func TestNew_NamesTypeAndFieldThatWouldBeLost(t *testing.T) {
	cache, _ := newCache(t)
	_, err := readthrough.New(cache, "a", loads(map[string][]*money{}), readthrough.Int)
	require.ErrorContains(t, err, "values.money.cents is unexported")
	_, err = readthrough.New(cache, "a", loads([]account{}), readthrough.Int)
	require.ErrorContains(t, err, "values.account.Ledger.cents is unexported")
	_, err = readthrough.New(cache, "b", loads(stamped{}), readthrough.Int)
	require.ErrorContains(t, err, "values.stamped.Note would be lost")
	_, err = readthrough.New(cache, "b", loads(stamped{}), readthrough.Int, readthrough.WithCodec(readthrough.JSON))
	require.ErrorContains(t, err, "values.stamped.Note would be lost")
	_, err = readthrough.New(cache, "c", loads(inherits{}), readthrough.Int)
	require.ErrorContains(t, err, "values.inherits.Base is an embedded pointer")
	_, err = readthrough.New(cache, "d", loads(collides{}), readthrough.Int)
	require.ErrorContains(t, err, `values.collides.base.ID has the name "ID"`)
}

type (
	stamped struct {
		time.Time
		Note string
	}
	inherits struct {
		*Base
		Name string
	}
	collides struct {
		base
		ID int
	}
)

func loads[V any](v V) readthrough.Loader[int, V] {
	return func(context.Context, int) (V, error) { return v, nil }
}

// TestGet_TellsOnceOfValuesThatWouldNotComeBack holds that what depends on the value is Unstorable,
// told once, and written at no Get.
func TestGet_TellsOnceOfValuesThatWouldNotComeBack(t *testing.T) {
	for name, v := range map[string]any{
		"a map of ints": map[string]any{"a": map[int]string{1: "x"}}, "a struct": base{1}, "a named type": celsius(1), "strings": []string{"a"},
	} {
		for codec, c := range map[string]readthrough.Codec{"msgpack": readthrough.Msgpack, "json": readthrough.JSON} {
			t.Run(name+"/"+codec, func(t *testing.T) {
				cache, server := newCache(t)
				rt := readthrough.Must(readthrough.New(cache, "row", loads(v), readthrough.Int, readthrough.WithCodec(c)))
				for i := range 5 {
					got, err := rt.Get(t.Context(), i%2)
					require.NoError(t, err)
					require.Equal(t, v, got)
				}
				stats := rt.Stats()
				require.EqualValues(t, []int64{1, 0, 0, 5}, []int64{stats.Unstorable, stats.Fills, stats.Corrupt, stats.Loads})
				require.Empty(t, server.Keys())
				require.Error(t, rt.Set(t.Context(), 1, v))
				require.NoError(t, rt.Set(t.Context(), 1, "fits"))
				require.Error(t, rt.Set(t.Context(), 1, v), "at each Set")
				require.Empty(t, server.Keys())
			})
		}
	}
}
