package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/readthrough-go/readthrough"
)

// Stats counts what has happened, for one wrapper here. Cache.Stats sums all of them.
func ExampleReadThrough_Stats() {
	cache, end := exampleCache()
	defer end()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	for range 4 {
		_, _ = users.Get(context.Background(), 42)
	}
	s := users.Stats()
	fmt.Println(s.Hits, "hits,", s.Misses, "miss,", s.Loads, "load,", s.Fills, "fill")
	// Output:
	// 3 hits, 1 miss, 1 load, 1 fill
}

// printer is an Observer that prints events.
type printer struct{}

func (printer) Observe(_ context.Context, e readthrough.Event) {
	fmt.Println(e.Wrapper, e.Key, e.Kind, e.Err)
}

// An Observer learns of each event as it happens: the place to count them for a metrics system.
func ExampleObserver() {
	cache, end := exampleCache(readthrough.WithObserver(printer{}))
	defer end()

	find := func(context.Context, int) (string, error) { return "Ada", nil }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	ctx := context.Background()

	_, _ = users.Get(ctx, 42)
	_, _ = users.Get(ctx, 42)
	_ = users.Invalidate(ctx, 42)
	// Output:
	// user user:42 miss <nil>
	// user user:42 load <nil>
	// user user:42 fill <nil>
	// user user:42 hit <nil>
	// user user:42 invalidation <nil>
}

// WithLogger logs errors at level Warn and everything else at Debug. No value is ever logged.
func ExampleWithLogger() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" { // other times in each run
				return slog.Attr{}
			}
			return a
		},
	}))
	cache, end := exampleCache(readthrough.WithLogger(logger))
	defer end()

	find := func(context.Context, int) (string, error) { return "", errors.New("connection refused") }
	users := readthrough.Must(readthrough.New(cache, "user", find, readthrough.Int))
	_, err := users.Get(context.Background(), 42)
	fmt.Println(err)
	// Output:
	// level=WARN msg="readthrough: load error" wrapper=user key=user:42 error="connection refused"
	// connection refused
}
