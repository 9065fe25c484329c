package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
)

// exampleCache returns a Cache on a miniredis of its own, and a function that ends both.
func exampleCache(opts ...readthrough.CacheOption) (*readthrough.Cache, func()) {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
	opts = append(opts, readthrough.WithRedisTimeout(5*time.Second)) // for busy test machines
	cache := readthrough.Must(readthrough.NewCache(client, opts...))
	return cache, func() {
		_ = cache.Close()
		_ = client.Close()
		server.Close()
	}
}

// New wraps a repository function. Its second call finds the value in Redis.
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

// A function of several arguments takes a struct as its key. The key extractor quotes a part that
// may hold anything, so that no two keys become the same string.
func ExampleNew_compositeKey() {
	cache, end := exampleCache()
	defer end()

	type priceKey struct {
		Shop string
		Item int
	}
	findPrice := func(_ context.Context, shop string, item int) (string, error) {
		return fmt.Sprintf("%s sells item %d for 9.90", shop, item), nil
	}
	prices := readthrough.Must(readthrough.New(cache, "price",
		func(ctx context.Context, k priceKey) (string, error) { return findPrice(ctx, k.Shop, k.Item) },
		func(k priceKey) string { return strconv.Quote(k.Shop) + "," + strconv.Itoa(k.Item) }))

	key := priceKey{Shop: "Corner, Inc.", Item: 7}
	fmt.Println(prices.Get(context.Background(), key))
	fmt.Println(prices.RedisKey(key))
	// Output:
	// Corner, Inc. sells item 7 for 9.90 <nil>
	// price:"Corner, Inc.",7 <nil>
}

// Must is for wrappers that are made when the process starts.
func ExampleMust() {
	cache, end := exampleCache()
	defer end()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	fmt.Println(users.Get(context.Background(), 42))

	_, err := readthrough.New(cache, "user", find, readthrough.Int)
	fmt.Println("a second wrapper of that name is refused:", err != nil)
	// Output:
	// Ada <nil>
	// a second wrapper of that name is refused: true
}

// A method value of Get takes the place of the function that was wrapped.
func ExampleReadThrough_Get() {
	cache, end := exampleCache()
	defer end()

	greet := func(find func(context.Context, int) (string, error)) {
		name, err := find(context.Background(), 42)
		fmt.Println("Hello,", name, err)
	}

	findUser := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", findUser, readthrough.Int))
	greet(findUser)
	greet(users.Get)
	// Output:
	// Hello, Ada <nil>
	// Hello, Ada <nil>
}

// The errors of WithNotFound are cached. A hit returns the error that was named.
func ExampleWithNotFound() {
	cache, end := exampleCache()
	defer end()

	errNoUser := errors.New("no such user")
	find := func(_ context.Context, id int) (string, error) {
		fmt.Println("loading", id)
		return "", fmt.Errorf("find user %d: %w", id, errNoUser)
	}
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int,
		readthrough.WithNotFound(time.Minute, errNoUser)))
	for range 2 {
		_, err := users.Get(context.Background(), 42)
		fmt.Println(errors.Is(err, errNoUser))
	}
	// Output:
	// loading 42
	// true
	// true
}

// Peek never calls the loader.
func ExampleReadThrough_Peek() {
	cache, end := exampleCache()
	defer end()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	ctx := context.Background()

	_, err := users.Peek(ctx, 42)
	fmt.Println(errors.Is(err, readthrough.ErrMiss))
	_, _ = users.Get(ctx, 42)
	fmt.Println(users.Peek(ctx, 42))
	// Output:
	// true
	// Ada <nil>
}

// Refresh loads now, whatever the cache holds.
func ExampleReadThrough_Refresh() {
	cache, end := exampleCache()
	defer end()

	row := "old"
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return row, nil }, readthrough.String))
	ctx := context.Background()

	fmt.Println(rows.Get(ctx, "a"))
	row = "new" // by somebody who does not call Invalidate
	fmt.Println(rows.Get(ctx, "a"))
	fmt.Println(rows.Refresh(ctx, "a"))
	fmt.Println(rows.Get(ctx, "a"))
	// Output:
	// old <nil>
	// old <nil>
	// new <nil>
	// new <nil>
}

// RedisKey returns the key to look for with redis-cli.
func ExampleReadThrough_RedisKey() {
	cache, end := exampleCache(readthrough.WithPrefix("shop"))
	defer end()

	find := func(_ context.Context, id string) (string, error) { return id, nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.String))
	fmt.Println(users.RedisKey("ada"))
	fmt.Println(users.RedisKey("50% {off}")) // nothing in a key can move it to another slot
	// Output:
	// shop:user:ada <nil>
	// shop:user:50%25 %7Boff%7D <nil>
}

// GetInfo tells where a value came from.
func ExampleReadThrough_GetInfo() {
	cache, end := exampleCache()
	defer end()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int,
		readthrough.WithTTL(time.Hour), readthrough.WithJitter(0)))
	for range 2 {
		name, info, err := users.GetInfo(context.Background(), 42)
		fmt.Println(name, err, info.Source, info.Stored, info.TTL.Round(time.Minute))
	}
	// Output:
	// Ada <nil> loaded true 1h0m0s
	// Ada <nil> hit false 1h0m0s
}

// CacheStatus renders an Info as the Cache-Status header of RFC 9211.
func ExampleInfo_CacheStatus() {
	cache, end := exampleCache()
	defer end()

	find := func(context.Context, string) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.String,
		readthrough.WithTTL(readthrough.NoExpiry)))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, info, err := users.GetInfo(r.Context(), r.PathValue("id"))
		w.Header().Set("Cache-Status", info.CacheStatus("users"))
		if err != nil {
			http.Error(w, "no answer", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Age", strconv.Itoa(int(info.Age.Seconds())))
		fmt.Fprint(w, name)
	})

	for range 2 {
		request := httptest.NewRequest(http.MethodGet, "/users/42", http.NoBody)
		request.SetPathValue("id", "42")
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		fmt.Println(response.Body, "|", response.Header().Get("Cache-Status"))
	}
	// Output:
	// Ada | users; fwd=miss; stored
	// Ada | users; hit
}
