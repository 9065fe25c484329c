package readthrough_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// TestAHungRedisCostsOneBudget counts the round trips that calls for several chunks
// wait for: once Redis has not answered, there is nothing to wait for again. GetMany
// has two of them under way at a time.
func TestAHungRedisCostsOneBudget(t *testing.T) {
	for name, call := range map[string]func(*testing.T, *readthrough.ReadThrough[int, int]){
		"GetMany": func(t *testing.T, rows *readthrough.ReadThrough[int, int]) {
			ids := upTo(0, 4000)
			results, err := rows.GetMany(t.Context(), ids)
			require.NoError(t, err)
			require.Equal(t, squaresOf(ids), results)
		},
		"SetMany": func(t *testing.T, rows *readthrough.ReadThrough[int, int]) {
			require.ErrorContains(t, rows.SetMany(t.Context(), slices.All(make([]int, 4000))), "row:0, row:1, ")
		},
		"Invalidate": func(t *testing.T, rows *readthrough.ReadThrough[int, int]) {
			require.ErrorContains(t, rows.Invalidate(t.Context(), upTo(0, 4000)...), "row:0, row:1, ")
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			client := server.Client(func(o *redis.Options) { o.MaxRetries = -1 })
			sent := &chunkLog{first: make(map[string]bool)}
			client.AddHook(sent)
			cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(200*time.Millisecond))[0]
			rows := (&squares{}).wrap(t, cache)
			server.Pause()
			call(t, rows)
			chunks := sent.chunks()
			server.Resume()
			want := []string{"row:0"}
			if name == "GetMany" {
				want = append(want, "row:500")
			}
			require.ElementsMatch(t, want, chunks, "the chunks that were sent, by their first keys")
			require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 5*time.Millisecond)
		})
	}
}

// chunkLog remembers the pipelines about many keys by the first of them, so that a
// chunk that is sent again in the background counts once.
type chunkLog struct {
	pipelineCounter
	mu    sync.Mutex
	first map[string]bool
}

var rowKey = regexp.MustCompile(`row:\d+`)

func (l *chunkLog) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		l.mu.Lock()
		if len(cmds) > 100 {
			l.first[rowKey.FindString(fmt.Sprintln(cmds[0].Args()...))] = true
		}
		l.mu.Unlock()
		return next(ctx, cmds)
	}
}

func (l *chunkLog) chunks() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.first))
}

func TestErrorsNameTheKeysOfTheNodeThatIsDown(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0)
	cache := fleet(t, 1, func() redis.UniversalClient {
		return cluster.Client(func(o *redis.ClusterOptions) { o.MaxRedirects = -1; o.MaxRetries = -1; o.DialerRetries = 1 })
	}, readthrough.WithBreaker(1000, time.Second))[0]
	rows := (&squares{}).wrap(t, cache)
	ids := upTo(0, 9) // as many as an error names
	_, err := rows.GetMany(t.Context(), ids)
	require.NoError(t, err)
	there, err := cluster.Masters()[0].Client().Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.NotEmpty(t, there)
	cluster.Masters()[0].Kill()

	before := rows.Stats()
	results, err := rows.GetMany(t.Context(), ids)
	require.NoError(t, err)
	require.Equal(t, squaresOf(ids), results, "whatever Redis answers")
	require.EqualValues(t, len(ids)-len(there), rows.Stats().Hits-before.Hits, "the other nodes' keys are hits")
	require.EqualValues(t, len(there), rows.Stats().Loads-before.Loads)
	err = rows.Invalidate(t.Context(), ids...)
	for _, key := range there {
		require.ErrorContains(t, err, key)
	}
	cluster.Masters()[0].Restart()
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 5*time.Millisecond)
}

// slowNode is a hook that has the keys of a pipeline that end in 7 fail, after a while: as those of a node that is down,
// when the client tries again and again.
type slowNode struct {
	pipelineCounter
	after time.Duration
}

var errNode = errors.New("node is down")

func (s *slowNode) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	counted := s.pipelineCounter.ProcessPipelineHook(next)
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := counted(ctx, cmds)
		time.Sleep(s.after)
		for _, cmd := range cmds {
			if key, _ := cmd.Args()[1].(string); cmd.Name() == "get" && strings.HasSuffix(key, "7") {
				cmd.SetErr(errNode)
			}
		}
		return err
	}
}

// TestANodeThatIsDownCostsAboutOneBudget counts the lookups of 4000 keys, which would be 8, two at a time: after two pairs
// more time has passed than Redis has.
func TestANodeThatIsDownCostsAboutOneBudget(t *testing.T) {
	const budget = 400 * time.Millisecond
	var trips atomic.Int64
	client := redistest.Start(t).Client()
	cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(budget))[0]
	rows := (&squares{}).wrap(t, cache, readthrough.WithoutLease())
	ids := upTo(0, 4000)
	_, err := rows.GetMany(t.Context(), ids)
	require.NoError(t, err)
	before := rows.Stats()
	client.AddHook(&slowNode{pipelineCounter{redistest.TripCounter{Trips: &trips}}, budget * 6 / 10})
	results, err := rows.GetMany(t.Context(), ids)
	require.NoError(t, err)
	require.Equal(t, squaresOf(ids), results)
	require.EqualValues(t, 4*450, rows.Stats().Hits-before.Hits, "of those that were asked for, but for those of the node")
	require.EqualValues(t, 4000-4*450, rows.Stats().Loads-before.Loads)
	require.EqualValues(t, 4, trips.Load())
}

// refusing is a hook that refuses pipelines without giving their commands an error, as a limiter may.
type refusing struct {
	pipelineCounter
	over atomic.Bool
}

func (r *refusing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if r.over.Load() {
			return next(ctx, cmds)
		}
		return errNode
	}
}

func TestAPipelineThatAHookRefusesIsNotTakenForAnswered(t *testing.T) {
	client := redistest.Start(t).Client()
	cache := fleet(t, 1, func() redis.UniversalClient { return client })[0]
	rows := (&squares{}).wrap(t, cache)
	_, err := rows.GetMany(t.Context(), []int{1})
	require.NoError(t, err)
	hook := new(refusing)
	client.AddHook(hook)
	require.ErrorIs(t, rows.Invalidate(t.Context(), 1), errNode)
	results, err := rows.GetMany(t.Context(), []int{1, 2})
	require.NoError(t, err)
	require.Equal(t, squaresOf([]int{1, 2}), results)
	require.Zero(t, rows.Stats().Corrupt)
	hook.over.Store(true)
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 20*time.Second, 5*time.Millisecond)
}
