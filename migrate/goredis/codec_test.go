package goredis_test

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/migrate/goredis"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

type profile struct {
	ID    int64
	Name  string `msgpack:"n"`
	Tags  []string
	Since time.Time
	Next  *profile
}

type title string

// values are what a service may have stored: short and long, compressible and not.
var values = map[string]any{
	"struct":          profile{ID: 7, Name: "Ada", Since: time.Unix(1e9, 0)},
	"long struct":     profile{ID: 7, Name: strings.Repeat("Ada ", 1000), Tags: []string{"a", "b"}, Next: &profile{ID: 8}},
	"pointer":         &profile{ID: 7},
	"string":          "bare\x00",
	"empty string":    "",
	"bytes":           []byte{0, 1, 2, 1},
	"string by name":  title("Countess"),
	"int":             42,
	"negative":        int64(-1 << 40),
	"false":           false,
	"map":             map[string]int{"a": 1},
	"slice":           []int{},
	"63 bytes":        make([]bool, 60), // 3 of msgpack's own
	"64 bytes":        make([]bool, 61),
	"time":            time.Unix(1e9, 5),
	"nil in a struct": struct{ P *int }{},
}

// TestCodec_ReadsAndWritesWhatTheLibraryDoes holds the codec to the library itself, in both
// directions.
func TestCodec_ReadsAndWritesWhatTheLibraryDoes(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	old := cache.New(&cache.Options{Redis: fake.Client})
	for name, v := range values {
		require.NoError(t, old.Set(&cache.Item{Ctx: t.Context(), Key: name, Value: v}))
		written, err := fake.Client.Get(t.Context(), name).Bytes()
		require.NoError(t, err)
		mine, err := goredis.Codec.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, len(written) > 0 && len(written) < 64, len(mine) > 0 && len(mine) < 64, name)

		got := reflect.New(reflect.TypeOf(v))
		require.NoError(t, goredis.Codec.Unmarshal(written, got.Interface()), name)
		requireSame(t, v, got.Elem().Interface(), name)
		got = reflect.New(reflect.TypeOf(v))
		require.NoError(t, old.Unmarshal(mine, got.Interface()), name)
		requireSame(t, v, got.Elem().Interface(), name)
	}
}

// requireSame compares as msgpack keeps values: nil and empty are not told apart, nor time zones.
func requireSame(t *testing.T, want, got any, name string) {
	t.Helper()
	if at, ok := want.(time.Time); ok {
		require.True(t, at.Equal(got.(time.Time)), name)
		return
	}
	require.EqualValues(t, want, got, name)
}

// TestCodec_KeepsValuesOfWrapper holds that the codec serves a wrapper as well.
func TestCodec_KeepsValuesOfWrapper(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	want := values["long struct"].(profile)
	rt, err := readthrough.New(fake.Cache, "profile", load(want, nil), readthrough.Int, readthrough.WithCodec(goredis.Codec))
	require.NoError(t, err)
	for range 2 {
		got, err := rt.Get(t.Context(), 1)
		require.NoError(t, err)
		require.EqualValues(t, want, got)
	}
	require.EqualValues(t, 1, rt.Stats().Hits)
	require.Less(t, fake.Client.StrLen(t.Context(), "profile:1").Val(), int64(500), "of 4000 bytes")
}

func TestCodec_RefusesHostileBytes(t *testing.T) {
	t.Parallel()
	huge := append(binary.AppendUvarint(nil, 1<<31), 0, 1)
	for name, b := range map[string][]byte{
		"marker alone":         {0},
		"no such compression":  {0x80, 7},
		"claims to be 2 GiB":   huge,
		"no s2":                {0xff, 0xff, 1},
		"claims 32 GiB":        {0x81, 0xa1, 'T', 0xdd, 0x7f, 0xff, 0xff, 0xff, 0},
		"five million in each": append(make([]byte, 0, 5e6+1), append([]byte(strings.Repeat("\x91", 5e6)), 0)...),
	} {
		var v struct{ T []int64 }
		require.Error(t, goredis.Codec.Unmarshal(b, &v), name)
	}
	var v profile
	require.NoError(t, goredis.Codec.Unmarshal(nil, &v))
}

func FuzzCodec_Unmarshal(f *testing.F) {
	for _, v := range values {
		b, err := goredis.Codec.Marshal(v)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		var p profile
		_ = goredis.Codec.Unmarshal(b, &p)
		var a any
		_ = goredis.Codec.Unmarshal(b, &a)
	})
}
