package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/readthrough-go/readthrough"
)

// Invalidate follows the write to the database. No later Get returns the old row.
func ExampleReadThrough_Invalidate() {
	cache, end := exampleCache()
	defer end()

	row := "old"
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return row, nil }, readthrough.String))
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

// Update makes the write, and invalidates: a process that dies in between leaves nothing stale.
func ExampleReadThrough_Update() {
	cache, end := exampleCache()
	defer end()

	row := "old"
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return row, nil }, readthrough.String))
	ctx := context.Background()

	fmt.Println(rows.Get(ctx, "a"))
	err := rows.Update(ctx, "a", func(context.Context) error {
		row = "new" // a transaction, say
		return nil
	})
	fmt.Println(err)
	fmt.Println(rows.Get(ctx, "a"))
	// Output:
	// old <nil>
	// <nil>
	// new <nil>
}

// Set stores what was just written, so that the next reader need not load it.
func ExampleReadThrough_Set() {
	cache, end := exampleCache()
	defer end()

	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return "", errors.New("not called here") },
		readthrough.String))
	ctx := context.Background()

	fmt.Println(rows.Set(ctx, "a", "new"))
	fmt.Println(rows.Get(ctx, "a"))
	// Output:
	// <nil>
	// new <nil>
}

// SetMany stores the pairs of a map, or of any other sequence, in two round trips.
func ExampleReadThrough_SetMany() {
	cache, end := exampleCache()
	defer end()

	prices := readthrough.Must(readthrough.New(cache, "price",
		func(context.Context, string) (int, error) { return 0, errors.New("not called here") },
		readthrough.String))
	ctx := context.Background()

	fmt.Println(prices.SetMany(ctx, maps.All(map[string]int{"apple": 3, "pear": 4})))
	fmt.Println(prices.Get(ctx, "apple"))
	fmt.Println(prices.Get(ctx, "pear"))
	// Output:
	// <nil>
	// 3 <nil>
	// 4 <nil>
}

// Expire allows the old value once more: the next read gets it at once and starts one refresh.
func ExampleReadThrough_Expire() {
	filled := make(chan string, 2)
	cache, end := exampleCache(readthrough.WithObserver(fillObserver(filled)))
	defer end()

	row := "old"
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return row, nil }, readthrough.String,
		readthrough.WithStale(time.Hour)))
	ctx := context.Background()

	fmt.Println(rows.Get(ctx, "a"))
	<-filled
	row = "new"
	fmt.Println(rows.Expire(ctx, "a"))
	fmt.Println(rows.Get(ctx, "a"))
	<-filled // by the refresh that this Get has started
	fmt.Println(rows.Get(ctx, "a"))
	// Output:
	// old <nil>
	// <nil>
	// old <nil>
	// new <nil>
}

// fillObserver is sent the key of each entry that was stored.
type fillObserver chan<- string

func (o fillObserver) Observe(_ context.Context, e readthrough.Event) {
	if e.Kind == readthrough.EventFill {
		o <- e.Key
	}
}

// Delete deletes entries by their Redis keys, for those who have no wrapper at hand.
func ExampleCache_Delete() {
	cache, end := exampleCache()
	defer end()

	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return "a row", nil }, readthrough.String))
	ctx := context.Background()

	_, _ = rows.Get(ctx, "a")
	fmt.Println(cache.Delete(ctx, "row:a"))
	_, err := rows.Peek(ctx, "a")
	fmt.Println(errors.Is(err, readthrough.ErrMiss))
	// Output:
	// <nil>
	// true
}

// The functions Set and Get are a cache without a loader, at raw Redis keys.
func ExampleSet() {
	cache, end := exampleCache()
	defer end()
	ctx := context.Background()

	fmt.Println(readthrough.Set(ctx, cache, "motd", "hello", time.Hour))
	fmt.Println(readthrough.Get[string](ctx, cache, "motd"))
	// Output:
	// <nil>
	// hello <nil>
}

// Get is ErrMiss for a key that holds no value.
func ExampleGet() {
	cache, end := exampleCache()
	defer end()

	_, err := readthrough.Get[string](context.Background(), cache, "motd")
	fmt.Println(errors.Is(err, readthrough.ErrMiss))
	// Output:
	// true
}
