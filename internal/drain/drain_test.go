package drain_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/drain"
)

func TestGroup_WaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := drain.New()
		require.NoError(t, g.Wait(t.Context()))
		call := g.Begin()
		g.Go(func() { time.Sleep(time.Second) })
		g.Go(func() { time.Sleep(2 * time.Second); runtime.Goexit() })
		time.AfterFunc(3*time.Second, call.End)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.Wait(ctx), context.DeadlineExceeded)
		require.NoError(t, g.Wait(t.Context()))
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

// TestGroup_IsNotIdleWhileOneHandsOverToTheNext has something under way all the time, never the same
// for long: a sum that is not read at one moment must not miss it.
func TestGroup_IsNotIdleWhileOneHandsOverToTheNext(t *testing.T) {
	t.Parallel()
	g := drain.New()
	var over atomic.Bool
	var next func(n int)
	next = func(n int) {
		if n == 0 {
			over.Store(true)
			return
		}
		g.Go(func() { next(n - 1) })
	}
	for range 4 {
		over.Store(false)
		g.Go(func() { next(20_000) })
		require.NoError(t, g.Wait(t.Context()))
		require.True(t, over.Load())
	}
}

func BenchmarkGroup(b *testing.B) {
	g := drain.New()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.Begin().End()
		}
	})
}
