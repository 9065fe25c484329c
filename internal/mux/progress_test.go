package mux_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

// large returns the answer with a value of n KiB.
func large(n int) answer {
	return func(cmd redis.Cmder) {
		cmd.(interface{ SetVal(string) }).SetVal(strings.Repeat("x", n<<10))
		cmd.SetErr(nil)
	}
}

// getMany starts a GetMany of keys 0, 1, 2, ...
func (r *rig) getMany(size *mux.ReplySize, n int) *caller {
	gets := make([]redis.Cmder, n)
	for i := range gets {
		gets[i] = get(fmt.Sprint(i))
	}
	return start(func(c *caller) { c.err = r.GetMany(r.ctx, size, gets) })
}

// commandsUnderWay returns how many commands each round trip has that is held.
func (r *rig) commandsUnderWay() []int {
	var n []int
	for _, rt := range r.underWay() {
		n = append(n, len(rt.cmds))
	}
	return n
}

func TestMux_GivesNothingUpWhileLargeRepliesArrive(t *testing.T) {
	cfg := hasty
	cfg.Failures = 1
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		var size mux.ReplySize // of small values, so far
		c := r.getMany(&size, 100)
		r.underWay()[0].answer(served)
		c.requireErr(t, nil)

		callers := []*caller{r.getMany(&size, 100), r.getMany(nil, 100)}
		sent := r.underWay()
		callers = append(callers, r.getMany(nil, 100)) // queues
		for i := range 100 {
			time.Sleep(timeout * 9 / 10)
			large(20)(sent[0].cmds[i]) // go-redis reads one reply after the other
			large(20)(sent[1].cmds[i])
		}
		for _, c := range callers {
			require.False(t, c.returned())
		}
		require.Equal(t, 3, r.count())
		sent[0].answer(func(redis.Cmder) {})
		sent[1].answer(func(redis.Cmder) {})
		r.underWay()[0].answer(served)
		for _, c := range callers {
			c.requireErr(t, nil)
		}
		r.requireBothSlotsFree(t)
	})
}

func TestMux_GivesUpWhenLargeRepliesCease(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		c := r.getMany(nil, 100)
		sent := r.underWay()[0]
		time.Sleep(timeout * 9 / 10)
		large(20)(sent.cmds[0])
		c.requireErr(t, mux.ErrTimeout)
		require.InDelta(t, timeout*19/10, c.took, float64(timeout/10))
	})
}

func TestMux_SendsGetManyInPartsByTheSizeOfTheValues(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		var size mux.ReplySize
		c := r.getMany(&size, 1200)
		require.Equal(t, []int{400, 400}, r.commandsUnderWay(), "nothing is known: equal parts, two at a time")
		for range 3 {
			r.underWay()[0].answer(large(20))
		}
		c.requireErr(t, nil)

		c = r.getMany(&size, 120)
		require.Equal(t, []int{51, 51}, r.commandsUnderWay(), "a megabyte each")
		for range 3 {
			r.underWay()[0].answer(large(20))
		}
		c.requireErr(t, nil)
	})
}

func TestMux_SendsTheRestOfGetManyToNobodyWhoDoesNotAnswer(t *testing.T) {
	inBubble(t, hasty, func(t *testing.T, r *rig) {
		c := r.getMany(nil, 5000)
		served500 := r.underWay()[0]
		from, err := strconv.Atoi(served500.cmds[0].Args()[1].(string)) // one of the first two parts
		require.NoError(t, err)
		served500.answer(served)
		c.requireErr(t, mux.ErrTimeout)
		require.Equal(t, 3, r.count())
		for i := range 5000 {
			require.Equal(t, i < from || i >= from+500, mux.ErrorOf(c.err, i) != nil, i)
		}
	})
}

// Once a value is known to be large, its callers leave the lane of the others.
func TestMux_LargeValuesDoNotHoldUpSmallOnes(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		var size mux.ReplySize
		getLarge := func(key string) *caller {
			return start(func(c *caller) { _, c.err = r.Get(r.ctx, key, &size) })
		}
		callers := []*caller{getLarge("first"), getLarge("second")}
		for i := range 10 {
			callers = append(callers, getLarge(fmt.Sprint(i)), getLarge("same"))
		}
		r.underWay()[0].answer(large(250))
		require.ElementsMatch(t, [][]string{{"get second"}, {"get 0", "get same", "get 1", "get 2"}, {"get 3", "get same", "get 4", "get 5"}},
			r.asked(), "a megabyte each: equal keys have one reply")
		small := r.get(r.ctx, "small")
		require.Equal(t, []string{"get small"}, r.asked()[len(r.asked())-1])
		for len(r.underWay()) > 0 {
			r.underWay()[0].answer(large(250))
		}
		for _, c := range callers {
			c.requireErr(t, nil)
		}
		<-small.done
	})
}

func TestMux_TakesALateLargeReplyForNoFailure(t *testing.T) {
	cfg := hasty
	cfg.Failures = 2
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		for range 5 {
			r.get(r.ctx, "k").requireTimeout(t)
			r.underWay()[0].answer(large(100))
		}
		r.requireBothSlotsFree(t)
	})
}

// A process that had no CPU could not have taken an answer.
func TestMux_ExcusesTheTimeThatTheProcessWasStopped(t *testing.T) {
	t.Parallel()
	w := &wire{}
	client := w.client()
	m := mux.New(client, hasty)
	got := make(chan error, 1)
	go func() { // ends with the answer, or with the timeout
		_, err := m.Get(context.Background(), "k", nil)
		got <- err
	}()
	var sent []*roundTrip
	require.Eventually(t, func() bool { sent = append(sent, w.takeHeld()...); return len(sent) == 1 }, soon, time.Millisecond)
	m.StopSweeping(5 * timeout)
	time.Sleep(timeout / 4) // a few sweeps come
	sent[0].end <- served
	require.NoError(t, <-got)
	require.NoError(t, m.Close(t.Context()))
	require.NoError(t, client.Close())
}
