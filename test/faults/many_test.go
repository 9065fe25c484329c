package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// askInParallel has goroutines ask for overlapping sets of 100 of 500 keys.
func askInParallel(rows *readthrough.ReadThrough[int, int], goroutines int) error {
	var wg sync.WaitGroup
	failed := make(chan error, goroutines)
	for range goroutines {
		wg.Go(func() {
			ids := rand.Perm(500)[:100]
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			results, err := rows.GetMany(ctx, ids)
			if err != nil || !slices.Equal(results, squaresOf(ids)) {
				failed <- fmt.Errorf("got %v, %w", results, err)
			}
		})
	}
	wg.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// requireEachOnce fails the test if a key was loaded twice.
func requireEachOnce(t *testing.T, asked []int) {
	t.Helper()
	slices.Sort(asked)
	require.Equal(t, slices.Compact(slices.Clone(asked)), asked, "each at most once")
	require.Greater(t, len(asked), 400)
}

func TestGetMany_LoadsEachKeyOnceInFleet(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	loader := &squares{}
	var wg sync.WaitGroup
	for _, cache := range fleet(t, 4, func() redis.UniversalClient { return server.Client() }) {
		rows := loader.wrap(t, cache)
		wg.Go(func() {
			if err := askInParallel(rows, 16); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	requireEachOnce(t, loader.asked())
	requireNoLeases(t, server.Client())
}

const batchMember = "member that asks for many"

func init() { redistest.Register(batchMember, runBatchMember) }

// runBatchMember runs one process of the fleet: it waits for its input to end, asks, and writes
// what it has loaded.
func runBatchMember() int {
	client := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDR")})
	cache := readthrough.Must(readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second)))
	loader := &squares{}
	rows := readthrough.Must(readthrough.New(cache, "row", constant(-1), readthrough.Int, readthrough.WithBatchLoader(loader.load)))
	fmt.Println("ready")
	_, _ = io.ReadAll(os.Stdin)
	err := errors.Join(askInParallel(rows, 16), cache.Close(), client.Close())
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(loader.asked())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestGetMany_LoadsEachKeyOnceInFourProcesses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	members := make([]*redistest.Proc, 4)
	for i := range members {
		members[i] = redistest.Process(t, batchMember, "REDIS_ADDR="+server.Addr())
		line, err := members[i].ReadLine(30 * time.Second)
		require.NoError(t, err)
		require.Equal(t, "ready", line)
	}
	for _, m := range members {
		require.NoError(t, m.Stdin.Close())
	}
	var asked []int
	for _, m := range members {
		line, err := m.ReadLine(60 * time.Second)
		require.NoError(t, err)
		var loaded []int
		require.NoError(t, json.Unmarshal([]byte(line), &loaded))
		asked = append(asked, loaded...)
		require.NoError(t, m.Wait())
	}
	requireEachOnce(t, asked)
	requireNoLeases(t, server.Client())
}
