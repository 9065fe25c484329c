package readthrough

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// codecFuncs is a codec made for one test.
type codecFuncs struct {
	marshal   func(v any) ([]byte, error)
	unmarshal func(data []byte, v any) error
}

func (c codecFuncs) Marshal(v any) ([]byte, error)      { return c.marshal(v) }
func (c codecFuncs) Unmarshal(data []byte, v any) error { return c.unmarshal(data, v) }

type codecUser struct {
	Name string `json:"name" msgpack:"name"`
	Tags []string
}

func TestCheckCodec_RefusesTypesThatACodecCannotStore(t *testing.T) {
	require.EqualError(t, checkCodec(nil, reflect.TypeFor[string]()), "the codec is nil")
	for _, c := range []Codec{Msgpack, JSON, codecFuncs{}} {
		require.NoError(t, checkCodec(c, reflect.TypeFor[codecUser]()))
	}
	require.NoError(t, checkCodec(Raw, reflect.TypeFor[string]()))
	require.NoError(t, checkCodec(Raw, reflect.TypeFor[[]byte]()))
	for _, typ := range []reflect.Type{
		reflect.TypeFor[codecUser](), reflect.TypeFor[*string](), reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any](),
	} {
		require.ErrorContains(t, checkCodec(Raw, typ), "not "+typ.String())
	}
}

// requireStored stores v in a Cache with codec c, requires wire to be its stored form, and reads it
// back.
func requireStored[V any](t *testing.T, c Codec, v V, wire string) {
	t.Helper()
	cache, server := codecCache(t, c)
	require.NoError(t, Set(t.Context(), cache, "k", v, time.Minute))
	stored, err := server.Get("k")
	require.NoError(t, err)
	require.Equal(t, wire, stored[entry.HeaderSize:])

	got, err := Get[V](t.Context(), cache, "k")
	require.NoError(t, err)
	require.Equal(t, v, got)
}

func codecCache(t *testing.T, c Codec) (*Cache, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	cache, err := NewCache(client, WithCodec(c))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	return cache, server
}

func TestCodecs_StoreAndReadBack(t *testing.T) {
	ada := codecUser{"Ada", []string{"x"}}
	requireStored(t, Msgpack, ada, "\x82\xa4name\xa3Ada\xa4Tags\x91\xa1x")
	requireStored(t, JSON, ada, "\xc4\x1b"+`{"name":"Ada","Tags":["x"]}`)
	requireStored(t, Raw, "Ada", "\xc4\x03Ada")
	requireStored(t, Raw, []byte(nil), "\xc0")

	given := codecFuncs{
		marshal:   func(v any) ([]byte, error) { return []byte{byte(v.(int))}, nil },
		unmarshal: func(data []byte, v any) error { *v.(*int) = int(data[0]); return nil },
	}
	requireStored(t, Codec(given), 7, "\xc4\x01\x07")
}

func TestCodecs_AddThePrefixOfTheirErrorsOnce(t *testing.T) {
	cache, _ := codecCache(t, Msgpack)
	numbers := func(context.Context, int) (int, error) { return 0, nil }
	_, err := New(cache, "n", numbers, Int, WithCodec(Raw))
	require.EqualError(t, err, `readthrough: New "n": the Raw codec stores []byte and string, not int`)

	err = Set(t.Context(), cache, "k", make(chan int), time.Minute)
	require.EqualError(t, err, "readthrough: set k: encode: msgpack: Encode(unsupported chan int)")

	channels := Must(New(cache, "c", func(context.Context, int) (chan int, error) { return nil, nil }, Int))
	err = channels.Set(t.Context(), 1, make(chan int))
	require.EqualError(t, err, "readthrough: set c:1: encode: msgpack: Encode(unsupported chan int)")

	floats := Must(New(cache, "j", func(context.Context, int) (float64, error) { return 0, nil }, Int, WithCodec(JSON)))
	err = floats.Set(t.Context(), 1, math.NaN()) // the text of its cause might quote a value
	require.EqualError(t, err, "readthrough: set j:1: encode: *json.UnsupportedValueError")
	var cause *json.UnsupportedValueError
	require.True(t, errors.As(err, &cause))
}
