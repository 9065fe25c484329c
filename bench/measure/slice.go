// Package measure runs an operation for a short while on some goroutines, says what
// it cost, and compares contenders that take turns.
package measure

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// Sample is what one slice of time has shown.
type Sample struct {
	Ops            int64
	Elapsed        time.Duration
	P50, P99, Max  time.Duration
	Bytes, Mallocs float64 // allocated, for each operation
	Loads          int64   // that the operations needed; counted by whoever knows
}

// NsPerOp is the wall time for each operation, like that of a parallel Go benchmark.
func (s Sample) NsPerOp() float64 { return float64(s.Elapsed) / float64(s.Ops) }

// PerSecond is the number of operations in a second.
func (s Sample) PerSecond() float64 { return float64(s.Ops) / s.Elapsed.Seconds() }

// Op is the operation to be measured. The random numbers are the goroutine's own,
// and the same in each slice.
type Op func(ctx context.Context, random *rand.Rand) error

// Slice runs op on so many goroutines, each in a closed loop, for d. The first error
// ends it: a call that fails is not a fast one.
func Slice(ctx context.Context, goroutines int, d time.Duration, op Op) (Sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	histograms := make([]Histogram, goroutines)
	randoms := make([]*rand.Rand, goroutines)
	for i := range randoms {
		randoms[i] = rand.New(rand.NewPCG(uint64(i), 1))
	}
	runtime.GC() // so that nobody pays for the garbage of those before
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(d)
	for i := range goroutines {
		wg.Go(func() { // ends at the deadline, or with its first error
			for now := start; now.Before(end) && ctx.Err() == nil; {
				if err := op(ctx, randoms[i]); err != nil {
					cancel(err)
					return
				}
				done := time.Now()
				histograms[i].Record(done.Sub(now))
				now = done
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	if err := context.Cause(ctx); err != nil {
		return Sample{}, err
	}

	all := &histograms[0]
	for i := 1; i < goroutines; i++ {
		all.Merge(&histograms[i])
	}
	if all.total == 0 {
		return Sample{}, fmt.Errorf("no operation ended within %v", d)
	}
	ops := float64(all.total)
	return Sample{
		Ops: int64(all.total), Elapsed: elapsed,
		P50: all.Quantile(0.5), P99: all.Quantile(0.99), Max: all.Max(),
		Bytes:   float64(after.TotalAlloc-before.TotalAlloc) / ops,
		Mallocs: float64(after.Mallocs-before.Mallocs) / ops,
	}, nil
}
