package readthrough_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"time"

	"github.com/readthrough-go/readthrough"
)

// With WithStale an old value outlives its TTL, and a database that is down.
func ExampleWithStale() {
	cache, end := exampleCache()
	defer end()

	errDown := error(nil)
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return "a row", errDown }, readthrough.String,
		readthrough.WithTTL(time.Minute), readthrough.WithStale(time.Hour)))
	ctx := context.Background()

	fmt.Println(rows.Get(ctx, "a"))
	errDown = errors.New("the database is down")
	_ = rows.Expire(ctx, "a") // as if the minute had passed
	for range 2 {
		row, info, err := rows.GetInfo(ctx, "a")
		fmt.Println(row, err, info.Source)
	}
	// Output:
	// a row <nil>
	// a row <nil> stale
	// a row <nil> stale
}

// WithPatience is how long a caller waits for a fresh value while it has a stale one at hand.
func ExampleWithPatience() {
	cache, end := exampleCache()
	defer end()

	slow := make(chan struct{})
	loads := 0
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) {
			if loads++; loads > 1 {
				<-slow
			}
			return fmt.Sprint("version ", loads), nil
		}, readthrough.String,
		readthrough.WithStale(time.Hour), readthrough.WithPatience(10*time.Millisecond)))
	ctx := context.Background()

	fmt.Println(rows.Get(ctx, "a"))
	_ = rows.Expire(ctx, "a")
	fmt.Println(rows.Get(ctx, "a")) // gives up after 10 ms; the load goes on
	close(slow)
	// Output:
	// version 1 <nil>
	// version 1 <nil>
}

// WithTTLFor lets each value say how long it is fresh.
func ExampleWithTTLFor() {
	cache, end := exampleCache()
	defer end()

	type token struct {
		Text     string
		Lifetime time.Duration
	}
	tokens := readthrough.Must(readthrough.New(cache, "token",
		func(_ context.Context, scope string) (token, error) { return token{scope + "-token", time.Hour}, nil },
		readthrough.String, readthrough.WithJitter(0),
		readthrough.WithTTLFor(func(t token) time.Duration { return t.Lifetime / 2 })))

	t, info, err := tokens.GetInfo(context.Background(), "read")
	fmt.Println(t.Text, err, info.TTL.Round(time.Minute))
	// Output:
	// read-token <nil> 30m0s
}

// gobCodec stores values as encoding/gob writes them.
type gobCodec struct{}

func (gobCodec) Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func (gobCodec) Unmarshal(data []byte, v any) error {
	return gob.NewDecoder(bytes.NewReader(data)).Decode(v)
}

// A codec of one's own is two methods.
func ExampleCodec() {
	cache, end := exampleCache()
	defer end()

	points := readthrough.Must(readthrough.New(cache, "point",
		func(_ context.Context, n int) (complex128, error) { return complex(float64(n), 1), nil },
		readthrough.Int, readthrough.WithCodec(gobCodec{})))
	for range 2 {
		point, info, err := points.GetInfo(context.Background(), 3)
		fmt.Println(point, err, info.Source)
	}
	// Output:
	// (3+1i) <nil> loaded
	// (3+1i) <nil> hit
}

// Raw stores strings and byte slices as they are, such as a page that is rendered already.
func ExampleWithCodec_raw() {
	cache, end := exampleCache()
	defer end()

	pages := readthrough.Must(readthrough.New(cache, "page",
		func(_ context.Context, path string) ([]byte, error) { return []byte("<h1>" + path + "</h1>"), nil },
		readthrough.String, readthrough.WithCodec(readthrough.Raw)))
	for range 2 {
		page, info, err := pages.GetInfo(context.Background(), "/about")
		fmt.Println(string(page), err, info.Source)
	}
	// Output:
	// <h1>/about</h1> <nil> loaded
	// <h1>/about</h1> <nil> hit
}

// A panic of the loader is raised again in each of its callers.
func ExamplePanicError() {
	cache, end := exampleCache()
	defer end()

	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { panic("out of cheese") }, readthrough.String))
	defer func() {
		if p, ok := recover().(*readthrough.PanicError); ok {
			fmt.Println("the loader panicked:", p.Value)
		}
	}()
	_, _ = rows.Get(context.Background(), "a")
	// Output:
	// the loader panicked: out of cheese
}

// WithAudit checks a share of the hits, here all, for what nobody has invalidated.
func ExampleWithAudit() {
	forgotten := make(chan string, 10)
	cache, end := exampleCache(readthrough.WithObserver(forgottenObserver(forgotten)))
	defer end()

	row := "old"
	rows := readthrough.Must(readthrough.New(cache, "row",
		func(context.Context, string) (string, error) { return row, nil }, readthrough.String,
		readthrough.WithAudit(1)))
	ctx := context.Background()

	_, _ = rows.Get(ctx, "a")
	row = "new" // and no Invalidate
	fmt.Println(rows.Get(ctx, "a"))
	fmt.Println("forgotten:", <-forgotten)
	// Output:
	// old <nil>
	// forgotten: row:a
}

// forgottenObserver is sent the key of each entry that nobody has invalidated.
type forgottenObserver chan<- string

func (o forgottenObserver) Observe(_ context.Context, e readthrough.Event) {
	if e.Kind == readthrough.EventForgotten {
		o <- e.Key
	}
}
