package proto_test

import (
	"context"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/proto"
)

// V is a pointer to a generated message.
func ExampleCodec() {
	server := readthrough.Must(miniredis.Run())
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	cache := readthrough.Must(readthrough.NewCache(client))
	defer cache.Close()

	lastSeen := func(context.Context, string) (*timestamppb.Timestamp, error) {
		return timestamppb.New(time.Unix(1_800_000_000, 0)), nil
	}
	seen := readthrough.Must(readthrough.New(cache, "seen", lastSeen, readthrough.String,
		readthrough.WithCodec(proto.Codec{})))
	for range 2 {
		at, info, err := seen.GetInfo(context.Background(), "ada")
		fmt.Println(at.AsTime().Format(time.DateOnly), info.Source, err)
	}
	// Output:
	// 2027-01-15 loaded <nil>
	// 2027-01-15 hit <nil>
}
