//go:build linux

package coherence

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

var (
	coherenceHistories = flag.Int("coherence.histories", 100, "histories that the linearizability check runs, 500 operations each")
	coherenceMix       = flag.String("coherence.mix", "", "the mixes of these histories whose name begins so")
	coherenceSeed      = flag.Uint64("coherence.seed", rand.Uint64(), "seed of what the clients of these histories do; not of when")
)

// mix is what the clients of a history do, and with what settings.
type mix struct {
	name  string
	opts  []readthrough.CacheOption
	also  map[opKind]int                // besides usualOps, in the same measure
	shows func(readthrough.Stats) int64 // what the mix is for: it must have happened
}

// usualOps is how often, of about a hundred, a client does something in every mix.
var usualOps = map[opKind]int{opGet: 70, opUpdate: 12, opSetNew: 5, opInvalidateAgain: 3, opSabotage: 10}

// mixes are taken in turn by the histories of a run.
var mixes = []mix{
	{name: "plain", shows: countRefusedFills},
	{name: "stale", opts: mixOptions(shortTTL, readthrough.WithStale(time.Minute)), shows: countRefreshes},
	{name: "patient", opts: mixOptions(shortTTL, readthrough.WithStale(time.Minute), readthrough.WithPatience(2*time.Millisecond)), shows: countStaleHits},
	{name: "early refresh", opts: mixOptions(readthrough.WithEarlyRefresh(40)), shows: countRefreshes},
	{name: "many", also: map[opKind]int{opGetMany: 40}, shows: countCollapsed},
	{name: "gathered", opts: mixOptions(readthrough.WithGather(time.Millisecond, 8)), also: map[opKind]int{opGetMany: 20}, shows: countCollapsed},
	{name: "expire", opts: mixOptions(readthrough.WithStale(time.Minute)), also: map[opKind]int{opExpire: 20}, shows: countRefreshes},
	{name: "refresh", also: map[opKind]int{opRefresh: 20}, shows: countRefusedFills},
	{name: "update", also: map[opKind]int{opUpdateLeased: 30, opGetMany: 10}, shows: countUnstored},
	{name: "no waiting", opts: mixOptions(readthrough.WithLeaseWait(0)), shows: countUnstored},
	{name: "failover safety", opts: mixOptions(readthrough.WithFailoverSafety(), readthrough.WithStale(time.Minute)),
		also: map[opKind]int{opGetMany: 10, opExpire: 10, opRefresh: 10, opUpdateLeased: 10}, shows: countRefusedFills},
	{name: "local", opts: localCopies(), also: map[opKind]int{opUpdateLeased: 5}, shows: countLocalHits},
	{name: "local and all else", opts: localCopies(shortTTL, readthrough.WithStale(time.Minute), readthrough.WithEarlyRefresh(10)),
		also: map[opKind]int{opGetMany: 20, opExpire: 10, opRefresh: 10}, shows: countLocalHits},
}

// localCopies returns the options of processes that keep copies. A stop can outlast their lease.
func localCopies(opts ...readthrough.CacheOption) []readthrough.CacheOption {
	return append(mixOptions(readthrough.WithTTL(time.Minute), readthrough.WithLocal(1<<20), readthrough.WithLocalLease(150*time.Millisecond)), opts...)
}

func countLocalHits(s readthrough.Stats) int64 { return s.LocalHits }

func mixOptions(opts ...readthrough.CacheOption) []readthrough.CacheOption { return opts }

var shortTTL = readthrough.WithTTL(2 * time.Millisecond)

func countRefusedFills(s readthrough.Stats) int64 { return s.RefusedFills }

func countRefreshes(s readthrough.Stats) int64 { return s.Refreshes }

func countStaleHits(s readthrough.Stats) int64 { return s.StaleHits }

func countCollapsed(s readthrough.Stats) int64 { return s.Collapsed }

// countUnstored counts loads without the lease, and those under a write lease.
func countUnstored(s readthrough.Stats) int64 { return s.Loads - s.Fills - s.RefusedFills }

// mixesToRun returns the mixes of -coherence.mix.
func mixesToRun() []mix {
	return slices.DeleteFunc(slices.Clone(mixes), func(m mix) bool { return !strings.HasPrefix(m.name, *coherenceMix) })
}

func mixNamed(name string) mix {
	for _, m := range mixes {
		if m.name == name {
			return m
		}
	}
	panic("no mix " + name)
}

// opKinds is all that can be picked, in an order that a seed can rely on.
var opKinds = []opKind{opGet, opUpdate, opSetNew, opInvalidateAgain, opSabotage, opGetMany, opRefresh, opExpire, opUpdateLeased}

