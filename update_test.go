package readthrough_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// updatedRow is a table of one row, and wrappers of it in a fleet.
type updatedRow struct {
	atomic.Int64
	fleet   []*readthrough.ReadThrough[int, int64]
	redis   *redis.Client
	pending func() int64 // invalidations of the first
}

func newUpdatedRow(t *testing.T, opts ...readthrough.CacheOption) (*updatedRow, *redistest.Server) {
	t.Helper()
	server := redistest.Start(t)
	v := &updatedRow{redis: server.Client()}
	v.Store(1)
	opts = append([]readthrough.CacheOption{
		readthrough.WithRedisTimeout(5 * time.Second), readthrough.WithLeaseTTL(time.Hour), readthrough.WithLeaseWait(time.Hour),
	}, opts...)
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() }, opts...)
	v.pending = func() int64 { return caches[0].Stats().PendingInvalidations }
	for _, cache := range caches {
		v.fleet = append(v.fleet, readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int64, error) {
			return v.Load(), nil
		}, readthrough.Int)))
	}
	return v, server
}

func (v *updatedRow) want(t *testing.T, want int64, stored bool) {
	t.Helper()
	for _, rt := range v.fleet {
		got, err := rt.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, stored, v.redis.Exists(t.Context(), "row:1").Val() == 1)
}

func TestUpdate_KeepsWhatIsReadMeanwhileFromBeingStored(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]readthrough.CacheOption{"plain": nil, "failover safety": {readthrough.WithFailoverSafety()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, _ := newUpdatedRow(t, opts...)
			v.want(t, 1, true)
			require.NoError(t, v.fleet[0].Update(t.Context(), 1, func(ctx context.Context) error {
				v.want(t, 1, false)
				require.NoError(t, v.fleet[1].Invalidate(ctx, 1), "of another writer")
				v.want(t, 1, false)
				require.NoError(t, v.fleet[1].Set(ctx, 1, 1), "invalidates")
				v.want(t, 1, false)
				got, err := v.fleet[1].Refresh(ctx, 1)
				require.NoError(t, err)
				require.EqualValues(t, 1, got)
				v.want(t, 1, false)
				v.Store(2)
				v.want(t, 2, false)
				return nil
			}))
			v.want(t, 2, true)
			require.Equal(t, []string{"row:1"}, v.redis.Keys(t.Context(), "*").Val())
			require.Zero(t, v.fleet[0].Stats().RedisErrors)
		})
	}
}

// TestUpdate_RefusesFillOfOlderLoad has a load begin before the Update or during it, and end after it.
func TestUpdate_RefusesFillOfOlderLoad(t *testing.T) {
	t.Parallel()
	for name, during := range map[string]bool{"begun before": false, "begun during": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
			row := newRow("old")
			reader := readthrough.Must(readthrough.New(caches[0], "row", row.load, readthrough.Int))
			writer := readthrough.Must(readthrough.New(caches[1], "row", row.load, readthrough.Int))
			early := make(chan string)
			get := func() {
				go func() { v, _ := reader.Get(context.Background(), 1); early <- v }()
				<-row.reading
			}
			if !during {
				get()
			}
			require.NoError(t, writer.Update(t.Context(), 1, func(context.Context) error {
				if during {
					get()
				}
				row.Store("new")
				return nil
			}))
			close(row.goOn)
			require.Equal(t, "old", <-early, "it began before the Update had ended")
			for _, rt := range []*readthrough.ReadThrough[int, string]{reader, writer} {
				v, err := rt.Get(t.Context(), 1)
				require.NoError(t, err)
				require.Equal(t, "new", v)
			}
		})
	}
}

func TestUpdate_LastOfSeveralGivesKeyBack(t *testing.T) {
	t.Parallel()
	v, _ := newUpdatedRow(t)
	within, over := make(chan struct{}), make(chan error)
	goOn := make(chan struct{})
	require.NoError(t, v.fleet[0].Update(t.Context(), 1, func(context.Context) error {
		go func() { // ends with its Update
			over <- v.fleet[1].UpdateMany(context.Background(), []int{1, 2}, func(context.Context) error {
				close(within)
				<-goOn
				v.Store(2)
				return nil
			})
		}()
		<-within
		return nil
	}))
	v.want(t, 1, false)
	close(goOn)
	require.NoError(t, <-over)
	v.want(t, 2, true)
}

func TestUpdate_ReturnsErrorOfWriteAsItIsAndInvalidates(t *testing.T) {
	t.Parallel()
	v, _ := newUpdatedRow(t)
	v.want(t, 1, true)
	errWrite := errors.New("write failed")
	err := v.fleet[0].Update(t.Context(), 1, func(context.Context) error {
		v.Store(2) // nobody knows
		return errWrite
	})
	require.True(t, err == errWrite) //nolint:errorlint // the very one
	v.want(t, 2, true)
	require.EqualValues(t, 1, v.fleet[0].Stats().Invalidations)
}

