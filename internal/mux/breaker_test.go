package mux_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

func TestBreaker_OpensAfterFailuresInARow(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.roundTrip(t, failing(errConn))
		r.roundTrip(t, failing(errConn))
		r.roundTrip(t, served) // makes up for them
		r.roundTrip(t, failing(errConn))
		r.roundTrip(t, failing(errConn))
		require.Equal(t, 5, r.count(), "still closed")
		r.roundTrip(t, failing(errConn))
		r.requireOpen(t)
	})
}

func TestBreaker_OpensAfterTimeouts(t *testing.T) {
	cfg := touchy
	cfg.Timeout = timeout
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		for range cfg.Failures {
			r.get(r.ctx, "k").requireTimeout(t)
		}
		r.requireOpen(t)
	})
}

func TestBreaker_IgnoresALateAnswer(t *testing.T) {
	cfg := touchy
	cfg.Timeout = timeout
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		r.get(r.ctx, "k").requireTimeout(t)
		late := r.underWay()[0]
		r.roundTrip(t, failing(errConn))
		late.answer(served)
		r.roundTrip(t, failing(errConn))
		r.requireOpen(t)
	})
}

func TestBreaker_SendsOneProbeAtATime(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.openBreaker(t)
		time.Sleep(openFor + 1)
		probe := r.get(r.ctx, "probe")
		require.Equal(t, [][]string{{"get probe"}}, r.asked())
		r.requireOpen(t) // one probe at a time

		r.underWay()[0].answer(failing(errConn))
		probe.requireErr(t, errConn)
		r.requireOpen(t)

		time.Sleep(openFor + 1)
		probe = r.get(r.ctx, "probe")
		r.underWay()[0].answer(served)
		probe.requireValue(t, "probe")
		r.requireClosed(t)
	})
}

func TestBreaker_StaysOpenWhileAProbeHangs(t *testing.T) {
	cfg := touchy
	cfg.Timeout = timeout
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		r.openBreaker(t)
		time.Sleep(openFor + 1)
		r.get(r.ctx, "probe").requireTimeout(t)
		r.requireOpen(t)
		r.underWay()[0].answer(served)
		r.requireOpen(t)
	})
}

func TestBreaker_KeepsTheProbeOfACallerWhoLeaves(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.openBreaker(t)
		time.Sleep(openFor + 1)
		ctx, cancel := context.WithCancel(r.ctx)
		leaver := r.get(ctx, "probe")
		cancel()
		leaver.requireErr(t, context.Canceled)
		r.underWay()[0].answer(served)
		r.requireClosed(t)
	})
}

func TestBreaker_DoesNotCountCallersWhoLeave(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		for range 2 * touchy.Failures {
			ctx, cancel := context.WithCancel(r.ctx)
			c := r.get(ctx, "k")
			cancel()
			c.requireErr(t, context.Canceled)
			r.underWay()[0].answer(served)
		}
		r.requireClosed(t)
	})
}

func TestBreaker_DoesNotCountAPipelineThatIsAnsweredInPart(t *testing.T) {
	cfg := touchy
	cfg.Failures = 1
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
		there, lost := r.get(r.ctx, "there"), r.get(r.ctx, "lost")
		first.answer(served)
		r.underWay()[1].answer(func(cmd redis.Cmder) { // as of a cluster with one node down
			if served(cmd); cmd.Args()[1] == "lost" {
				cmd.SetErr(errConn)
			}
		})
		there.requireValue(t, "there")
		<-lost.done
		require.ErrorIs(t, lost.err, errConn)
		second.answer(served)
		r.requireClosed(t)
	})
}

func TestBreaker_LetsForceThroughWhileOpen(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.openBreaker(t)
		write := set("k", "1")
		c := r.force(write)
		require.Equal(t, [][]string{{"set k 1"}}, r.asked())
		r.underWay()[0].answer(served)
		c.requireErr(t, nil)
		require.Equal(t, "OK", write.Val())

		c = r.force(set("k", "2"))
		r.underWay()[0].answer(failing(errConn))
		c.requireErr(t, errConn)
		r.requireOpen(t)

		time.Sleep(openFor + 1)
		c = r.force(set("k", "3")) // is no probe: it may be a retry
		r.underWay()[0].answer(served)
		c.requireErr(t, nil)
		r.roundTrip(t, served) // is
		r.requireClosed(t)
	})
}

func TestBreaker_ForcedRoundTripsTakeNoSlot(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.openBreaker(t)
		for range 3 {
			r.force(set("k", "1"))
		}
		time.Sleep(openFor + 1)
		r.roundTrip(t, served) // the probe closes the breaker
		require.Len(t, r.underWay(), 3)
		r.requireBothSlotsFree(t)
	})
}

func TestBreaker_QueuesForceWhileClosed(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
		c, d := r.force(set("a", "1")), r.do(set("b", "2"))
		require.Len(t, r.underWay(), 2)
		first.answer(served)
		require.Equal(t, []string{"set a 1", "set b 2"}, r.asked()[1])
		r.underWay()[1].answer(served)
		c.requireErr(t, nil)
		d.requireErr(t, nil)
		second.answer(served)
	})
}

func TestBreaker_BoundsForcedRoundTrips(t *testing.T) {
	const bound = 32
	cfg := touchy
	cfg.Timeout = timeout
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		r.openBreaker(t)
		var stuck []*caller
		for range bound {
			stuck = append(stuck, r.force(set("k", "1")))
		}
		require.Len(t, r.underWay(), bound)
		r.force(set("k", "1")).requireErr(t, mux.ErrOpen)
		for _, c := range stuck {
			c.requireTimeout(t)
		}
		r.force(set("k", "1")).requireErr(t, mux.ErrOpen)

		// Nor is there room for the probe, once it is due. It must be left for the next.
		time.Sleep(openFor + 1)
		r.get(r.ctx, "probe").requireErr(t, mux.ErrOpen)
		require.Len(t, r.underWay(), bound)
		r.underWay()[0].answer(served) // too late to say anything of Redis
		probe := r.get(r.ctx, "probe")
		require.Len(t, r.underWay(), bound)
		r.underWay()[bound-1].answer(served)
		probe.requireValue(t, "probe")
	})
}

// Invalidations are forced, and retried until they succeed: what fails again and again is no news.
func TestBreaker_DoesNotCountWhatIsForced(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		for range 2 * touchy.Failures {
			c := r.force(set("k", "1"))
			r.underWay()[0].answer(failing(errConn))
			c.requireErr(t, errConn)
		}
		r.requireClosed(t)
	})
}
