package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// readers are all who read values; none but rockscache's strong mode is left out,
// whose hits are those of the weak one.
var readers = []string{
	peers.Readthrough, peers.InPerson, peers.Raw, peers.AutoPipeline, peers.FullDuplex,
	peers.GoRedisCache, peers.RockscacheWeak, peers.Rueidis,
}

// Hit reads values that are in Redis.
func Hit(e *Env) (*Section, error) {
	contests, err := hits(e, readers, []int{1, 16, 128, 1024}, e.Keys, loadBook)
	if err != nil {
		return nil, err
	}
	hot, err := hits(e, readers, []int{128}, 1, loadBook)
	if err != nil {
		return nil, err
	}
	s := &Section{
		Title: "Hits of a struct of ten fields",
		Text: fmt.Sprintf("Each goroutine reads one of %d keys after the other, chosen at random. The value has a time, a slice and a map. "+
			"B/op and allocs/op are of the whole process. A load means that a reader went past a Redis that had not answered in time.", e.Keys),
		Charts: []Chart{hitChart(contests)},
	}
	s.compare("hits", contests)
	s.compare("hits of one hot key", hot)
	s.Targets = hitTargets(contests[0].Contest, contests[2].Contest, contests[3].Contest)
	return s, nil
}

// compare adds a table for each level.
func (s *Section) compare(what string, levels []level) {
	for _, l := range levels {
		s.Tables = append(s.Tables, speedTable(what+", "+l.caption(), l.Contest))
		s.Losses = append(s.Losses, losses(what+", "+l.caption(), l.Contest)...)
	}
}

func hitTargets(one, many, most *measure.Contest) []Target {
	const us = peers.Readthrough
	extra := one.Median(us, mallocs) - one.Median(peers.Raw, mallocs)
	return []Target{
		atMost("1 goroutine, client from Open: time of a hit, by that of "+peers.Raw, 1.00,
			one.Ratio(peers.InPerson, peers.Raw, measure.Sample.NsPerOp), "%.3f"),
		atMost("1 goroutine, a client that ignores deadlines: time of a hit, by that of "+peers.Raw, 1.25,
			one.Ratio(us, peers.Raw, measure.Sample.NsPerOp), "%.3f"),
		atMost("1 goroutine: allocations of a hit beyond those of "+peers.Raw, 2, extra, "%.1f"),
		atLeast("128 goroutines: hits/s by those of "+peers.Raw, 4, many.Ratio(us, peers.Raw, measure.Sample.PerSecond), "%.2f"),
		atLeast("128 goroutines: hits/s by those of "+peers.GoRedisCache, 4, many.Ratio(us, peers.GoRedisCache, measure.Sample.PerSecond), "%.2f"),
		atLeast("128 goroutines: hits/s by those of "+peers.AutoPipeline, 1.3, many.Ratio(us, peers.AutoPipeline, measure.Sample.PerSecond), "%.2f"),
		atLeast("128 goroutines: hits/s by those of "+peers.FullDuplex, 1, many.Ratio(us, peers.FullDuplex, measure.Sample.PerSecond), "%.2f"),
		atLeast("1024 goroutines: hits/s by those of "+peers.AutoPipeline, 1.1,
			most.Ratio(us, peers.AutoPipeline, measure.Sample.PerSecond), "%.2f"),
		atLeast("1024 goroutines: hits/s by those at 128", 1, measure.RatioBetween(most, us, many, us, measure.Sample.PerSecond), "%.2f"),
	}
}

// level is a contest at one number of goroutines.
type level struct {
	goroutines int
	*measure.Contest
}

// caption names a level in words.
func (l level) caption() string {
	if l.goroutines == 1 {
		return "1 goroutine"
	}
	return fmt.Sprintf("%d goroutines", l.goroutines)
}

// contender is one peer in a contest.
type contender struct {
	op    measure.Op
	loads atomic.Int64
}

func (c *contender) slice(goroutines int, d time.Duration) (measure.Sample, error) {
	before := c.loads.Load()
	s, err := measure.Slice(context.Background(), goroutines, d, c.op)
	s.Loads = c.loads.Load() - before
	return s, err
}

// counted counts the calls of a loader.
func counted[V any](load peers.Loader[V], calls *atomic.Int64) peers.Loader[V] {
	return func(ctx context.Context, key string) (V, error) {
		calls.Add(1)
		return load(ctx, key)
	}
}

// newLevels are contests between the same contenders.
func newLevels(names []string, goroutines ...int) []level {
	levels := make([]level, len(goroutines))
	for i, n := range goroutines {
		levels[i] = level{n, measure.NewContest(names)}
	}
	return levels
}

