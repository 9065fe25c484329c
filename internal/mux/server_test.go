package mux_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMux_WaitsForAHungServerNoLongerThanTheTimeout(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(func(o *redis.Options) {
		o.ReadTimeout = -1 // the client itself would wait for ever
		o.MaxRetries, o.DialerRetries = -1, 1
	})
	const brief = 50 * time.Millisecond
	m := mux.New(client, mux.Config{Timeout: brief, Failures: 2, OpenFor: brief})
	require.Eventually(t, func() bool { return m.Do(t.Context(), set("k", "v")) == nil },
		soon, time.Millisecond)

	server.Pause()
	for range 2 {
		_, err := m.Get(t.Context(), "k", nil)
		require.ErrorIs(t, err, mux.ErrTimeout)
	}
	require.Eventually(t, func() bool {
		_, err := m.Get(t.Context(), "k", nil)
		return err == mux.ErrOpen
	}, soon, time.Millisecond)

	server.Resume()
	require.Eventually(t, func() bool {
		value, err := m.Get(t.Context(), "k", nil)
		return err == nil && string(value) == "v"
	}, soon, time.Millisecond)
	require.NoError(t, m.Close(t.Context()), "what was stuck has ended")
}

func TestMux_FindsARestartedServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(func(o *redis.Options) { o.MaxRetries, o.DialerRetries = -1, 1 })
	states := make(chan bool, 100)
	m := mux.New(client, mux.Config{
		Timeout: soon, Failures: 2, OpenFor: time.Millisecond,
		OnState: func(open bool) { states <- open },
	})
	defer func() { require.NoError(t, m.Close(t.Context())) }()
	_, err := m.Get(t.Context(), "k", nil)
	require.ErrorIs(t, err, redis.Nil)

	server.Kill()
	require.Eventually(t, func() bool {
		_, _ = m.Get(t.Context(), "k", nil)
		return len(states) == 1
	}, soon, time.Millisecond)
	require.True(t, <-states)

	server.Restart()
	require.Eventually(t, func() bool {
		_, err := m.Get(t.Context(), "k", nil)
		return err == redis.Nil
	}, soon, time.Millisecond)
	require.False(t, <-states)
}

func TestMux_SharesRoundTripsOfARealServer(t *testing.T) {
	t.Parallel()
	const callers, rounds, keys = 64, 50, 10
	server := redistest.Start(t)
	m := mux.New(server.Client(), patient)
	defer func() { require.NoError(t, m.Close(t.Context())) }()
	for i := range keys {
		require.NoError(t, m.Do(t.Context(), set(fmt.Sprint("key", i), fmt.Sprint("value", i))))
	}

	server.ResetStats()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range rounds {
				n := (c + i) % keys
				value, err := m.Get(t.Context(), fmt.Sprint("key", n), nil)
				if err != nil || string(value) != fmt.Sprint("value", n) {
					t.Errorf("got %q, %v for key %d", value, err, n)
				}
			}
		})
	}
	wg.Wait()
	asked := server.CommandStats()["get"]
	require.Positive(t, asked)
	require.Less(t, asked, int64(callers*rounds), "nobody has shared a GET")
}
