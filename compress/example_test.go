package compress_test

import (
	"context"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/compress"
)

// exampleCache returns a Cache on a Redis in this process, and what ends both.
func exampleCache() (*readthrough.Cache, func()) {
	server := readthrough.Must(miniredis.Run())
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	cache := readthrough.Must(readthrough.NewCache(client))
	return cache, func() {
		_ = cache.Close()
		_ = client.Close()
		server.Close()
	}
}

// Zstd goes around the codec that a wrapper would have without it.
func ExampleZstd() {
	cache, end := exampleCache()
	defer end()

	findText := func(_ context.Context, n int) (string, error) { return textOf(n), nil }
	texts := readthrough.Must(readthrough.New(cache, "text", findText, readthrough.Int,
		readthrough.WithCodec(compress.Zstd(readthrough.Raw))))

	ctx := context.Background()
	for range 2 {
		text, info, err := texts.GetInfo(ctx, 1)
		fmt.Println(len(text), info.Source, err)
	}
	// Output:
	// 4658 loaded <nil>
	// 4658 hit <nil>
}

// A dictionary is a few typical values of the inner codec, one after the other. Keep the bytes in a
// file, and embed it (go:embed): all processes need the same.
func ExampleWithDictionary() {
	var dictionary []byte
	for n := 1000; len(dictionary) < 16<<10; n++ {
		value, err := readthrough.JSON.Marshal(orderOf(n))
		if err != nil {
			panic(err)
		}
		dictionary = append(dictionary, value...)
	}

	plain, small := compress.Zstd(readthrough.JSON), compress.Zstd(readthrough.JSON,
		compress.WithDictionary(1, dictionary), compress.WithMinBytes(64))
	for _, codec := range []readthrough.Codec{readthrough.JSON, plain, small} {
		size := 0
		for n := range 100 {
			value, err := codec.Marshal(orderOf(n))
			if err != nil {
				panic(err)
			}
			size += len(value)
		}
		fmt.Println((size/100+50)/100*100, "bytes, about")
	}
	// Output:
	// 600 bytes, about
	// 400 bytes, about
	// 200 bytes, about
}
