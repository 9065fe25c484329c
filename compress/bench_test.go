package compress_test

import (
	"fmt"
	"testing"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/compress"
)

// benchDocuments is how many documents of a kind the benchmarks take turns with.
const benchDocuments = 100

// benchmarkCodecs runs bench for documents of each kind in each format, plain and compressed.
func benchmarkCodecs(b *testing.B, bench func(b *testing.B, c readthrough.Codec, documents []any, read func() any)) {
	kinds := []struct {
		name string
		of   func(int) any
		new  func() any
	}{
		{"user", func(n int) any { return userOf(n) }, func() any { return new(userDoc) }},
		{"order", func(n int) any { return orderOf(n) }, func() any { return new(orderDoc) }},
		{"text", func(n int) any { return textOf(n) }, func() any { return new(string) }},
		{"products", func(n int) any { return productsOf(n) }, func() any { return new([]product) }},
	}
	formats := []struct {
		name  string
		codec readthrough.Codec
	}{{"json", readthrough.JSON}, {"msgpack", readthrough.Msgpack}}
	for _, format := range formats {
		for _, kind := range kinds {
			var documents []any
			var dict []byte
			for n := range benchDocuments {
				documents = append(documents, kind.of(n))
			}
			for n := 1000; len(dict) < 16<<10; n++ { // none of those documents
				dict = append(dict, marshal(b, format.codec, kind.of(n))...)
			}
			small := compress.WithMinBytes(0)
			for _, c := range []struct {
				name  string
				codec readthrough.Codec
			}{
				{"plain", format.codec},
				{"s2", compress.S2(format.codec, small)},
				{"zstd", compress.Zstd(format.codec, small)},
				{"zstd-dictionary", compress.Zstd(format.codec, small, compress.WithDictionary(1, dict))},
			} {
				b.Run(format.name+"/"+kind.name+"/"+c.name, func(b *testing.B) { bench(b, c.codec, documents, kind.new) })
			}
		}
	}
}

// BenchmarkMarshal measures what a fill costs, and how many bytes it stores.
func BenchmarkMarshal(b *testing.B) {
	benchmarkCodecs(b, func(b *testing.B, c readthrough.Codec, documents []any, _ func() any) {
		bytes := 0
		for _, d := range documents {
			bytes += len(marshal(b, c, d))
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			marshal(b, c, documents[i%len(documents)])
		}
		b.ReportMetric(float64(bytes)/float64(len(documents)), "bytes")
	})
}

// BenchmarkUnmarshal measures what a hit costs.
func BenchmarkUnmarshal(b *testing.B) {
	benchmarkCodecs(b, func(b *testing.B, c readthrough.Codec, documents []any, read func() any) {
		var data [][]byte
		for _, d := range documents {
			data = append(data, marshal(b, c, d))
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := c.Unmarshal(data[i%len(data)], read()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkThreshold shows from which size on compression saves anything: texts cut to size.
func BenchmarkThreshold(b *testing.B) {
	for _, size := range []int{64, 128, 256, 512, 1024, 2048} {
		for name, codec := range map[string]readthrough.Codec{
			"s2": compress.S2(readthrough.Raw, compress.WithMinBytes(0)), "zstd": compress.Zstd(readthrough.Raw, compress.WithMinBytes(0)),
		} {
			b.Run(name+"/"+fmt.Sprint(size), func(b *testing.B) {
				var documents [][]byte
				bytes := 0
				for n := range benchDocuments {
					documents = append(documents, marshal(b, readthrough.JSON, productsOf(n))[:size])
					bytes += len(marshal(b, codec, documents[n]))
				}
				for i := 0; b.Loop(); i++ {
					marshal(b, codec, documents[i%len(documents)])
				}
				b.ReportMetric(float64(bytes)/benchDocuments, "bytes")
			})
		}
	}
}
