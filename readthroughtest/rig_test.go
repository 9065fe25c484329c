package readthroughtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched is a test whose failures are looked at: a testing.TB that keeps them.
type watched struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (w *watched) Errorf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

func (w *watched) Fatalf(format string, args ...any) {
	w.Errorf(format, args...)
	runtime.Goexit()
}

func (w *watched) Fatal(args ...any) { w.Fatalf("%s", fmt.Sprint(args...)) }

// said returns the failures so far.
func (w *watched) said() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.failures...)
}

// failures runs a test and returns how it has failed.
func failures(t *testing.T, test func(t testing.TB)) []string {
	t.Helper()
	w := &watched{TB: t}
	ended := make(chan struct{})
	go func() { // ends with the test, or its Fatalf
		defer close(ended)
		test(w)
	}()
	<-ended
	return w.said()
}

// table is a database of one table.
type table struct {
	mu   sync.Mutex
	rows map[int]string
	err  error

	loads atomic.Int64
}

func newTable(rows map[int]string) *table { return &table{rows: rows} }

func (d *table) find(_ context.Context, id int) (string, error) {
	d.loads.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return "", d.err
	}
	row, ok := d.rows[id]
	if !ok {
		return "", sql.ErrNoRows
	}
	return row, nil
}

// set changes a row; an empty name deletes it.
func (d *table) set(id int, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[id] = name
	if name == "" {
		delete(d.rows, id)
	}
}

func (d *table) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

var errDown = errors.New("database down")

// wrap wraps a loader under the name "user".
func wrap[V any](t testing.TB, c *readthrough.Cache, load readthrough.Loader[int, V], opts ...readthrough.Option) *readthrough.ReadThrough[int, V] {
	rt, err := readthrough.New(c, "user", load, readthrough.Int, opts...)
	require.NoError(t, err)
	return rt
}

// requireGet asks for row 1.
func requireGet[V any](t testing.TB, rt *readthrough.ReadThrough[int, V], want V, source readthrough.Source) {
	v, info, err := rt.GetInfo(context.Background(), 1)
	require.NoError(t, err)
	require.Equal(t, want, v)
	require.Equal(t, source, info.Source, "%v", info.Source)
}
