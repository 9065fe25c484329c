package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/readthrough-go/readthrough"
)

// findSquares is a batch loader. It has no answer for 13.
func findSquares(_ context.Context, ids []int) (map[int]int, error) {
	slices.Sort(ids)
	fmt.Println("one query for", ids)
	squares := make(map[int]int)
	for _, id := range ids {
		if id != 13 {
			squares[id] = id * id
		}
	}
	return squares, nil
}

var errNoSquare = errors.New("no such square")

// findSquare loads one value with findSquares.
func findSquare(ctx context.Context, id int) (int, error) {
	found, err := findSquares(ctx, []int{id})
	if err != nil {
		return 0, err
	}
	if square, ok := found[id]; ok {
		return square, nil
	}
	return 0, errNoSquare
}

// GetMany looks all keys up in one round trip, and what misses is one call of the batch loader.
func ExampleReadThrough_GetMany() {
	cache, end := exampleCache()
	defer end()

	squares := readthrough.Must(readthrough.New(cache, "square", findSquare, readthrough.Int,
		readthrough.WithBatchLoader(findSquares),
		readthrough.WithNotFound(time.Minute, errNoSquare)))
	ctx := context.Background()

	_ = squares.Set(ctx, 2, 4)
	for range 2 {
		results, err := squares.GetMany(ctx, []int{1, 2, 3, 13})
		fmt.Println(results, err)
	}
	// Output:
	// one query for [1 3 13]
	// [{1 <nil>} {4 <nil>} {9 <nil>} {0 no such square}] <nil>
	// [{1 <nil>} {4 <nil>} {9 <nil>} {0 no such square}] <nil>
}

// WithGather turns single Gets that miss within its window into one call of the batch loader.
func ExampleWithGather() {
	cache, end := exampleCache()
	defer end()

	// The window ends with its third key here. A service would wait a millisecond or two.
	squares := readthrough.Must(readthrough.New(cache, "square", findSquare, readthrough.Int,
		readthrough.WithBatchLoader(findSquares),
		readthrough.WithGather(time.Minute, 3)))

	var sum [3]int
	var wg sync.WaitGroup
	for i := range sum {
		wg.Go(func() { sum[i], _ = squares.Get(context.Background(), i+1) })
	}
	wg.Wait()
	fmt.Println(sum)
	// Output:
	// one query for [1 2 3]
	// [1 4 9]
}

// Each ranges over the results of any number of keys, in their order.
func ExampleReadThrough_Each() {
	cache, end := exampleCache()
	defer end()

	squares := readthrough.Must(readthrough.New(cache, "square", findSquare, readthrough.Int,
		readthrough.WithBatchLoader(findSquares)))
	for id, result := range squares.Each(context.Background(), slices.Values([]int{3, 1, 2})) {
		fmt.Println(id, result.Value, result.Err)
	}
	// Output:
	// one query for [1 2 3]
	// 3 9 <nil>
	// 1 1 <nil>
	// 2 4 <nil>
}

// Warm fills the cache before a process takes traffic.
func ExampleReadThrough_Warm() {
	cache, end := exampleCache()
	defer end()

	squares := readthrough.Must(readthrough.New(cache, "square", findSquare, readthrough.Int,
		readthrough.WithBatchLoader(findSquares)))
	ctx := context.Background()

	_ = squares.Set(ctx, 2, 4)
	warmed, err := squares.Warm(ctx, slices.Values([]int{1, 2, 3}))
	fmt.Printf("%+v %v\n", warmed, err)
	// Output:
	// one query for [1 3]
	// {Loaded:2 Present:1 Failed:0} <nil>
}
