package mux_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

func TestMux_SendsAtOnceWhenASlotIsFree(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		c := r.get(r.ctx, "a")
		require.Equal(t, [][]string{{"get a"}}, r.asked())
		r.underWay()[0].answer(served)
		c.requireValue(t, "a")

		cmd := set("a", "1")
		c = r.do(cmd)
		require.Equal(t, [][]string{{"set a 1"}}, r.asked())
		r.underWay()[0].answer(served)
		c.requireErr(t, nil)
		require.Equal(t, "OK", cmd.Val())
	})
}

func TestMux_DoesNotSendForACancelledContext(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		r.get(ctx, "a").requireErr(t, context.Canceled)
		require.ErrorIs(t, r.Do(ctx, set("a", "1")), context.Canceled)
		require.ErrorIs(t, r.Force(ctx, set("a", "1")), context.Canceled)
		require.Zero(t, r.count())
	})
}

func TestMux_LeavingTheQueueReturnsAtOnceAndHarmsNobody(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fillSlots(t)
		ctx, cancel := context.WithCancel(r.ctx)
		leaver, sharer := r.get(ctx, "leaver"), r.get(ctx, "shared")
		stayer, other := r.get(r.ctx, "stayer"), r.get(r.ctx, "shared")
		cancel()
		leaver.requireErr(t, context.Canceled)
		sharer.requireErr(t, context.Canceled)
		require.False(t, stayer.returned())

		first.answer(served)
		require.Equal(t, [][]string{{"get second"}, {"get stayer", "get shared"}}, r.asked(),
			"nothing is asked for the leaver")
		r.underWay()[1].answer(served)
		stayer.requireValue(t, "stayer")
		other.requireValue(t, "shared")
	})
}

func TestMux_LeavingAPipelineReturnsAtOnceAndHarmsNobody(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fillSlots(t)
		ctx, cancel := context.WithCancel(r.ctx)
		leaver, stayer := r.get(ctx, "k"), r.get(r.ctx, "k")
		write := set("k", "1")
		writer := r.do(write)
		first.answer(served)
		rt := r.underWay()[1]
		cancel()
		leaver.requireErr(t, context.Canceled)
		require.NoError(t, rt.ctx.Err(), "the round trip goes on for the others")
		require.False(t, stayer.returned())

		rt.answer(served)
		stayer.requireValue(t, "k")
		writer.requireErr(t, nil)
		require.Equal(t, "OK", write.Val())
	})
}

func TestMux_SendsNothingForAQueueThatEverybodyHasLeft(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fillSlots(t)
		ctx, cancel := context.WithCancel(r.ctx)
		leaver := r.get(ctx, "leaver")
		cancel()
		leaver.requireErr(t, context.Canceled)
		first.answer(served)
		require.Equal(t, [][]string{{"get second"}}, r.asked())

		c := r.get(r.ctx, "a") // the place is free again
		require.Equal(t, [][]string{{"get second"}, {"get a"}}, r.asked())
		r.underWay()[1].answer(served)
		c.requireValue(t, "a")
	})
}

func TestMux_CloseWaitsForWhatIsUnderWayAndQueued(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
		queued := r.get(r.ctx, "queued")
		closing := start(func(c *caller) { c.err = r.Close(r.ctx) })
		require.False(t, closing.returned())

		require.ErrorIs(t, r.Do(r.ctx, get("a")), mux.ErrClosed)
		require.ErrorIs(t, r.Force(r.ctx, get("a")), mux.ErrClosed)
		r.get(r.ctx, "a").requireErr(t, mux.ErrClosed)

		first.answer(served)
		second.answer(served)
		require.False(t, closing.returned())
		require.Equal(t, [][]string{{"get queued"}}, r.asked())
		r.underWay()[0].answer(served)
		queued.requireValue(t, "queued")
		closing.requireErr(t, nil)
		require.NoError(t, r.Close(r.ctx), "closing twice does no harm")
	})
}

func TestMux_CloseSaysHowManyRoundTripsHaveNotEnded(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		r.get(r.ctx, "stuck").requireTimeout(t)
		r.get(r.ctx, "under way")
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		err := r.Close(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "2 round trips have not ended")

		sent := r.underWay()
		slices.Reverse(sent)
		for _, rt := range sent {
			rt.answer(served)
		}
		require.NoError(t, r.Close(r.ctx))
	})
}

func TestMux_CloseCountsForcedRoundTrips(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.openBreaker(t)
		r.force(set("k", "1"))
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		require.ErrorContains(t, r.Close(ctx), "1 round trips have not ended")
	})
}
