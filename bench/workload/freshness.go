package workload

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// pace is the time between two calls of the fleet.
const pace = time.Millisecond

// modes are the ways to treat a key whose TTL ends.
var modes = []string{"WithStale", "WithEarlyRefresh", "neither"}

func modeOptions(mode string, ttl time.Duration) []readthrough.Option {
	// Jitter would only shorten the TTL: there is a single key.
	opts := []readthrough.Option{readthrough.WithTTL(ttl), readthrough.WithJitter(0)}
	switch mode {
	case "WithStale":
		opts = append(opts, readthrough.WithStale(ttl))
	case "WithEarlyRefresh":
		opts = append(opts, readthrough.WithEarlyRefresh(1))
	}
	return opts
}

// watch is what a process, or the fleet, saw of one key.
type watch struct {
	Loads  int64
	Failed int64
	Late   time.Duration   // the most that the machine kept the process from beginning a call
	At     []time.Duration // when each call began
	Took   []time.Duration
}

// Freshness reads one key for many of its lifetimes.
func Freshness(e *Env) (*Section, error) {
	s := &Section{
		Title: "A hot key whose TTL ends",
		Text: fmt.Sprintf("%d processes together read one key 1,000 times a second for %d TTLs; the loader takes %v. The two modes that refresh run at the same time, the one without after them. No call waits for "+
			"the one before. The first load, right before all others, and the calls of a short rehearsal are not counted. Jitter is off, as there is one key. The more callers there are, the earlier "+
			"XFetch (WithEarlyRefresh(1)) refreshes: by its formula, here %.2f s before the end of a long TTL, on average. It is for TTLs that are much longer than that. How late calls begin shows "+
			"what the machine itself adds: %d processes share its processors.",
			fleetSize, e.Lifetimes, e.LoadTime, xfetchLead(e.LoadTime).Seconds(), 2*fleetSize+1),
	}
	t := Table{Columns: []string{"", "TTL", "calls", "median", "p99", "worst", "calls over 20 ms", "a call begins too late by, at worst", "loads per TTL", "calls failed"}}
	for i, ttl := range e.TTLs {
		watched := modes[:2]
		seen, err := watchKeys(e, watched, ttl)
		if err != nil {
			return nil, err
		}
		if i == 0 { // "neither" once is contrast enough
			alone, err := watchKeys(e, modes[2:], ttl)
			if err != nil {
				return nil, err
			}
			maps.Copy(seen, alone)
			watched = modes
		}
		for _, mode := range watched {
			t.Add(seen[mode].row(mode, ttl, e.Lifetimes)...)
			if mode != "neither" {
				seen[mode].judge(s, mode, ttl, e)
			}
		}
		if i == 0 {
			s.Charts = append(s.Charts, freshnessChart(ttl, seen))
		}
	}
	s.Tables = []Table{t}
	return s, nil
}

