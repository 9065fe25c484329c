package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/readthrough-go/readthrough"
)

// Open makes a client of one server, a cluster or a sentinel, with limits that suit a cache. The
// query overrides them.
func ExampleOpen() {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()

	client, err := readthrough.Open("redis://" + server.Addr() + "/0?read_timeout=5s&pool_size=5")
	if err != nil {
		panic(err)
	}
	defer client.Close()
	fmt.Println(client.Ping(context.Background()).Val())

	_, err = readthrough.Open("redis://localhost?read_only=true") // a replica may still have what was invalidated
	fmt.Println("reads from replicas are refused:", err != nil)
	// Output:
	// PONG
	// reads from replicas are refused: true
}

// Default is the client that a whole process shares, from $REDIS_URL.
func ExampleDefault() {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	_ = os.Setenv("REDIS_URL", "redis://"+server.Addr()+"?read_timeout=5s")
	defer os.Unsetenv("REDIS_URL")

	client, err := readthrough.Default()
	if err != nil {
		panic(err)
	}
	defer func() { _ = readthrough.CloseDefault() }()
	fmt.Println(client.Ping(context.Background()).Val())
	// Output:
	// PONG
}

// NewCache takes options of its own, and the defaults of its wrappers.
func ExampleNewCache() {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client, err := readthrough.Open("redis://" + server.Addr() + "?read_timeout=5s")
	if err != nil {
		panic(err)
	}
	defer client.Close()

	cache, err := readthrough.NewCache(client,
		readthrough.WithPrefix("shop"),              // only on a Cache
		readthrough.WithRedisTimeout(5*time.Second), // likewise
		readthrough.WithTTL(10*time.Minute),         // the default of all wrappers
		readthrough.WithCodec(readthrough.JSON))     // likewise
	if err != nil {
		panic(err)
	}
	defer cache.Close() // before the client

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	_, _ = users.Get(context.Background(), 42)
	fmt.Println(server.Keys())
	// Output:
	// [shop:user:42]
}

// Shutdown ends background work within the caller's limit, as an http.Server does. Close has a
// limit of 5 seconds.
func ExampleCache_Shutdown() {
	cache, end := exampleCache()
	defer end()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(cache.Shutdown(ctx))
	_, err := users.Get(ctx, 42)
	fmt.Println(errors.Is(err, readthrough.ErrClosed))
	// Output:
	// <nil>
	// true
}
