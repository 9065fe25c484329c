package mux_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestACallerWhoFindsAPipelineFreeIsSentAtOnce(t *testing.T) {
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

func TestCallersWhoQueueLeaveTogether(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, second := r.fill(t)
		a, write, read, b := r.get(r.ctx, "a"), set("x", "1"), get("x"), r.get(r.ctx, "b")
		both := r.do(write, read)
		require.Equal(t, [][]string{{"get first"}, {"get second"}}, r.asked(), "two under way and no more")

		first.answer(served)
		require.Equal(t, [][]string{{"get second"}, {"get a", "get b", "set x 1", "get x"}}, r.asked())
		r.underWay()[1].answer(served)
		a.requireValue(t, "a")
		b.requireValue(t, "b")
		both.requireErr(t, nil)
		require.Equal(t, "OK", write.Val())
		require.Equal(t, valueOf("x"), read.Val())

		second.answer(served)
		require.Equal(t, 3, r.count())
	})
}

func TestIdenticalKeysInOnePipelineAreAskedOnce(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fill(t)
		var same []*caller
		for range 10 {
			same = append(same, r.get(r.ctx, "same"))
		}
		other := r.get(r.ctx, "other")

		first.answer(served)
		require.Equal(t, [][]string{{"get second"}, {"get same", "get other"}}, r.asked())
		r.underWay()[1].answer(served)
		for _, c := range same {
			c.requireValue(t, "same")
		}
		other.requireValue(t, "other")
	})
}

func TestAGetIsNotSharedWithThoseWhoComeAfterItWasSent(t *testing.T) {
	says := func(value string) answer {
		return func(cmd redis.Cmder) { cmd.(*redis.StringCmd).SetVal(value) }
	}
	inBubble(t, patient, func(t *testing.T, r *rig) {
		early := r.get(r.ctx, "k")
		sent := r.underWay()[0]
		late := r.get(r.ctx, "k")
		later := r.get(r.ctx, "k") // has to queue
		require.Equal(t, [][]string{{"get k"}, {"get k"}}, r.asked())

		r.underWay()[1].answer(says("new"))
		sent.answer(says("old"))
		require.Equal(t, [][]string{{"get k"}}, r.asked())
		r.underWay()[0].answer(says("newer"))
		for want, c := range map[string]*caller{"old": early, "new": late, "newer": later} {
			<-c.done
			require.NoError(t, c.err)
			require.Equal(t, want, c.value)
		}
	})
}

func TestOnePipelineIsBounded(t *testing.T) {
	wide := func(from, n int) []redis.Cmder {
		cmds := make([]redis.Cmder, n)
		for i := range cmds {
			cmds[i] = get(fmt.Sprint("key", from+i))
		}
		return cmds
	}
	repeat := func(n int, call func(i int) []redis.Cmder) (calls [][]redis.Cmder) {
		for i := range n {
			calls = append(calls, call(i))
		}
		return calls
	}
	kib := func(n int) string { return strings.Repeat("x", n<<10) }

	for name, row := range map[string]struct {
		calls [][]redis.Cmder
		want  []int // commands in each pipeline
	}{
		"512 commands": {repeat(1200, func(i int) []redis.Cmder { return wide(i, 1) }), []int{512, 512, 176}},
		"512 commands, and the commands of a call stay together": {
			[][]redis.Cmder{wide(0, 300), wide(300, 212), wide(512, 300), wide(812, 300)}, []int{512, 300, 300},
		},
		"a call that is longer goes alone": {[][]redis.Cmder{wide(0, 1), wide(1, 600), wide(601, 1)}, []int{1, 600, 1}},
		"a megabyte of strings":            {repeat(3, func(int) []redis.Cmder { return []redis.Cmder{set("k", kib(500))} }), []int{2, 1}},
		"a megabyte of bytes":              {repeat(3, func(int) []redis.Cmder { return []redis.Cmder{set("k", []byte(kib(500)))} }), []int{2, 1}},
		"a call that is larger goes alone": {repeat(2, func(int) []redis.Cmder { return []redis.Cmder{set("k", kib(2000))} }), []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, patient, func(t *testing.T, r *rig) {
				first, _ := r.fill(t)
				var callers []*caller
				for _, cmds := range row.calls {
					callers = append(callers, r.do(cmds...))
				}
				first.answer(served)

				var sizes []int
				for len(r.underWay()) == 2 { // the second is still held
					next := r.underWay()[1]
					sizes = append(sizes, len(next.cmds))
					next.answer(served)
				}
				require.Equal(t, row.want, sizes)
				for _, c := range callers {
					c.requireErr(t, nil)
				}
			})
		})
	}
}

