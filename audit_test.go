package readthrough_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// table is the rows of a database.
type table[V any] struct {
	mu   sync.Mutex
	rows map[int]V
}

var errNoSuchRow = errors.New("no such row")

func (d *table[V]) load(_ context.Context, id int) (V, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.rows[id]
	if !ok {
		return v, errNoSuchRow
	}
	return v, nil
}

func (d *table[V]) set(id int, v V) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[id] = v
}

// TestAudit_FindsForgottenInvalidations plants 50 among 200 keys: rows that change, appear or go, and nobody
// invalidates.
func TestAudit_FindsForgottenInvalidations(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const keys, planted, reads = 200, 50, 1000
		found := make(map[string]int)
		var mu sync.Mutex
		cache := b.cache(t, readthrough.WithTTL(time.Hour), readthrough.WithObserver(observerFunc(func(_ context.Context, e readthrough.Event) {
			if e.Kind == readthrough.EventForgotten {
				mu.Lock()
				defer mu.Unlock()
				found[e.Key]++
				require.GreaterOrEqual(t, e.Took, time.Minute, "the entry's age")
				require.Error(t, e.Err)
			}
		})))
		db := &table[map[string]int]{rows: make(map[int]map[string]int)}
		for id := range keys {
			if id%5 != 0 {
				db.set(id, map[string]int{"a": id, "b": 2, "c": 3, "d": 4}) // encodes in any order
			}
		}
		rows := wrapper(t, cache, db.load, readthrough.WithNotFound(time.Hour, errNoSuchRow), readthrough.WithAudit(0.1))
		read := func(reads int) {
			for range reads {
				for id := range keys {
					_, _ = rows.Get(t.Context(), id)
				}
			}
		}
		read(1)
		pass(time.Minute)
		want := make(map[string]bool)
		for id := range planted {
			key, _ := rows.RedisKey(id)
			want[key] = true
			if id%7 == 1 && id%5 != 0 {
				delete(db.rows, id)
			} else {
				db.set(id, map[string]int{"a": -1})
			}
		}
		for range 10 {
			read(reads / 100)
			pass(2 * time.Second)
			mu.Lock()
			all := len(found) == planted
			mu.Unlock()
			if all {
				break
			}
		}
		require.Len(t, found, planted)
		for key := range found {
			require.True(t, want[key], key)
		}
		require.GreaterOrEqual(t, rows.Stats().Forgotten, int64(planted))
	})
}

// TestAudit_FindsNothingWhereWritersInvalidate reads 100,000 times while rows change, with a pause between the write
// and its Invalidate.
func TestAudit_FindsNothingWhereWritersInvalidate(t *testing.T) {
	t.Parallel()
	const readers, keys = 4, 20
	reads := 100_000
	if testing.Short() {
		reads /= 10
	}
	cache, _ := newCache(t)
	db := &table[map[string]int]{rows: make(map[int]map[string]int)}
	for id := range keys {
		db.set(id, map[string]int{"a": id, "b": 2, "c": 3})
	}
	rows := wrapper(t, cache, db.load, readthrough.WithAudit(0.1))
	var left atomic.Int64
	left.Store(int64(reads))
	var reading, writing sync.WaitGroup
	for n := range readers {
		reading.Go(func() {
			for i := n; left.Add(-1) >= 0; i++ {
				if _, err := rows.Get(t.Context(), i%keys); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Go(func() {
		for i := 0; left.Load() > 0; i++ {
			id := i % keys
			write := func(context.Context) error {
				db.set(id, map[string]int{"a": i, "b": 3, "c": 4})
				return nil
			}
			if i%2 == 0 {
				_ = rows.Update(t.Context(), id, write)
				continue
			}
			_ = write(t.Context())
			time.Sleep(time.Millisecond) // to come late is its purpose
			_ = rows.Invalidate(t.Context(), id)
		}
	})
	reading.Wait()
	writing.Wait()
	time.Sleep(1200 * time.Millisecond) // a verdict waits for a second whether a writer comes
	require.NoError(t, cache.Close())
	s := rows.Stats()
	require.Greater(t, s.Loads, s.Fills+s.RefusedFills, "some were audits")
	require.Zero(t, s.Forgotten)
	t.Logf("%+v", s)
}

// TestAudit_EndsWithClose has the Cache close while an audit loads.
func TestAudit_EndsWithClose(t *testing.T) {
	t.Parallel()
	cache, _ := newCache(t)
	auditing := make(chan struct{})
	var loads atomic.Int64
	rows := wrapper(t, cache, func(ctx context.Context, _ int) (int, error) {
		if loads.Add(1) > 1 {
			close(auditing)
			<-ctx.Done()
			panic("is dropped")
		}
		return 1, nil
	}, readthrough.WithAudit(1))
	for range 3 { // a load, a hit that is audited, and one while that is so
		v, err := rows.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, 1, v)
	}
	<-auditing
	require.NoError(t, cache.Close())
	require.EqualValues(t, 2, loads.Load())
}
