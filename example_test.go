package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
)

func exampleCache() (*readthrough.Cache, func()) {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	cache := readthrough.Must(readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second)))
	return cache, func() {
		_ = cache.Close()
		_ = client.Close()
		server.Close()
	}
}

func ExampleNew() {
	cache, end := exampleCache()
	defer end()
	find := func(_ context.Context, id int) (string, error) {
		fmt.Println("loading", id)
		return "Ada", nil
	}
	users, err := readthrough.New(cache, "user", find, readthrough.Int, readthrough.WithTTL(time.Minute))
	if err != nil {
		panic(err)
	}
	for range 2 {
		name, err := users.Get(context.Background(), 42)
		fmt.Println(name, err)
	}
	// Output:
	// loading 42
	// Ada <nil>
	// Ada <nil>
}

func ExampleWithNotFound() {
	cache, end := exampleCache()
	defer end()
	errNoUser := errors.New("no such user")
	find := func(_ context.Context, id int) (string, error) {
		fmt.Println("loading", id)
		return "", errNoUser
	}
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int, readthrough.WithNotFound(time.Minute, errNoUser)))
	for range 2 {
		_, err := users.Get(context.Background(), 42)
		fmt.Println(errors.Is(err, errNoUser))
	}
	// Output:
	// loading 42
	// true
	// true
}

func ExampleReadThrough_Invalidate() {
	cache, end := exampleCache()
	defer end()
	row := "old"
	rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, string) (string, error) {
		return row, nil
	}, readthrough.String))
	ctx := context.Background()
	fmt.Println(rows.Get(ctx, "a"))
	row = "new"
	fmt.Println(rows.Invalidate(ctx, "a"))
	fmt.Println(rows.Get(ctx, "a"))
	// Output:
	// old <nil>
	// <nil>
	// new <nil>
}

func ExampleSet() {
	cache, end := exampleCache()
	defer end()
	ctx := context.Background()
	fmt.Println(readthrough.Set(ctx, cache, "motd", "hello", time.Hour))
	fmt.Println(readthrough.Get[string](ctx, cache, "motd"))
	fmt.Println(cache.Delete(ctx, "motd"))
	_, err := readthrough.Get[string](ctx, cache, "motd")
	fmt.Println(errors.Is(err, readthrough.ErrMiss))
	// Output:
	// <nil>
	// hello <nil>
	// <nil>
	// true
}
