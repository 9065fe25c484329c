package mux_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

// endless is a context that cannot end.
var endless = context.Background()

// panicking is the answer of a hook that panics, which only a caller who sends in person survives.
func panicking(redis.Cmder) { panic("hook") }

// getInPerson starts a Get that reports as its error what it panics with.
func (r *rig) getInPerson(key string) *caller {
	return start(func(c *caller) {
		defer func() {
			if cause := recover(); cause != nil {
				c.err = errPanic
			}
		}()
		value, err := r.Get(endless, key, nil)
		c.value, c.err = string(value), err
	})
}

var errPanic = errors.New("panic")

func TestMux_SendsInPersonOnAClientThatObeysDeadlines(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		r.roundTrip(t, served) // there is a connection
		c := r.getInPerson("a")
		require.Equal(t, [][]string{{"get a"}}, r.asked())
		r.underWay()[0].answer(served)
		c.requireValue(t, "a")

		c = r.getInPerson("b")
		r.underWay()[0].answer(panicking)
		c.requireErr(t, errPanic) // on the caller's goroutine: no worker recovers
	}, obeysDeadline)
}

func TestMux_LeavesTheQueueToTheWorkerOfACallerInPerson(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		r.roundTrip(t, served)
		first, second := r.getInPerson("first"), r.getInPerson("second")
		a, b := r.getInPerson("a"), r.get(r.ctx, "b")
		require.Equal(t, [][]string{{"get first"}, {"get second"}}, r.asked())

		r.underWay()[0].answer(served)
		first.requireValue(t, "first")
		require.Equal(t, [][]string{{"get second"}, {"get a", "get b"}}, r.asked())
		for _, rt := range r.underWay() {
			rt.answer(served)
		}
		second.requireValue(t, "second")
		a.requireValue(t, "a")
		b.requireValue(t, "b")
		r.requireBothSlotsFree(t)
	}, obeysDeadline)
}

func TestMux_FreesTheSlotOfACallerInPersonWhoPanics(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		for range 2 * mux.MaxPipelines {
			r.roundTrip(t, served)
			c := r.getInPerson("k")
			r.underWay()[0].answer(panicking)
			c.requireErr(t, errPanic)
		}
		r.requireBothSlotsFree(t)
	}, obeysDeadline)
}

func TestMux_TellsACallerInPersonToGiveUpAfterTheTimeout(t *testing.T) {
	for name, row := range map[string]struct {
		late answer
		want error
	}{
		"the client returns": {failing(context.DeadlineExceeded), mux.ErrTimeout},
		"a hook panics":      {panicking, errPanic},
	} {
		t.Run(name, func(t *testing.T) {
			const bound = 16 // of stuck round trips
			inBubble(t, hasty, func(t *testing.T, r *rig) {
				for range bound + 1 {
					r.roundTrip(t, served)
					c := r.getInPerson("k")
					hung := r.underWay()[0]
					<-hung.ctx.Done()
					r.requireBothSlotsFree(t)
					require.False(t, c.returned(), "the client still has the goroutine")

					hung.answer(row.late) // after which it counts as stuck no longer
					c.requireErr(t, row.want)
				}
			}, obeysDeadline)
		})
	}
}

// Connecting takes several round trips, and must not end with the deadline of a caller.
func TestMux_DoesNotSendInPersonBeforeTheFirstAnswer(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		r.getInPerson("a")
		_, limited := r.underWay()[0].ctx.Deadline()
		require.False(t, limited)
		r.underWay()[0].answer(served)

		r.getInPerson("b")
		_, limited = r.underWay()[0].ctx.Deadline()
		require.True(t, limited)
		r.underWay()[0].answer(served)
	}, obeysDeadline)
}

func TestMux_SendsInPersonUntilTheDeadlineOfTheCaller(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.roundTrip(t, served)
		for range 2 * touchy.Failures { // of which the breaker is told none
			ctx, cancel := context.WithTimeout(t.Context(), touchy.Timeout)
			defer cancel()
			c := r.get(ctx, "a")
			own, _ := ctx.Deadline()
			limit, limited := r.underWay()[0].ctx.Deadline()
			require.True(t, limited)
			require.Equal(t, own, limit)
			time.Sleep(time.Until(limit))
			r.underWay()[0].answer(failing(errors.New("i/o timeout")))
			c.requireErr(t, context.DeadlineExceeded)
			require.Equal(t, own, time.Now())
		}
		c := r.get(t.Context(), "b")
		require.Equal(t, [][]string{{"get b"}}, r.asked())
		r.underWay()[0].answer(served)
		c.requireValue(t, "b")
	}, obeysDeadline)
}

// A caller in a hurry leaves a connection that is being made for it to those who come later.
func TestMux_DoesNotSendInPersonForACallerInAHurry(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		r.roundTrip(t, served)
		ctx, cancel := context.WithTimeout(t.Context(), patient.Timeout-1)
		defer cancel()
		c := r.get(ctx, "a")
		_, limited := r.underWay()[0].ctx.Deadline()
		require.False(t, limited)
		<-ctx.Done()
		c.requireErr(t, context.DeadlineExceeded)
		require.NoError(t, r.underWay()[0].ctx.Err())
		r.underWay()[0].answer(served)
	}, obeysDeadline)
}

func TestMux_FailsBeforeTheDeadlineOfTheCallerForReasonsOfRedis(t *testing.T) {
	inBubble(t, touchy, func(t *testing.T, r *rig) {
		r.roundTrip(t, served)
		ctx, cancel := context.WithTimeout(t.Context(), touchy.Timeout)
		defer cancel()
		for range touchy.Failures {
			r.get(ctx, "a")
			r.underWay()[0].answer(failing(errConn))
		}
		r.get(ctx, "a").requireErr(t, mux.ErrOpen)
	}, obeysDeadline)
}

// A caller who is called away meanwhile has to wait: nothing interrupts the client.
func TestMux_TellsACallerInPersonOfItsCancellationAfterwards(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		for name, row := range map[string]struct {
			answer answer
			want   error
		}{"failed": {failing(errConn), context.Canceled}, "answered": {served, nil}} {
			r.roundTrip(t, served)
			ctx, cancel := context.WithCancel(t.Context())
			c := r.get(ctx, "a")
			cancel()
			synctest.Wait()
			require.False(t, c.returned(), name)
			r.underWay()[0].answer(row.answer)
			synctest.Wait()
			require.ErrorIs(t, c.err, row.want, name)
		}
	}, obeysDeadline)
}