func TestLongKeysOfGetsCountForTheBound(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fill(t)
		for _, key := range []string{"a", "b", "c"} {
			r.get(r.ctx, strings.Repeat(key, 500<<10))
		}
		first.answer(served)
		require.Len(t, r.underWay()[1].cmds, 2)
	})
}

func TestEachCallerGetsTheErrorOfItsOwnCommand(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fill(t)
		missing, lost, there := r.get(r.ctx, "missing"), r.get(r.ctx, "lost"), r.get(r.ctx, "there")
		wrong, right := set("wrong", "1"), set("right", "2")
		pair := r.do(wrong, right)
		whole, cut := set("whole", "1"), set("cut", "1")
		torn := r.do(whole, cut)
		none := r.do(set("lost", "1"), set("cut", "1"))
		first.answer(served)

		wrongType := reply("WRONGTYPE Operation against a key holding the wrong kind of value")
		r.underWay()[1].answer(func(cmd redis.Cmder) {
			switch cmd.Args()[1] {
			case "missing":
				cmd.SetErr(redis.Nil)
			case "lost", "cut":
				cmd.SetErr(errConn)
			case "wrong":
				cmd.SetErr(wrongType)
			default:
				served(cmd)
			}
		})
		missing.requireErr(t, redis.Nil)
		lost.requireErr(t, errConn)
		there.requireValue(t, "there")
		pair.requireErr(t, nil)
		require.Equal(t, wrongType, wrong.Err())
		require.NoError(t, right.Err())
		torn.requireErr(t, nil)
		require.NoError(t, whole.Err())
		require.ErrorIs(t, cut.Err(), errConn)
		none.requireErr(t, errConn)
	})
}

// reply is an error that Redis has answered with.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestACancelledCallerIsNotSent(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		r.get(ctx, "a").requireErr(t, context.Canceled)
		require.ErrorIs(t, r.Do(ctx, set("a", "1")), context.Canceled)
		require.ErrorIs(t, r.Force(ctx, set("a", "1")), context.Canceled)
		require.Zero(t, r.count())
	})
}

func TestACallerWhoLeavesTheQueueReturnsAtOnceAndHarmsNobody(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fill(t)
		ctx, cancel := context.WithCancel(r.ctx)
		leaver, sharer := r.get(ctx, "leaver"), r.get(ctx, "shared")
		stayer, other := r.get(r.ctx, "stayer"), r.get(r.ctx, "shared")
		cancel()
		leaver.requireErr(t, context.Canceled)
		sharer.requireErr(t, context.Canceled)
		require.False(t, stayer.returned())

		first.answer(served)
		require.Equal(t, [][]string{{"get second"}, {"get stayer", "get shared"}}, r.asked(), "nothing is asked for the leaver")
		r.underWay()[1].answer(served)
		stayer.requireValue(t, "stayer")
		other.requireValue(t, "shared")
	})
}

func TestACallerWhoLeavesAPipelineReturnsAtOnceAndHarmsNobody(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fill(t)
		ctx, cancel := context.WithCancel(r.ctx)
		leaver, stayer := r.get(ctx, "k"), r.get(r.ctx, "k")
		write := set("k", "1")
		writer := r.do(write)
		first.answer(served)
		trip := r.underWay()[1]
		cancel()
		leaver.requireErr(t, context.Canceled)
		require.NoError(t, trip.ctx.Err(), "the round trip goes on for the others")
		require.False(t, stayer.returned())

		trip.answer(served)
		stayer.requireValue(t, "k")
		writer.requireErr(t, nil)
		require.Equal(t, "OK", write.Val())
	})
}

func TestAQueueThatEverybodyHasLeftSendsNothing(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fill(t)
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

type traceKey struct{}

func TestHooksSeeTheValuesOfTheCallersContext(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		r.get(context.WithValue(r.ctx, traceKey{}, "single"), "a")
		require.Equal(t, "single", r.underWay()[0].ctx.Value(traceKey{}))

		r.get(r.ctx, "second")
		r.get(context.WithValue(r.ctx, traceKey{}, "first of two"), "b")
		r.get(context.WithValue(r.ctx, traceKey{}, "second of two"), "c")
		r.underWay()[0].answer(served)
		require.Equal(t, "first of two", r.underWay()[1].ctx.Value(traceKey{}))
		require.Nil(t, r.underWay()[0].ctx.Value(traceKey{}))
	})
}
