package readthroughtest_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

// TestNew_RunsCopiesInProcess holds that code which uses WithLocal can be tested as it is.
func TestNew_RunsCopiesInProcess(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t, readthrough.WithLocal(1<<20), readthrough.WithLocalLease(500*time.Millisecond), readthrough.WithTTL(time.Minute))
	var version atomic.Int64
	rows := readthrough.Must(readthrough.New(fake.Cache, "row", func(context.Context, int) (int64, error) { return version.Load(), nil }, readthrough.Int))
	local := func(want int64) {
		t.Helper()
		require.Eventually(t, func() bool {
			v, info, err := rows.GetInfo(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, want, v)
			return info.Source == readthrough.SourceLocal
		}, 10*time.Second, time.Millisecond)
	}
	local(0)
	version.Store(1)
	require.NoError(t, rows.Invalidate(t.Context(), 1))
	local(1)
	version.Store(2)
	fake.FastForward(2 * time.Minute)
	local(2)
}
