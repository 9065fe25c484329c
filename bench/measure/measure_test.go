package measure_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/bench/measure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQuantilesAreThoseOfTheDurationsToWithinABucket(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var halves [2]measure.Histogram
	for i := range 10_000 {
		d := time.Duration(math.Exp(random.Float64() * 24)) // from 1 ns to 26 s
		all = append(all, d)
		halves[i%2].Record(d)
	}
	h := &halves[0]
	h.Merge(&halves[1])
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.25, 0.5, 0.9, 0.99, 0.999} {
		exact := float64(all[int(q*float64(len(all)))-1])
		assert.InDelta(t, exact, float64(h.Quantile(q)), exact/32+1, "quantile %v", q)
	}
	assert.Equal(t, all[len(all)-1], h.Max())
	assert.Equal(t, h.Max(), h.Quantile(1))
}

func TestQuantileNeverExceedsTheMaximum(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 31, 32, 33, 63, 64, 65, 1 << 20, 1<<20 + 1, math.MaxInt64} {
		var h measure.Histogram
		h.Record(d)
		assert.Equal(t, d, h.Quantile(0.5))
	}
	var empty measure.Histogram
	assert.Zero(t, empty.Quantile(0.5))
}

func TestMedianIsTheMiddle(t *testing.T) {
	values := []float64{9, 1, 5}
	assert.Equal(t, 5.0, measure.Median(values))
	assert.Equal(t, []float64{9, 1, 5}, values, "the values stay as they are")
	assert.Equal(t, 3.0, measure.Median([]float64{5, 1, 2, 4}))
	assert.True(t, math.IsNaN(measure.Median(nil)))
}

func TestRatioIsTakenWithinARound(t *testing.T) {
	// The machine is ten times slower in the second round: the ratio of the medians
	// would be 2/11, and no contender has shown that.
	ns := map[string][]time.Duration{"slow": {20, 200, 20}, "fast": {10, 100, 11}}
	contest := measure.NewContest([]string{"slow", "fast"})
	seen := map[string]int{}
	var order []string
	err := contest.Rounds(3, func(name string) (measure.Sample, error) {
		s := measure.Sample{Ops: 1, Elapsed: ns[name][seen[name]], Loads: 2}
		seen[name]++
		order = append(order, name)
		return s, nil
	})
	require.NoError(t, err)
	assert.Equal(t, 2.0, contest.Ratio("slow", "fast", measure.Sample.NsPerOp))
	assert.Equal(t, 20.0, contest.Median("slow", measure.Sample.NsPerOp))
	assert.EqualValues(t, 6, contest.Loads("fast"))
	assert.Equal(t, []string{"slow", "fast", "fast", "slow", "slow", "fast"}, order, "nobody is always the first")
}

func TestContestEndsWithAnError(t *testing.T) {
	broken := errors.New("broken")
	err := measure.NewContest([]string{"a"}).Rounds(3, func(string) (measure.Sample, error) { return measure.Sample{}, broken })
	require.ErrorIs(t, err, broken)
}

func TestSliceCountsOperationsAndWhatTheyAllocate(t *testing.T) {
	var calls atomic.Int64
	var sink atomic.Pointer[[1000]byte]
	s, err := measure.Slice(t.Context(), 2, 20*time.Millisecond, func(context.Context, *rand.Rand) error {
		sink.Store(new([1000]byte))
		calls.Add(1)
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, calls.Load(), s.Ops)
	assert.GreaterOrEqual(t, s.Elapsed, 20*time.Millisecond)
	assert.GreaterOrEqual(t, s.Bytes, 1000.0)
	assert.InDelta(t, 1, s.Mallocs, 0.5)
	assert.LessOrEqual(t, s.P50, s.P99)
	assert.LessOrEqual(t, s.P99, s.Max)
	assert.InDelta(t, 1e9, s.NsPerOp()*s.PerSecond(), 1)
}

func TestSliceEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	began := time.Now()
	_, err := measure.Slice(t.Context(), 4, time.Hour, func(context.Context, *rand.Rand) error { return broken })
	require.ErrorIs(t, err, broken)
	assert.Less(t, time.Since(began), time.Minute)
}