func (m *mix) pick(rng *rand.Rand) opKind {
	total := 0
	for _, a := range opKinds {
		total += usualOps[a] + m.also[a]
	}
	n := rng.IntN(total)
	for _, a := range opKinds {
		if n -= usualOps[a] + m.also[a]; n < 0 {
			return a
		}
	}
	panic("not reached")
}

const (
	coherenceProcesses = 4
	// historiesAtOnce run side by side, on keys of their own, to keep the machine busy.
	historiesAtOnce = 4
	// longestStop is several lease TTLs, the shortest is about one. Some are six times as long: longer
	// than the lease of copies.
	shortestStop, longestStop = 8 * time.Millisecond, 40 * time.Millisecond
	// stuckAfter is how long nothing may happen.
	stuckAfter = 2 * time.Minute
)

// historyDriver runs histories in its processes and has each checked. All of its fields are the
// test's goroutine's.
type historyDriver struct {
	t        *testing.T
	mixes    []mix
	members  []*redistest.Proc
	messages chan memberMessage
	wake     chan int
	verdicts chan historyVerdict

	parts    map[int][]memberReport // of the histories under way
	checking int
	stops    int
	stats    map[string]*readthrough.Stats // by mix
	batches  int64
	lost     int64 // leases
	counts   map[opKind]int
	violated bool
}

// memberMessage is what a process reported, or that it will report no more.
type memberMessage struct {
	from int
	memberReport
	err error
}

// historyVerdict is what the check made of a history.
type historyVerdict struct {
	history int
	key     int
	result  porcupine.CheckResult
	shown   []historyOp // of the key, if the result is not Ok
}

// TestHistories_AreCoherent is the check of the first promise: what several processes saw of the
// cache while they read and wrote, and were stopped in the middle of it, can be explained by the
// model.
func TestHistories_AreCoherent(t *testing.T) {
	t.Parallel()
	histories := *coherenceHistories
	if testing.Short() {
		histories = min(histories, len(mixes))
	}
	d := newDriver(t)
	for next := 0; next < histories && !d.violated || len(d.parts)+d.checking > 0; {
		for ; next < histories && !d.violated && len(d.parts)+d.checking < historiesAtOnce; next++ {
			d.begin(next)
		}
		d.handleNext()
	}
	if d.violated {
		return
	}
	d.requireExercised(histories)
}

func newDriver(t *testing.T) *historyDriver {
	cache, database := redistest.Start(t), redistest.Start(t)
	d := &historyDriver{
		t: t, mixes: mixesToRun(), messages: make(chan memberMessage, 64), wake: make(chan int, coherenceProcesses), verdicts: make(chan historyVerdict, historiesAtOnce),
		parts: make(map[int][]memberReport), stats: make(map[string]*readthrough.Stats), counts: make(map[opKind]int),
	}
	for i := range coherenceProcesses {
		p := redistest.Process(t, coherenceEntry, "CACHE="+cache.Addr(), "DATABASE="+database.Addr())
		d.members = append(d.members, p)
		listening := make(chan struct{})
		go func() { // ends with the process's output, which the Cleanup below ends
			defer close(listening)
			d.listen(i, p)
		}()
		t.Cleanup(func() {
			p.Kill()
			<-listening
		})
	}
	return d
}

// listen passes on what a process reports.
func (d *historyDriver) listen(from int, p *redistest.Proc) {
	for {
		line, err := p.ReadLine(time.Hour)
		m := memberMessage{from: from, err: err}
		if err == nil {
			m.err = json.Unmarshal([]byte(line), &m.memberReport)
		}
		select {
		case d.messages <- m:
		case <-d.t.Context().Done(): // nobody handles messages any more
		}
		if err != nil {
			return
		}
	}
}

func (d *historyDriver) mixOf(history int) string { return d.mixes[history%len(d.mixes)].name }

func (d *historyDriver) begin(history int) {
	d.parts[history] = make([]memberReport, 0, coherenceProcesses)
	for i := range d.members {
		d.tell(i, memberOrder{History: history, Mix: d.mixOf(history), Process: i, Seed: *coherenceSeed + uint64(history)})
	}
}

func (d *historyDriver) tell(member int, o memberOrder) {
	require.NoError(d.t, json.NewEncoder(d.members[member].Stdin).Encode(o))
}

func (d *historyDriver) handleNext() {
	stuck := time.NewTimer(stuckAfter)
	defer stuck.Stop()
	select {
	case m := <-d.messages:
		require.NoError(d.t, m.err, "process %d", m.from)
		if m.Held {
			d.stop(m.from)
			return
		}
		d.gather(m.memberReport)
	case member := <-d.wake:
		d.members[member].Resume()
		d.tell(member, memberOrder{GoOn: true})
	case v := <-d.verdicts:
		d.checking--
		d.judge(v)
	case <-stuck.C:
		d.t.Fatalf("nothing has happened for %s", stuckAfter)
	}
}

