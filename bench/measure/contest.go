package measure

import (
	"fmt"
	"math"
	"slices"
)

// Contest is what the contenders have shown, round by round.
type Contest struct {
	Names   []string
	samples map[string][]Sample
}

// NewContest is a contest in which nobody has run yet.
func NewContest(names []string) *Contest {
	return &Contest{Names: names, samples: make(map[string][]Sample)}
}

// Round has each contender run for one slice, taking turns. What disturbs the
// machine for longer than a slice so disturbs all of them alike, and falls out of
// the ratios within a round. Who begins changes with each round.
func (c *Contest) Round(slice func(name string) (Sample, error)) error {
	first := len(c.samples[c.Names[0]])
	for i := range c.Names {
		name := c.Names[(i+first)%len(c.Names)]
		s, err := slice(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.samples[name] = append(c.samples[name], s)
	}
	return nil
}

// Rounds is so many rounds of Round.
func (c *Contest) Rounds(n int, slice func(name string) (Sample, error)) error {
	for range n {
		if err := c.Round(slice); err != nil {
			return err
		}
	}
	return nil
}

// Median is the median of what of the contender's samples.
func (c *Contest) Median(name string, what func(Sample) float64) float64 {
	values := make([]float64, 0, len(c.samples[name]))
	for _, s := range c.samples[name] {
		values = append(values, what(s))
	}
	return Median(values)
}

// Loads is the sum of the loads that the contender needed.
func (c *Contest) Loads(name string) (sum int64) {
	for _, s := range c.samples[name] {
		sum += s.Loads
	}
	return sum
}

// Ratio is the median, over the rounds, of the contender's what divided by the
// rival's in the same round.
func (c *Contest) Ratio(name, rival string, what func(Sample) float64) float64 {
	return RatioOf(c.samples[name], c.samples[rival], what)
}

// RatioBetween is Ratio between the samples of two contests, by round.
func RatioBetween(a *Contest, nameA string, b *Contest, nameB string, what func(Sample) float64) float64 {
	return RatioOf(a.samples[nameA], b.samples[nameB], what)
}

// RatioOf is the median of the ratios of as to bs, pair by pair.
func RatioOf(as, bs []Sample, what func(Sample) float64) float64 {
	ratios := make([]float64, 0, len(as))
	for i := range min(len(as), len(bs)) {
		ratios = append(ratios, what(as[i])/what(bs[i]))
	}
	return Median(ratios)
}

// Median is the middle of the values, or the mean of the two in the middle; NaN if
// there are none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
