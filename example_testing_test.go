package readthrough_test

import (
	"context"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
)

// userService is the code under test: it must not forget the Invalidate after a write.
type userService struct {
	table map[int]string
	users *readthrough.ReadThrough[int, string]
}

func newUserService(cache *readthrough.Cache, table map[int]string) *userService {
	find := func(_ context.Context, id int) (string, error) { return table[id], nil }
	return &userService{table, readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))}
}

func (s *userService) Name(ctx context.Context, id int) (string, error) { return s.users.Get(ctx, id) }

func (s *userService) Rename(ctx context.Context, id int, name string) error {
	s.table[id] = name
	return s.users.Invalidate(ctx, id)
}

// A unit test needs no server: it runs against miniredis, in its own process. In a test, use package
// readthroughtest, which sets this up, moves the time of the Cache too, and finds the Invalidate that
// was forgotten.
func Example_unitTest() {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
	defer client.Close()
	cache := readthrough.Must(readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second)))
	defer cache.Close()

	service := newUserService(cache, map[int]string{42: "Ada"})
	ctx := context.Background()

	fmt.Println(service.Name(ctx, 42))
	fmt.Println("cached:", server.Exists("user:42"))

	fmt.Println(service.Rename(ctx, 42, "Grace"))
	fmt.Println(service.Name(ctx, 42))

	server.FastForward(time.Hour) // longer than the TTL
	fmt.Println("cached:", server.Exists("user:42"))

	// Output:
	// Ada <nil>
	// cached: true
	// <nil>
	// Grace <nil>
	// cached: false
}