// stop stops a process that holds a lease, for about as long as it would last or longer.
func (d *historyDriver) stop(member int) {
	d.members[member].Pause()
	d.stops++
	limit := longestStop
	if d.stops%10 == 0 {
		limit = 6 * longestStop
	}
	time.AfterFunc(shortestStop+rand.N(limit-shortestStop), func() { d.wake <- member })
}

// gather takes a process's part in a history. When it is the last, the history is checked.
func (d *historyDriver) gather(r memberReport) {
	require.Empty(d.t, r.Failed, "history %d, %s", r.History, d.mixOf(r.History))
	d.count(r)
	d.parts[r.History] = append(d.parts[r.History], r)
	if len(d.parts[r.History]) < coherenceProcesses {
		return
	}
	var keys [coherenceKeys][]historyOp
	for _, part := range d.parts[r.History] {
		for _, o := range part.Operations {
			keys[o.Key] = append(keys[o.Key], o)
		}
	}
	delete(d.parts, r.History)
	d.checking++
	go func() { // ends with its checks, which are bounded, and is waited for
		v := historyVerdict{history: r.History, result: porcupine.Ok}
		for key, ops := range keys {
			if result, shown := checkHistory(ops); result != porcupine.Ok {
				v = historyVerdict{r.History, key, result, shown}
				break
			}
		}
		d.verdicts <- v
	}()
}

func (d *historyDriver) count(r memberReport) {
	mix := d.mixOf(r.History)
	if d.stats[mix] == nil {
		d.stats[mix] = new(readthrough.Stats)
	}
	addStats(d.stats[mix], r.Stats)
	d.batches += r.Batches
	d.lost += r.LostLeases
	for _, o := range r.Operations {
		d.counts[o.Action]++
	}
}

func (d *historyDriver) judge(v historyVerdict) {
	if v.result == porcupine.Ok {
		return
	}
	what := fmt.Sprintf("history %d (%s, -coherence.seed=%d), key %d", v.history, d.mixOf(v.history), *coherenceSeed, v.key)
	if v.result == porcupine.Unknown {
		d.t.Errorf("not decided in %s: %s", checkLimit, what)
		return
	}
	d.t.Errorf("%s: no order of these operations explains them: %s\n%s", violation, what, historyText(v.shown))
	if !d.violated { // one picture is enough
		visualize(d.t, fmt.Sprintf("history-%d-key-%d", v.history, v.key), v.shown)
	}
	d.violated = true
}

// violation is what the outputs of the mutants are searched for.
const violation = "VIOLATION"

// requireExercised says what ran, and fails if the check has checked next to nothing.
func (d *historyDriver) requireExercised(histories int) {
	total := 0
	for _, n := range d.counts {
		total += n
	}
	d.t.Logf("%d histories, %d operations %v, %d stops of a process in a load, %d lost leases, %d batch loads, seed %d",
		histories, total, d.counts, d.stops, d.lost, d.batches, *coherenceSeed)
	var sum readthrough.Stats
	for _, m := range d.mixes[:min(histories, len(d.mixes))] {
		s := *d.stats[m.name]
		d.t.Logf("%-14s %s", m.name, statsLine(s))
		require.Positive(d.t, m.shows(s), "%s", m.name)
		addStats(&sum, s)
	}
	require.GreaterOrEqual(d.t, total, histories*coherenceProcesses*coherenceClients*operationsEach)
	for what, n := range map[string]int64{
		"stops": int64(d.stops), "lost leases": d.lost, "hits": sum.Hits, "loads": sum.Loads, "fills": sum.Fills, "refused fills": sum.RefusedFills,
		"waits for another process": sum.Shared, "waits for another caller": sum.Collapsed, "invalidations": sum.Invalidations,
	} {
		require.Positive(d.t, n, what)
	}
	require.Zero(d.t, sum.RedisErrors, "nothing was to go wrong between the processes and Redis")
	require.Zero(d.t, sum.LoadErrors)
}

// addStats adds each count of s to sum.
func addStats(sum *readthrough.Stats, s readthrough.Stats) {
	to, from := reflect.ValueOf(sum).Elem(), reflect.ValueOf(s)
	for i := range to.NumField() {
		to.Field(i).SetInt(to.Field(i).Int() + from.Field(i).Int())
	}
}

// statsLine returns the counts that are not zero.
func statsLine(s readthrough.Stats) string {
	var line strings.Builder
	for i, v := 0, reflect.ValueOf(s); i < v.NumField(); i++ {
		if n := v.Field(i).Int(); n != 0 {
			fmt.Fprintf(&line, " %s %d", v.Type().Field(i).Name, n)
		}
	}
	return line.String()
}
