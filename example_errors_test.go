package readthrough_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
)

// exampleOutage returns a Cache whose Redis is down, and a function that ends it.
func exampleOutage() (*readthrough.Cache, func()) {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
	})
	server.Close() // from now on connections are refused
	cache := readthrough.Must(readthrough.NewCache(client))
	return cache, func() {
		_ = cache.Close()
		_ = client.Close()
	}
}

// A WriteError has the keys whose entries may still be stale. They are retried in the background.
func ExampleWriteError() {
	cache, end := exampleOutage()
	defer end()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	err := users.Invalidate(context.Background(), 42, 43)

	var w *readthrough.WriteError
	if errors.As(err, &w) {
		fmt.Println(w.Op, w.Keys)
	}
	fmt.Println(errors.Is(err, readthrough.ErrUnavailable))
	fmt.Println("to be retried:", cache.Stats().PendingInvalidations)
	// Output:
	// invalidate [user:42 user:43]
	// true
	// to be retried: 2
}

// When Redis is down, Get asks the loader. What cannot do without Redis returns ErrUnavailable.
func Example_redisDown() {
	cache, end := exampleOutage()
	defer end()
	ctx := context.Background()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	fmt.Println(users.Get(ctx, 42))

	_, err := users.Peek(ctx, 42)
	fmt.Println(errors.Is(err, readthrough.ErrUnavailable), errors.Is(err, readthrough.ErrMiss))
	_, err = readthrough.Get[string](ctx, cache, "motd")
	fmt.Println(errors.Is(err, readthrough.ErrUnavailable), errors.Is(err, readthrough.ErrMiss))
	// Output:
	// Ada <nil>
	// true false
	// true false
}

// A key that the batch loader leaves out is ErrNotFound, or the first error of WithNotFound.
func ExampleWithBatchLoader() {
	cache, end := exampleCache()
	defer end()

	squares := readthrough.Must(readthrough.New(cache, "square", findSquare, readthrough.Int,
		readthrough.WithBatchLoader(findSquares)))
	results, err := squares.GetMany(context.Background(), []int{12, 13})
	fmt.Println(results[0].Value, results[0].Err, err)
	fmt.Println(errors.Is(results[1].Err, readthrough.ErrNotFound))
	// Output:
	// one query for [12 13]
	// 144 <nil> <nil>
	// true
}
