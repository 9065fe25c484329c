package mux_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

func TestMux_ReleasesCallersAfterTheTimeout(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		single, command := r.get(r.ctx, "a"), r.do(set("b", "1"))
		sent := r.underWay()
		queued, alike := r.get(r.ctx, "c"), r.get(r.ctx, "c")
		for _, rt := range sent {
			_, limited := rt.ctx.Deadline()
			require.False(t, limited, "a client that is connecting is not cut short")
			require.NoError(t, rt.ctx.Err())
		}

		for _, c := range []*caller{single, command} {
			c.requireTimeout(t)
		}
		for _, rt := range sent {
			require.ErrorIs(t, rt.ctx.Err(), context.Canceled, "the client may stop trying")
		}
		for _, c := range []*caller{queued, alike} {
			<-c.done
			require.ErrorIs(t, c.err, mux.ErrTimeout)
			require.LessOrEqual(t, c.took, timeout+timeout/5)
		}
	})
}

func TestMux_ReleasesCallersWithoutADeadline(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		r.get(context.Background(), "a").requireTimeout(t)
		c := r.get(context.Background(), "b")
		r.underWay()[1].answer(served)
		c.requireValue(t, "b")
	})
}

// Who queues waits for as long as Redis answers others, and for the timeout after that.
func TestMux_CountsTheTimeInTheQueueSinceTheLastAnswer(t *testing.T) {
	const room = 512
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
		var callers []*caller
		for i := range 2*room + 10 {
			callers = append(callers, r.get(r.ctx, fmt.Sprint(i)))
		}
		time.Sleep(timeout / 2)
		first.answer(served)
		second.answer(served)
		for _, c := range callers { // on a pipeline or still in the queue
			c.requireErr(t, mux.ErrTimeout)
			require.GreaterOrEqual(t, c.took, timeout*3/2)
			require.LessOrEqual(t, c.took, timeout*3/2+timeout/5)
		}
		require.Len(t, r.underWay(), 2)
		late := r.underWay()[0]
		require.Len(t, late.cmds, room)
		late.answer(served)  // to nobody
		r.get(r.ctx, "next") // has the place of it
		next := r.underWay()[1]
		require.Len(t, next.cmds, 1)
		next.answer(served)
		r.underWay()[0].answer(served)
	})
}

func TestMux_ReleasesAllOfAPipelineAtOneTimeout(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
		var all []*caller
		for i := range 5 {
			all = append(all, r.get(r.ctx, fmt.Sprint(i)))
		}
		first.answer(served)
		require.Len(t, r.underWay()[1].cmds, 5)
		for _, c := range all {
			c.requireTimeout(t)
		}
		require.Equal(t, 3, r.count())
		second.answer(served)
	})
}

func TestMux_GivesTheSlotOfAHungRoundTripToTheQueue(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		hung := []*caller{r.get(r.ctx, "a"), r.get(r.ctx, "b")}
		time.Sleep(timeout / 2)
		queued := []*caller{r.get(r.ctx, "c"), r.get(r.ctx, "d")}
		for _, c := range hung {
			c.requireTimeout(t)
		}
		require.Equal(t, [][]string{{"get a"}, {"get b"}, {"get c", "get d"}}, r.asked())
		r.underWay()[2].answer(served)
		queued[0].requireValue(t, "c")
		queued[1].requireValue(t, "d")

		next := r.get(r.ctx, "e")
		require.Equal(t, []string{"get e"}, r.asked()[2], "the places are free")
		r.underWay()[2].answer(served)
		next.requireValue(t, "e")
	})
}

func TestMux_KeepsTheQueueGoingWhenACallerHasLeft(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
		ctx, cancel := context.WithCancel(r.ctx)
		leaver := r.get(ctx, "leaver")
		time.Sleep(timeout / 2)
		stayer := r.get(r.ctx, "stayer")
		cancel()
		leaver.requireErr(t, context.Canceled)
		time.Sleep(timeout / 4) // somebody looks who has waited for too long
		first.answer(served)
		require.Equal(t, []string{"get stayer"}, r.asked()[1])
		r.underWay()[1].answer(served)
		stayer.requireValue(t, "stayer")
		second.answer(served)
	})
}

