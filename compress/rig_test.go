package compress_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/compress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The first bytes of a frame, which are part of the format.
const (
	stored = 0xf8
	zstd1  = 0xf9
	s2     = 0xfa
)

// dictionary returns n bytes of orders, as JSON.
func dictionary(t testing.TB, n int) []byte {
	t.Helper()
	var dict []byte
	for i := 1000; len(dict) < n; i++ {
		dict = append(dict, marshal(t, readthrough.JSON, orderOf(i))...)
	}
	return dict[:n]
}

// trained returns a dictionary that `zstd --train --maxdict=4096 --dictID=7` made of 750 orders.
func trained(t testing.TB) []byte {
	t.Helper()
	dict, err := os.ReadFile("testdata/orders.dict")
	require.NoError(t, err)
	return dict
}

func marshal(t testing.TB, c readthrough.Codec, v any) []byte {
	t.Helper()
	b, err := c.Marshal(v)
	require.NoError(t, err)
	return b
}

// requireReads requires c to decode data to v.
func requireReads[V any](t testing.TB, c readthrough.Codec, data []byte, v V) {
	t.Helper()
	var got V
	require.NoError(t, c.Unmarshal(data, &got))
	require.Equal(t, v, got)
}

// noise returns n bytes that nothing compresses.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(5, 5))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func zeros(n int) []byte { return bytes.Repeat([]byte{0}, n) }

// algorithms are the ways to compress.
func algorithms(t testing.TB) map[string]func(readthrough.Codec, ...compress.Option) readthrough.Codec {
	return map[string]func(readthrough.Codec, ...compress.Option) readthrough.Codec{
		"zstd": compress.Zstd,
		"s2":   compress.S2,
		"zstd with content": func(c readthrough.Codec, opts ...compress.Option) readthrough.Codec {
			return compress.Zstd(c, append(opts, compress.WithDictionary(1, dictionary(t, 16<<10)))...)
		},
		"zstd with a trained dictionary": func(c readthrough.Codec, opts ...compress.Option) readthrough.Codec {
			return compress.Zstd(c, append(opts, compress.WithDictionary(7, trained(t)))...)
		},
	}
}
