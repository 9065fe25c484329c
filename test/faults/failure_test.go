package faults

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// TestGet_QueuesNobodyBehindLoadsThatBringNothing has a fleet ask for a key whose load takes its
// time and brings nothing that the others could use. They wait for one such load, and then each
// process loads for itself, all at the same time.
func TestGet_QueuesNobodyBehindLoadsThatBringNothing(t *testing.T) {
	t.Parallel()
	const processes, loadTime = 6, 500 * time.Millisecond
	errDown := errors.New("database down")
	for name, row := range map[string]struct {
		load func() (string, error)
		opts []readthrough.Option
		err  error
		user []string // what is different about the user's rules
	}{
		"error":           {load: func() (string, error) { return "", errDown }, err: errDown},
		"too large":       {load: func() (string, error) { return "loaded", nil }, opts: []readthrough.Option{readthrough.WithMaxEntryBytes(1)}},
		"not to be kept":  {load: func() (string, error) { return "loaded", nil }, opts: []readthrough.Option{readthrough.WithTTLFor(func(string) time.Duration { return 0 })}},
		"too late":        {load: func() (string, error) { return "loaded", nil }, opts: []readthrough.Option{readthrough.WithLoadTimeout(loadTime / 2)}, err: context.DeadlineExceeded},
		"error, in batch": {load: func() (string, error) { return "", errDown }, err: errDown},
		"error, without scripts": {
			load: func() (string, error) { return "", errDown }, err: errDown, user: []string{"-@scripting"},
		},
		"error, without leases": {
			load: func() (string, error) { return "", errDown }, err: errDown, user: []string{"-@scripting", "-@transaction"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := as(t, redistest.Start(t), append([]string{"~*", "+@all"}, row.user...)...)
			var loads atomic.Int64
			load := func(context.Context) (string, error) {
				loads.Add(1)
				time.Sleep(loadTime) // a database that answers late is what this is about
				return row.load()
			}
			opts := append([]readthrough.Option{readthrough.WithLeaseWait(soon)}, row.opts...)
			if name == "error, in batch" {
				opts = append(opts, readthrough.WithBatchLoader(func(ctx context.Context, ids []int) (map[int]string, error) {
					v, err := load(ctx)
					return map[int]string{1: v}, err
				}))
			}
			began := time.Now()
			ended := make(chan error, processes)
			for _, cache := range fleet(t, processes, client) {
				rows := wrapper(t, cache, func(ctx context.Context, _ int) (string, error) { return load(ctx) }, opts...)
				go func() { // ends with its call
					results, err := rows.GetMany(context.Background(), []int{1})
					ended <- errors.Join(err, results[0].Err)
				}()
			}
			for range processes {
				require.ErrorIs(t, receive(t, ended), row.err)
			}
			require.Less(t, time.Since(began), (processes-2)*loadTime, "one after the other they take more")
			require.EqualValues(t, processes, loads.Load(), "each process has asked its database once")
		})
	}
}

// TestGet_StoresLoadRightAfterOneThatFailed holds that what is told to those who wait is no news to
// newcomers: the next load has the lease.
func TestGet_StoresLoadRightAfterOneThatFailed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	caches := fleet(t, 2, func() redis.UniversalClient { return server.Client() })
	down := true
	load := func(context.Context, int) (string, error) {
		time.Sleep(50 * time.Millisecond) // long enough for somebody to be told
		if down {
			return "", errors.New("database down")
		}
		return "loaded", nil
	}
	a, b := wrapper(t, caches[0], load), wrapper(t, caches[1], load)
	_, err := a.Get(t.Context(), 1)
	require.ErrorContains(t, err, "database down")
	down = false
	v, err := b.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "loaded", v)
	require.EqualValues(t, 1, b.Stats().Fills)
	v, err = a.Peek(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "loaded", v)
}

// TestGet_TakesOverLoadThatItsCallersHaveLeft holds that such a load has not failed: those who wait
// for it share the next one.
func TestGet_TakesOverLoadThatItsCallersHaveLeft(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	caches := fleet(t, 4, func() redis.UniversalClient { return server.Client() })
	var loads atomic.Int64
	loading := make(chan bool, 1)
	left := wrapper(t, caches[0], func(ctx context.Context, _ int) (string, error) {
		loading <- true
		<-ctx.Done()
		return "", ctx.Err()
	})
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { // ends with its Get
		_, err := left.Get(ctx, 1)
		gone <- err
	}()
	receive(t, loading)
	got := make(chan string, 3)
	for _, cache := range caches[1:] {
		rows := wrapper(t, cache, func(context.Context, int) (string, error) {
			loads.Add(1)
			time.Sleep(200 * time.Millisecond) // longer than the others pause
			return "loaded", nil
		})
		go func() { // ends with its Get
			v, _ := rows.Get(context.Background(), 1)
			got <- v
		}()
		require.Eventually(t, func() bool { return rows.Stats().Misses == 1 }, soon, time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // they wait, and the load has taken its time
	leave()
	require.ErrorIs(t, receive(t, gone), context.Canceled)
	for range 3 {
		require.Equal(t, "loaded", receive(t, got))
	}
	require.EqualValues(t, 1, loads.Load())
}
