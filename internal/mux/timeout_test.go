package mux_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

// requireTimeout waits for the caller, who must have been released after the timeout and, since it is only looked at
// now and then, little more.
func (c *caller) requireTimeout(t *testing.T) {
	t.Helper()
	c.requireErr(t, mux.ErrTimeout)
	require.GreaterOrEqual(t, c.took, timeout)
	require.LessOrEqual(t, c.took, timeout+timeout/10)
}

func TestNobodyWaitsLongerThanTheTimeout(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		began := time.Now()
		single, command := r.get(r.ctx, "a"), r.do(set("b", "1"))
		trips := r.underWay()
		queued, alike := r.get(r.ctx, "c"), r.get(r.ctx, "c")
		for _, trip := range trips {
			deadline, ok := trip.ctx.Deadline()
			require.True(t, ok, "a client that obeys deadlines is told")
			require.Equal(t, began.Add(timeout), deadline)
			require.NoError(t, trip.ctx.Err())
		}

		for _, c := range []*caller{single, command} {
			c.requireTimeout(t)
		}
		for _, trip := range trips {
			require.ErrorIs(t, trip.ctx.Err(), context.Canceled, "the client may stop trying")
		}
		for _, c := range []*caller{queued, alike} {
			<-c.done
			require.ErrorIs(t, c.err, mux.ErrTimeout)
			require.LessOrEqual(t, c.took, timeout+timeout/5)
		}
	})
}

func TestACallerWithoutADeadlineIsReleasedToo(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		r.get(context.Background(), "a").requireTimeout(t)
		c := r.get(context.Background(), "b")
		r.underWay()[1].answer(served)
		c.requireValue(t, "b")
	})
}

func TestTheTimeInTheQueueCounts(t *testing.T) {
	const room = 512
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fill(t)
		var callers []*caller
		for i := range 2*room + 10 {
			callers = append(callers, r.get(r.ctx, fmt.Sprint(i)))
		}
		time.Sleep(timeout / 2)
		first.answer(served)
		second.answer(served)
		for _, c := range callers { // on a pipeline or still in the queue
			c.requireTimeout(t)
			require.LessOrEqual(t, c.took, timeout+timeout/5)
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

func TestOneTimeoutReleasesAllOfAPipeline(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fill(t)
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

func TestAHungRoundTripGivesItsPlaceToThoseWhoQueue(t *testing.T) {
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

func TestACallerWhoLeftDoesNotHoldUpTheQueue(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fill(t)
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

func TestStuckRoundTripsAreBounded(t *testing.T) {
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

func TestALateAnswerReachesNobody(t *testing.T) {
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

// slowToBuild is a client whose pipelines can be held while they are made: before the Mux has put anything in.
type slowToBuild struct {
	redis.UniversalClient
	slow  atomic.Bool
	begun chan struct{}
	goOn  chan struct{}
}

func (c *slowToBuild) Pipeline() redis.Pipeliner {
	if c.slow.CompareAndSwap(true, false) {
		close(c.begun)
		<-c.goOn
	}
	return c.UniversalClient.Pipeline()
}

func TestACallIsNotUsedAgainWhileALatePipelineReadsIt(t *testing.T) {
	var client *slowToBuild
	wrap := func(c redis.UniversalClient) redis.UniversalClient {
		client = &slowToBuild{UniversalClient: c, begun: make(chan struct{}), goOn: make(chan struct{})}
		return client
	}
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		first, second := r.fill(t)
		early := []*caller{r.get(r.ctx, "early 1"), r.get(r.ctx, "early 2")}
		client.slow.Store(true)
		first.answer(served)
		<-client.begun
		for _, c := range early {
			c.requireTimeout(t)
		}
		second.answer(served)

		r.let(served)
		for i := range 10 {
			key := fmt.Sprint("later ", i)
			r.get(r.ctx, key).requireValue(t, key)
		}
		r.let(nil)
		close(client.goOn)
		require.Equal(t, [][]string{{"get early 1", "get early 2"}}, r.asked())
	}, wrap)
}

// A quarter of the round trips come too late, some callers leave, and calls are used again and again: each caller must
// get its own answer or none. It is the race detector that this test is for.
func TestCallersGetTheirOwnAnswersWhileOthersLeaveAndRoundTripsHang(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		r.let(func(cmd redis.Cmder) {
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
						got, err = r.Get(ctx, key)
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

func TestCloseWaitsForWhatIsUnderWayAndQueued(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, second := r.fill(t)
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

func TestCloseSaysHowManyRoundTripsHaveNotEnded(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		r.get(r.ctx, "stuck").requireTimeout(t)
		r.get(r.ctx, "under way")
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		err := r.Close(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "2 round trips have not ended")

		trips := r.underWay()
		slices.Reverse(trips)
		for _, trip := range trips {
			trip.answer(served)
		}
		require.NoError(t, r.Close(r.ctx))
	})
}