// watchKeys has a fleet for each mode read a key of its own, all at the same time:
// so they see the same machine.
func watchKeys(e *Env, modes []string, ttl time.Duration) (map[string]watch, error) {
	server := redistest.Start(e)
	fleets := make(map[string]fleet)
	for _, mode := range modes {
		f, err := startFleet(e, "freshness", job{
			Addr: server.Addr(), Load: e.LoadTime, Fresh: mode, TTL: ttl,
			Every: fleetSize * pace, Duration: ttl * time.Duration(e.Lifetimes),
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mode, err)
		}
		fleets[mode] = f
	}
	// What the fleets loaded to get ready has aged by now, each fleet's differently.
	if err := server.Client().FlushAll(context.Background()).Err(); err != nil {
		return nil, err
	}
	for _, f := range fleets {
		if err := f.tell("go"); err != nil {
			return nil, err
		}
	}
	seen := make(map[string]watch)
	for mode, f := range fleets {
		parts, err := answers[watch](f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mode, err)
		}
		seen[mode] = sumUp(parts)
		if err := f.dismiss(); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// sumUp is what the whole fleet saw.
func sumUp(parts []watch) (all watch) {
	for _, w := range parts {
		all.Loads += w.Loads
		all.Failed += w.Failed
		all.Late = max(all.Late, w.Late)
		all.At = append(all.At, w.At...)
		all.Took = append(all.Took, w.Took...)
	}
	return all
}

func (w watch) row(mode string, ttl time.Duration, lifetimes int) []string {
	took := slices.Sorted(slices.Values(w.Took))
	over, _ := slices.BinarySearch(took, 20*time.Millisecond+1)
	n := len(took)
	return []string{
		mode, ttl.String(), fmt.Sprint(n), formatMillis(took[n/2]), formatMillis(took[n*99/100]), formatMillis(took[n-1]),
		fmt.Sprint(n - over), formatMillis(w.Late), fmt.Sprintf("%.2f", float64(w.Loads)/float64(lifetimes)), fmt.Sprint(w.Failed),
	}
}

// judge adds the targets of a mode. Where XFetch's own formula loads more often than
// the target says, that is a loss, and the formula is the target.
func (w watch) judge(s *Section, mode string, ttl time.Duration, e *Env) {
	const mostLoads = 1.2
	what := fmt.Sprintf("%s, TTL %v: ", mode, ttl)
	loads := float64(w.Loads) / float64(e.Lifetimes)
	s.Targets = append(s.Targets, atMost(what+"worst call after the first, ms", 20, float64(slices.Max(w.Took))/1e6, "%.1f"))
	if inTheory := xfetchLoads(ttl, e.LoadTime); mode == "WithEarlyRefresh" && inTheory > mostLoads {
		s.Losses = append(s.Losses, fmt.Sprintf("a hot key, %s%.2f loads per TTL; XFetch's formula gives %.2f", what, loads, inTheory))
		s.Targets = append(s.Targets, atMost(what+"loads per TTL, by those of XFetch's formula", mostLoads, loads/inTheory, "%.2f"))
		return
	}
	s.Targets = append(s.Targets, atMost(what+"loads per TTL in the fleet", mostLoads, loads, "%.2f"))
}

// xfetchLead is how long before the end of the TTL the first of the fleet's calls
// refreshes, on average, if the TTL is much longer. With x left, each does with
// probability exp(-x/load), so that none does before x is left with probability
// exp(-load/pace*exp(-x/load)): a Gumbel distribution, whose mean this is. (0.5772 is
// Euler's constant.)
func xfetchLead(load time.Duration) time.Duration {
	return time.Duration(float64(load) * (math.Log(float64(load)/float64(pace)) + 0.5772))
}

// xfetchLoads is how many loads there are in a TTL, for TTLs of any length: each
// takes its time, and then nobody refreshes for the sum of the probabilities that
// nobody has until then.
func xfetchLoads(ttl, load time.Duration) float64 {
	const steps = 10_000
	calls := float64(load) / float64(pace) // in one load
	quiet := 0.0
	for i := range steps {
		passed := (float64(i) + 0.5) / steps * float64(ttl)
		quiet += math.Exp(-calls * (math.Exp((passed-float64(ttl))/float64(load)) - math.Exp(-float64(ttl)/float64(load))))
	}
	return float64(ttl) / (float64(load) + quiet/steps*float64(ttl))
}

// freshnessChart shows the worst call of each moment.
func freshnessChart(ttl time.Duration, seen map[string]watch) Chart {
	chart := Chart{
		File: "freshness.svg", Title: fmt.Sprintf("A hot key with a TTL of %v: the worst call of each moment", ttl),
		XLabel: "seconds", YLabel: "milliseconds", LogY: true,
	}
	moment := ttl / 20
	for _, mode := range modes {
		worst := make(map[time.Duration]time.Duration)
		for i, at := range seen[mode].At {
			m := at.Truncate(moment)
			worst[m] = max(worst[m], seen[mode].Took[i])
		}
		s := Series{Name: mode}
		for at, took := range worst {
			s.X = append(s.X, at.Seconds())
			s.Y = append(s.Y, float64(took)/1e6)
		}
		chart.Series = append(chart.Series, s)
	}
	return chart
}

// freshness is one process of the fleet.
func freshness(j job, c *conversation) error {
	var loads atomic.Int64
	peer, err := peers.OpenReadthrough(j.Addr, func(ctx context.Context, key string) (Book, error) {
		loads.Add(1)
		time.Sleep(j.Load)
		return loadBook(ctx, key)
	}, modeOptions(j.Fresh, j.TTL)...)
	if err != nil {
		return err
	}
	defer peer.Close() // the process ends
	key := keysOf(j.Fresh, 1)[0]
	rehearsal := j
	rehearsal.Duration = min(j.TTL, time.Second/2)
	pacedCalls(rehearsal, peer, key) // which opens the connections
	if err := c.out.Encode("ready"); err != nil {
		return err
	}
	var order string
	if !c.hear(&order) {
		return nil
	}
	if _, err := peer.Get(context.Background(), key); err != nil { // the first load
		return err
	}
	loads.Store(0)
	w := pacedCalls(j, peer, key)
	w.Loads = loads.Load()
	return c.out.Encode(w)
}

// pacedCalls reads the key at the process's pace, whether or not the calls before
// were answered.
func pacedCalls(j job, peer peers.Peer[Book], key string) watch {
	calls := int(j.Duration / j.Every)
	w := watch{At: make([]time.Duration, calls), Took: make([]time.Duration, calls)}
	var failed atomic.Int64
	var wg sync.WaitGroup
	start := time.Now().Add(time.Duration(j.Process) * pace)
	for i := range calls {
		due := start.Add(time.Duration(i) * j.Every)
		time.Sleep(time.Until(due))
		w.Late = max(w.Late, time.Since(due))
		wg.Go(func() { // ends with its call
			began := time.Now()
			_, err := peer.Get(context.Background(), key)
			w.At[i], w.Took[i] = began.Sub(start), time.Since(began)
			if err != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	w.Failed = failed.Load()
	return w
}
