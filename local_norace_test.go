//go:build !race

package readthrough_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestLocal_HitAllocatesNothing(t *testing.T) {
	f := newLocalFleet(t, 1, readthrough.WithLocalLease(20*time.Second))
	rt := wrapper(t, f.caches[0], constant("value"))
	shared, err := readthrough.New(f.caches[0], "shared", constant(&user{Name: "ann"}), readthrough.Int, readthrough.WithSharedValues())
	require.NoError(t, err)
	requireLocal(t, rt, 1, "value")
	requireLocal(t, shared, 1, &user{Name: "ann"})
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = rt.Get(ctx, 1) }))
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = shared.Get(ctx, 1) }))
}
