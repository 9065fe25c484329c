package compress_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/compress"
)

// FuzzUnmarshal gives the codecs any bytes: they return an error, or a value within the bound.
func FuzzUnmarshal(f *testing.F) {
	const limit = 64 << 10
	dict := dictionary(f, 4096)
	codecs := []readthrough.Codec{
		compress.Zstd(readthrough.Raw, compress.WithMaxBytes(limit)),
		compress.S2(readthrough.Raw, compress.WithMaxBytes(limit), compress.WithDictionary(1, dict), compress.WithDictionary(7, trained(f))),
	}
	for _, wrap := range algorithms(f) {
		f.Add(marshal(f, wrap(readthrough.Raw), marshal(f, readthrough.JSON, orderOf(1))))
		f.Add(marshal(f, wrap(readthrough.Raw), zeros(1<<20)))
		f.Add(marshal(f, wrap(readthrough.Raw), noise(600)))
	}
	f.Add(marshal(f, compress.Zstd(readthrough.Raw, compress.WithDictionary(1, dict)), []byte(textOf(1))))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range codecs {
			var got []byte
			if err := c.Unmarshal(data, &got); err != nil {
				require.Nil(t, got)
				continue
			}
			require.LessOrEqual(t, len(got), max(limit, len(data)))
			requireReads(t, c, marshal(t, c, got), got)
		}
	})
}

// FuzzMarshal gives the codecs any value: it comes back, and is at most a byte longer when stored.
func FuzzMarshal(f *testing.F) {
	codecs := make(map[string]readthrough.Codec)
	for name, wrap := range algorithms(f) {
		codecs[name] = wrap(readthrough.Raw, compress.WithMinBytes(0))
	}
	f.Add([]byte{})
	f.Add(marshal(f, readthrough.JSON, orderOf(1)))
	f.Add(marshal(f, readthrough.Msgpack, userOf(1)))
	f.Add([]byte(textOf(1)))
	f.Add(noise(300))
	f.Add(bytes.Repeat([]byte("ab"), 70_000))
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, c := range codecs {
			data := marshal(t, c, value)
			require.LessOrEqual(t, len(data), len(value)+1)
			requireReads(t, c, data, value)
		}
	})
}
