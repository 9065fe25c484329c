package workload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// stampedeLoad is how long the loader takes in a stampede.
const stampedeLoad = 50 * time.Millisecond

// rush is what one process saw of one stampede.
type rush struct {
	Loads  int64
	Failed int64         // callers who got an error or another's value
	Median time.Duration // of the callers' waits
	Last   time.Duration // the longest of them
}

// Stampede has all goroutines of all processes ask for one cold key.
func Stampede(e *Env) (*Section, error) {
	server := redistest.Start(e)
	names := []string{peers.Readthrough, peers.Raw, peers.GoRedisCache, peers.RockscacheWeak, peers.RockscacheStrong, peers.Rueidis}
	fleets := make(map[string]fleet)
	for _, name := range names {
		f, err := startFleet(e, "stampede", job{Addr: server.Addr(), Peer: name, Crowd: e.Crowd, Load: stampedeLoad})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		fleets[name] = f
	}
	seen := make(map[string][]rush)
	for i := range e.Stampedes {
		for _, name := range names {
			r, err := fleets[name].rush(keysOf(name, i+2)[i+1]) // key 0 is for warming up
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			seen[name] = append(seen[name], r)
		}
	}
	for _, f := range fleets {
		if err := f.dismiss(); err != nil {
			return nil, err
		}
	}
	return stampedeSection(e, names, seen), nil
}

// rush sends the fleet after a key and sums up what its processes saw.
func (f fleet) rush(key string) (rush, error) {
	var total rush
	if err := f.tell(key); err != nil {
		return total, err
	}
	seen, err := answers[rush](f)
	var medians []float64
	for _, r := range seen {
		total.Loads += r.Loads
		total.Failed += r.Failed
		total.Last = max(total.Last, r.Last)
		medians = append(medians, float64(r.Median))
	}
	total.Median = time.Duration(measure.Median(medians))
	return total, err
}

func stampedeSection(e *Env, names []string, seen map[string][]rush) *Section {
	t := Table{Columns: []string{"", "loads, median", "loads, most", "median caller waits", "last caller waits", "callers failed"}}
	chart := Chart{
		File: "stampede.svg", Title: fmt.Sprintf("A cold key, %d goroutines in each of %d processes", e.Crowd, fleetSize),
		YLabel: "loads", LogY: true, Groups: []string{""},
	}
	var ours, ourMedian float64
	var lost []string
	for _, name := range names { // this library first
		var loads, medians, lasts []float64
		var failed int64
		for _, r := range seen[name] {
			loads = append(loads, float64(r.Loads))
			medians = append(medians, float64(r.Median))
			lasts = append(lasts, float64(r.Last))
			failed += r.Failed
		}
		most := slices.Max(loads)
		if name == peers.Readthrough {
			ours, ourMedian = most, measure.Median(medians)
		} else if median := measure.Median(medians); median < ourMedian {
			lost = append(lost, fmt.Sprintf("stampede: the median caller of %s waits for %s, with %.0f loads, and here for %s",
				name, formatMillis(time.Duration(median)), measure.Median(loads), formatMillis(time.Duration(ourMedian))))
		}
		t.Add(name, fmt.Sprintf("%.0f", measure.Median(loads)), fmt.Sprintf("%.0f", most),
			formatMillis(time.Duration(measure.Median(medians))), formatMillis(time.Duration(measure.Median(lasts))), fmt.Sprint(failed))
		chart.Series = append(chart.Series, Series{Name: name, Y: []float64{measure.Median(loads)}})
	}
	return &Section{
		Title: "Stampede",
		Text: fmt.Sprintf("%d goroutines in each of %d processes ask for a key that is not in Redis, all at once; the loader takes %v. "+
			"%d such keys, one after the other.", e.Crowd, fleetSize, stampedeLoad, e.Stampedes),
		Tables: []Table{t}, Charts: []Chart{chart}, Losses: lost,
		Targets: []Target{atMost("stampede of 4 processes: loads of a cold key, at worst", 1, ours, "%.0f")},
	}
}

// stampede is one process of the fleet: for each key that it is told it sends its
// whole crowd.
func stampede(j job, c *conversation) error {
	var loads atomic.Int64
	peer, err := peers.All[Book]()[j.Peer](j.Addr, func(ctx context.Context, key string) (Book, error) {
		loads.Add(1)
		time.Sleep(j.Load)
		return loadBook(ctx, key)
	})
	if err != nil {
		return err
	}
	defer peer.Close() // the process ends
	if _, err := peer.Get(context.Background(), keysOf(j.Peer, 1)[0]); err != nil {
		return err
	}
	if err := c.out.Encode("ready"); err != nil {
		return err
	}
	var key string
	for c.hear(&key) {
		loads.Store(0)
		r := crowd(peer, key, j.Crowd)
		r.Loads = loads.Load()
		if err := c.out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// crowd has n goroutines ask for key at once.
func crowd(peer peers.Peer[Book], key string, n int) rush {
	waits := make([]time.Duration, n)
	var failed atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			began := time.Now()
			v, err := peer.Get(context.Background(), key)
			waits[i] = time.Since(began)
			if err != nil || v.ID != idOf(key) {
				failed.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	slices.Sort(waits)
	return rush{Failed: failed.Load(), Median: waits[n/2], Last: waits[n-1]}
}