func TestMux_BoundsStuckRoundTrips(t *testing.T) {
	const bound = 16
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		for range bound {
			r.get(r.ctx, "a").requireTimeout(t)
		}
		require.Equal(t, bound, r.count())
		for range 3 {
			c := r.get(r.ctx, "a")
			c.requireErr(t, mux.ErrTimeout)
			require.Zero(t, c.took, "refused at once")
		}
		require.Equal(t, bound, r.count(), "nothing more was sent")

		r.underWay()[0].answer(served)
		c := r.get(r.ctx, "b")
		require.Equal(t, bound+1, r.count(), "one has ended, and one can be sent")
		require.Len(t, r.underWay(), bound)
		r.underWay()[bound-1].answer(served)
		c.requireValue(t, "b")
	})
}

func TestMux_GivesALateAnswerToNobody(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		r.get(r.ctx, "a").requireTimeout(t)
		late := r.underWay()[0]
		next := r.get(r.ctx, "b")
		late.answer(served)
		require.False(t, next.returned())
		r.underWay()[0].answer(served)
		next.requireValue(t, "b")
	})
}

func TestMux_DoesNotReuseAWaiterThatALatePipelineReads(t *testing.T) {
	var client *slowToBuild
	wrap := func(c redis.UniversalClient) redis.UniversalClient {
		client = &slowToBuild{UniversalClient: c, begun: make(chan struct{}), goOn: make(chan struct{})}
		return client
	}
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
		early := []*caller{r.get(r.ctx, "early 1"), r.get(r.ctx, "early 2")}
		client.slow.Store(true)
		first.answer(served)
		<-client.begun
		for _, c := range early {
			c.requireTimeout(t)
		}
		second.answer(served)

		r.answerAtOnce(served)
		for i := range 10 {
			key := fmt.Sprint("later ", i)
			r.get(r.ctx, key).requireValue(t, key)
		}
		r.answerAtOnce(nil)
		close(client.goOn)
		require.Equal(t, [][]string{{"get early 1", "get early 2"}}, r.asked())
	}, wrap)
}

// A quarter of the round trips come too late, some callers leave, and waiters are used again and
// again: each caller must get its own answer or none. The race detector makes this test strict.
func TestMux_GivesCallersTheirOwnAnswersWhileOthersLeaveAndRoundTripsHang(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		r.answerAtOnce(func(cmd redis.Cmder) {
			if rand.IntN(50) == 0 {
				time.Sleep(timeout * 3 / 2)
			} else {
				time.Sleep(time.Millisecond)
			}
			served(cmd)
		})
		var wg sync.WaitGroup
		var answered, tooLate, left atomic.Int64
		for g := range 16 {
			wg.Go(func() {
				for i := range 100 {
					ctx, cancel := context.WithTimeout(r.ctx, timeout/2+time.Duration(rand.Int64N(int64(timeout))))
					key := fmt.Sprint(g%4, "-", i)
					read := get(key)
					var got []byte
					var err error
					if i%2 == 0 {
						got, err = r.Get(ctx, key, nil)
					} else if err = r.Do(ctx, read); err == nil {
						got, err = read.Bytes()
					}
					cancel()
					switch err {
					case nil:
						answered.Add(1)
						if want := valueOf(key); string(got) != want {
							t.Errorf("got %q, want %q", got, want)
						}
					case mux.ErrTimeout:
						tooLate.Add(1)
						time.Sleep(timeout / 10) // refused at once when too much is stuck
					case context.DeadlineExceeded:
						left.Add(1)
					default:
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		t.Log(answered.Load(), tooLate.Load(), left.Load())
		for _, n := range []*atomic.Int64{&answered, &tooLate, &left} {
			require.Positive(t, n.Load(), "the test has not tried everything")
		}
	})
}