// hits has the peers read keys that are in Redis, on a server of their own.
func hits[V value](e *Env, names []string, goroutines []int, keys int, load peers.Loader[V]) ([]level, error) {
	server := redistest.Start(e)
	all := make(map[string]*contender)
	for _, name := range names {
		c := &contender{}
		peer, err := peers.All[V]()[name](server.Addr(), counted(load, &c.loads))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		defer peer.Close() // it has served all its calls: an error would come too late
		if c.op, err = hitOp(peer, keysOf(name, keys)); err != nil {
			return nil, fmt.Errorf("fill %s: %w", name, err)
		}
		all[name] = c
	}
	levels := newLevels(names, goroutines...)
	return levels, race(e, levels, all)
}

// race runs the contests at all numbers of goroutines. A round goes through all of
// them, so that they can be compared too. Nobody's connections are cold in it.
func race(e *Env, levels []level, all map[string]*contender) error {
	for round := range e.Rounds + 1 {
		for _, l := range levels {
			contest := l.Contest
			if round == 0 {
				contest = measure.NewContest(l.Names) // forgotten: a rehearsal
			}
			err := contest.Round(func(name string) (measure.Sample, error) {
				return all[name].slice(l.goroutines, e.Slice)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// hitOp fills the keys and returns the operation that reads one of them.
func hitOp[V value](peer peers.Peer[V], keys []string) (measure.Op, error) {
	for _, key := range keys {
		if err := read(context.Background(), peer, key); err != nil {
			return nil, err
		}
	}
	return readOp(peer, keys), nil
}

// readOp is the operation that reads one of the keys.
func readOp[V value](peer peers.Peer[V], keys []string) measure.Op {
	return func(ctx context.Context, random *rand.Rand) error {
		return read(ctx, peer, keys[random.IntN(len(keys))])
	}
}

// read gets a key and checks that the value is its own.
func read[V value](ctx context.Context, peer peers.Peer[V], key string) error {
	v, err := peer.Get(ctx, key)
	if err == nil && v.id() != idOf(key) {
		err = fmt.Errorf("the value of %s is that of %d", key, v.id())
	}
	return err
}

func mallocs(s measure.Sample) float64 { return s.Mallocs }

// speedTable compares all contenders with this library: the first.
func speedTable(caption string, c *measure.Contest) Table {
	t := Table{Caption: caption, Columns: []string{
		"", "ops/s", "ns/op", "p50 µs", "p99 µs", "B/op", "allocs/op", "loads", "readthrough's ops/s by theirs",
	}}
	micros := func(d func(measure.Sample) float64, name string) string {
		return fmt.Sprintf("%.1f", c.Median(name, d)/1e3)
	}
	for _, name := range c.Names {
		faster := "-"
		if name != peers.Readthrough {
			faster = fmt.Sprintf("%.2fx", c.Ratio(peers.Readthrough, name, measure.Sample.PerSecond))
		}
		t.Add(name,
			fmt.Sprintf("%.0f", c.Median(name, measure.Sample.PerSecond)),
			fmt.Sprintf("%.0f", c.Median(name, measure.Sample.NsPerOp)),
			micros(func(s measure.Sample) float64 { return float64(s.P50) }, name),
			micros(func(s measure.Sample) float64 { return float64(s.P99) }, name),
			fmt.Sprintf("%.0f", c.Median(name, func(s measure.Sample) float64 { return s.Bytes })),
			fmt.Sprintf("%.1f", c.Median(name, mallocs)),
			fmt.Sprint(c.Loads(name)),
			faster)
	}
	return t
}

// losses says which peers are faster than this library.
func losses(what string, c *measure.Contest) []string {
	var lost []string
	for _, name := range c.Names {
		ratio := c.Ratio(name, peers.Readthrough, measure.Sample.PerSecond)
		if name != peers.Readthrough && ratio > 1 {
			lost = append(lost, fmt.Sprintf("%s: %s does %.2f times as many in a second", what, name, ratio))
		}
	}
	return lost
}

func hitChart(levels []level) Chart {
	chart := Chart{File: "hits.svg", Title: "Hits of a struct of ten fields", XLabel: "goroutines", YLabel: "hits per second"}
	for _, l := range levels {
		chart.Groups = append(chart.Groups, fmt.Sprint(l.goroutines))
	}
	for _, name := range levels[0].Names {
		var perSecond []float64
		for _, l := range levels {
			perSecond = append(perSecond, l.Median(name, measure.Sample.PerSecond))
		}
		chart.Series = append(chart.Series, Series{Name: name, Y: perSecond})
	}
	return chart
}
