package mux_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestMux_QueuedCallersShareAPipeline(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, second := r.fillSlots(t)
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

func TestMux_AsksForIdenticalKeysOnceInAPipeline(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fillSlots(t)
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

func TestMux_DoesNotShareAGetThatWasSentBefore(t *testing.T) {
	says := func(value string) answer {
		return func(cmd redis.Cmder) { cmd.(interface{ SetVal(string) }).SetVal(value) }
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

func TestMux_BoundsAPipeline(t *testing.T) {
	// wide returns a call of n commands, for the keys that begin with number from.
	wide := func(from, n int) []redis.Cmder {
		cmds := make([]redis.Cmder, n)
		for i := range cmds {
			cmds[i] = get(fmt.Sprint("key", from+i))
		}
		return cmds
	}
	kib := func(n int) string { return strings.Repeat("x", n<<10) }
	write := func(value any) []redis.Cmder { return []redis.Cmder{set("k", value)} }
	var narrow [][]redis.Cmder
	for i := range 1200 {
		narrow = append(narrow, wide(i, 1))
	}

	for name, row := range map[string]struct {
		calls [][]redis.Cmder
		want  []int // commands in each pipeline
	}{
		"512 commands": {narrow, []int{512, 512, 176}},
		"512 commands, and the commands of a call stay together": {
			[][]redis.Cmder{wide(0, 300), wide(300, 212), wide(512, 300), wide(812, 300)},
			[]int{512, 300, 300},
		},
		"a call that is longer goes alone": {
			[][]redis.Cmder{wide(0, 100), wide(100, 600), wide(700, 100)}, []int{100, 600, 100},
		},
		"a megabyte of strings": {
			[][]redis.Cmder{write(kib(500)), write(kib(500)), write(kib(500))}, []int{2, 1},
		},
		"a megabyte of bytes": {
			[][]redis.Cmder{write([]byte(kib(500))), write([]byte(kib(500))), write([]byte(kib(500)))}, []int{2, 1},
		},
		"a call that is larger goes alone": {
			[][]redis.Cmder{write(kib(2000)), write(kib(2000))}, []int{1, 1},
		},
		"a call of several megabytes takes several": {
			[][]redis.Cmder{slices.Repeat(write(kib(500)), 5)}, []int{2, 2, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, patient, func(t *testing.T, r *rig) {
				first, _ := r.fillSlots(t)
				firstBulk := r.fillBulkSlots(t)
				var callers []*caller
				for _, cmds := range row.calls {
					callers = append(callers, r.do(cmds...))
				}
				first.answer(served)
				firstBulk.answer(served)

				var sizes []int
				for len(r.underWay()) == 3 { // the second of each lane is still held
					next := r.underWay()[2]
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

func TestMux_BoundsAPipelineByTheKeysOfGets(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first := r.fillBulkSlots(t)
		for _, key := range []string{"a", "b", "c"} {
			r.get(r.ctx, strings.Repeat(key, 500<<10))
		}
		first.answer(served)
		require.True(t, len(r.underWay()[1].cmds) == 2)
	})
}

func TestMux_GivesEachCallerTheErrorOfItsOwnCommands(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fillSlots(t)
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

type traceKey struct{}

func TestMux_ShowsHooksTheValuesOfTheFirstCallersContext(t *testing.T) {
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
