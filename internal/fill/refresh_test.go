package fill

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// fresh returns an entry whose load took delta and that becomes stale in left.
func fresh(delta, left time.Duration) *entry.Entry {
	return &entry.Entry{LoadTime: delta, FreshUntil: time.Now().Add(left)}
}

// TestXFetch_RefreshesAsOftenAsItsFormulaSays measures -beta*delta*ln(rand) >= left against its
// probability. With so many samples, the tolerance is 8 standard deviations.
func TestXFetch_RefreshesAsOftenAsItsFormulaSays(t *testing.T) {
	const delta, samples, tolerance = 200 * time.Millisecond, 40_000, 0.02
	synctest.Test(t, func(t *testing.T) { // where no time passes between the samples
		for _, beta := range []float64{0.5, 1, 3} {
			for _, left := range []time.Duration{1, delta / 4, delta / 2, delta, 2 * delta, 5 * delta, time.Minute} {
				e, early := fresh(delta, left), 0
				for range samples {
					if DueEarly(nil, beta, e) {
						early++
					}
				}
				want := math.Exp(-float64(left) / (beta * float64(delta)))
				require.InDelta(t, want, float64(early)/samples, tolerance, "beta %v, %v left", beta, left)
			}
		}
	})
}

func TestXFetch_NeverRefreshesWithNothingToWeigh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, row := range map[string]struct {
			beta float64
			e    *entry.Entry
		}{
			"off":                   {0, fresh(time.Hour, 1)},
			"a load of no time":     {1, fresh(0, 1)},
			"an entry for all time": {1e9, &entry.Entry{LoadTime: time.Hour}},
		} {
			for range 1000 {
				require.False(t, DueEarly(nil, row.beta, row.e), name)
			}
		}
	})
}

// stampede simulates readers of one entry that do not collapse their loads: how many loads begin
// before the first of them has ended, and how long before the expiry the first begins.
func stampede(arrivals *rand.Rand, beta float64) (loads int, ahead time.Duration) {
	const delta, left, rate = 500 * time.Millisecond, 10 * time.Second, 40 // reads a second
	e := fresh(delta, left)
	var done time.Time
	for done.IsZero() || time.Now().Before(done) {
		time.Sleep(time.Duration(arrivals.ExpFloat64() / rate * float64(time.Second)))
		stale := !e.Fresh(time.Now())
		if !stale && !DueEarly(nil, beta, e) {
			continue
		}
		if loads++; loads == 1 {
			done = time.Now().Add(delta)
			ahead = time.Until(e.FreshUntil)
		}
	}
	return loads, ahead
}

func TestXFetch_ShrinksStampedeAsBetaGrows(t *testing.T) {
	// With so many rounds, the two means that are the closest are 4 standard deviations apart.
	const rounds = 1000
	synctest.Test(t, func(t *testing.T) {
		lastLoads, lastAhead := math.Inf(1), math.Inf(-1)
		for _, beta := range []float64{0, 0.5, 1, 2, 4} {
			arrivals := rand.New(rand.NewPCG(1, 2))
			var loads int
			var ahead time.Duration
			for range rounds {
				n, before := stampede(arrivals, beta)
				loads, ahead = loads+n, ahead+before
			}
			meanLoads, meanAhead := float64(loads)/rounds, (ahead / rounds).Seconds()
			t.Logf("beta %v: %.1f loads, the first %.2fs before the expiry", beta, meanLoads, meanAhead)
			require.Less(t, meanLoads, lastLoads, "beta %v", beta)
			require.Greater(t, meanAhead, lastAhead, "beta %v", beta)
			lastLoads, lastAhead = meanLoads, meanAhead
		}
	})
}
