package mux_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever listens may take his time, or ask the Mux something: a round trip must not be handed to the worker that is
// telling him.
func TestAListenerWhoTakesHisTimeHoldsUpNobody(t *testing.T) {
	goOn := make(chan struct{})
	cfg := touchy
	cfg.OnState = func(open bool) { <-goOn }
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		goOn = make(chan struct{}) // of the bubble
		defer close(goOn)
		for range touchy.Failures {
			r.meet(t, failing(errConn))
		}
		c := r.force(set("k", "1"))
		require.Equal(t, [][]string{{"set k 1"}}, r.asked())
		r.underWay()[0].answer(served)
		c.requireErr(t, nil)
	})
}

func TestCloseCountsForcedRoundTrips(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.trip(t)
		r.force(set("k", "1"))
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		require.ErrorContains(t, r.Close(ctx), "1 round trips have not ended")
	})
}