func TestUpdate_InvalidatesAfterPanicAndGoexit(t *testing.T) {
	t.Parallel()
	v, _ := newUpdatedRow(t)
	for i, end := range []func(){func() { panic("write") }, runtime.Goexit} {
		v.want(t, int64(i+1), true)
		panicked := make(chan any)
		go func() { // ends with its Update
			defer func() { panicked <- recover() }()
			_ = v.fleet[0].Update(context.Background(), 1, func(context.Context) error {
				v.Add(1)
				end()
				return nil
			})
		}()
		require.Equal(t, []any{"write", nil}[i], <-panicked)
		v.want(t, int64(i+2), true)
	}
}

func TestUpdate_WritesWithoutRedisAndRetriesInvalidation(t *testing.T) {
	t.Parallel()
	v, server := newUpdatedRow(t, readthrough.WithRedisTimeout(500*time.Millisecond))
	v.want(t, 1, true)
	errWrite := errors.New("write failed")
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := v.fleet[0].Update(ctx, 1, func(context.Context) error {
		v.Store(2)
		server.Resume()
		return nil
	})
	require.NoError(t, err, "Redis was back in time for the invalidation")
	v.want(t, 2, true)

	server.Kill()
	for _, want := range []error{nil, errWrite} {
		err = v.fleet[0].Update(t.Context(), 1, func(context.Context) error {
			v.Add(1)
			return want
		})
		require.ErrorIs(t, err, readthrough.ErrUnavailable)
		if want != nil {
			require.ErrorIs(t, err, want)
		}
		var failed *readthrough.WriteError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, []string{"row:1"}, failed.Keys)
		require.Equal(t, "update", failed.Op)
	}
	require.EqualValues(t, 4, v.Load())
	require.EqualValues(t, 1, v.pending())
	server.Restart()
	require.Eventually(t, func() bool { return v.pending() == 0 }, 10*time.Second, time.Millisecond)
}

func TestUpdate_DoesNotWriteWhatItCannotInvalidate(t *testing.T) {
	cache, _ := newCache(t)
	rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, string) (int, error) { return 1, nil }, readthrough.String))
	write := func(context.Context) error {
		t.Error("it was called")
		return nil
	}
	require.ErrorIs(t, rows.UpdateMany(t.Context(), []string{"a", ""}, write), readthrough.ErrEmptyKey)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, rows.Update(ended, "a", write), context.Canceled)
	require.NoError(t, cache.Close())
	require.ErrorIs(t, rows.Update(t.Context(), "a", write), readthrough.ErrClosed)
}

func TestUpdate_BoundsTheWrite(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		rt := b.process(t, &database{version: 1}, readthrough.WithWriteTimeout(time.Second))
		began := time.Now()
		err := rt.Update(t.Context(), 1, func(ctx context.Context) error {
			require.Equal(t, 6*time.Second, b.redis.TTL("{row:1}:writing"), "it outlasts the write")
			<-ctx.Done()
			return ctx.Err()
		})
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Empty(t, b.redis.Keys())
	})
}

func TestUpdate_ForgetsWritesThatHaveDied(t *testing.T) {
	t.Parallel()
	v, _ := newUpdatedRow(t)
	ctx := t.Context()
	now, err := v.redis.Time(ctx).Result()
	require.NoError(t, err)
	require.NoError(t, v.redis.ZAdd(ctx, "{row:1}:writing",
		redis.Z{Member: "died", Score: float64(now.UnixMilli() - 1)}, redis.Z{Member: "lives", Score: float64(now.UnixMilli() + 60_000)}).Err())
	require.NoError(t, v.fleet[0].Update(ctx, 1, func(context.Context) error { return nil }))
	require.Equal(t, []string{"lives"}, v.redis.ZRange(ctx, "{row:1}:writing", 0, -1).Val())
}

func TestClose_WaitsForUpdate(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache := b.cache(t)
		rows := wrapper(t, cache, constant(1))
		within := make(chan struct{})
		updated := make(chan error, 1)
		go func() { // ends with its Update
			updated <- rows.Update(context.Background(), 1, func(ctx context.Context) error {
				close(within)
				time.Sleep(time.Second)
				_, err := rows.Get(ctx, 1)
				return err
			})
		}()
		<-within
		began := time.Now()
		require.NoError(t, cache.Close())
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, <-updated)
		require.Empty(t, b.redis.Keys())
	})
}
