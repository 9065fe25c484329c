package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/readthrough-go/readthrough"
	"github.com/redis/go-redis/v9"
)

// redisPingTimeout is how long a Redis may take to answer at the start.
const redisPingTimeout = 3 * time.Second

// openRedis returns a client of the Redis at url, or of one embedded in this
// process if url is empty, and the function that ends what it began.
func openRedis(ctx context.Context, url string) (redis.UniversalClient, func() error, error) {
	if url == "" {
		return openEmbeddedRedis(ctx)
	}
	client, err := openClient(ctx, url)
	if err != nil {
		return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	return client, client.Close, nil
}

func openEmbeddedRedis(ctx context.Context) (redis.UniversalClient, func() error, error) {
	mini, err := miniredis.Run()
	if err != nil {
		return nil, nil, fmt.Errorf("embedded redis: %w", err)
	}
	mini.ClockTTL(true) // entries expire as time passes; miniredis would wait for a test to say so
	client, err := openClient(ctx, "redis://"+mini.Addr())
	if err != nil {
		mini.Close()
		return nil, nil, fmt.Errorf("embedded redis: %w", err)
	}
	return client, func() error {
		err := client.Close()
		mini.Close()
		return err
	}, nil
}

// openClient also asks for one answer, so that a mistyped address is an error
// at the start and not a cache that never hits.
func openClient(ctx context.Context, url string) (redis.UniversalClient, error) {
	client, err := readthrough.Open(url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, redisPingTimeout)
	defer cancel()
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("no answer from Redis: %w", err), client.Close())
	}
	return client, nil
}
