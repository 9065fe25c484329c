package readthrough_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// slowly returns a wrapper whose loads take a while, in which during is called.
func slowly(t *testing.T, cache *readthrough.Cache, takes time.Duration, during func()) *readthrough.ReadThrough[int, string] {
	t.Helper()
	return wrapper(t, cache, func(context.Context, int) (string, error) {
		during()
		time.Sleep(takes)
		return "v", nil
	}, readthrough.WithLeaseTTL(300*time.Millisecond)) // which is renewed each 100 ms
}

func TestGet_DoesNotWaitForRenewalOfItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, h := b.hooked(t)
		defer func() { require.NoError(t, cache.Close()) }()
		const trip = 90 * time.Millisecond
		rows := slowly(t, cache, 110*time.Millisecond, func() { h.delay.Store(int64(trip)) })
		began := time.Now()
		_, err := rows.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, 110*time.Millisecond+trip, time.Since(began), "the load and the fill")
		require.EqualValues(t, 1, rows.Stats().Fills)
	})
}

func TestLease_IsRenewedAfterRenewalThatFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		cache, h := b.hooked(t)
		defer func() { require.NoError(t, cache.Close()) }()
		rows := slowly(t, cache, time.Second, func() {
			h.fails.Store(true)
			time.AfterFunc(150*time.Millisecond, func() { h.fails.Store(false) })
		})
		_, err := rows.Get(t.Context(), 1)
		require.NoError(t, err)
		require.EqualValues(t, 1, rows.Stats().RedisErrors, "one renewal")
		require.EqualValues(t, 1, rows.Stats().Fills)
	})
}

// A loader's panic does not keep the others of a batch from being waited for.
func TestGetMany_WaitsForAllBeforeItPanics(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ended := false
		rows := readthrough.Must(readthrough.New(b.cache(t), "row", func(context.Context, int) (int, error) {
			time.Sleep(time.Second)
			panic("of the first")
		}, readthrough.Int, readthrough.WithBatchLoader(func(_ context.Context, ids []int) (map[int]int, error) {
			time.Sleep(2 * time.Second)
			ended = true
			return map[int]int{ids[0]: 1}, nil
		})))
		single := going(func() (err error) {
			defer func() { _ = recover() }()
			_, err = rows.Get(context.Background(), 1)
			return err
		})
		require.Panics(t, func() { _, _ = rows.GetMany(context.Background(), []int{1, 2}) })
		require.True(t, ended)
		require.NoError(t, <-single)
	})
}
