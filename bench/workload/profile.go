package workload

import (
	"bytes"
	"fmt"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// Profile shows on what the processor's time goes when 128 goroutines read hits.
func Profile(e *Env) (*Section, error) {
	const goroutines = 128
	server := redistest.Start(e)
	names := []string{peers.Readthrough, peers.Raw, peers.AutoPipeline}
	cpu := make(map[string]map[string]time.Duration)
	ops := make(map[string]int64)
	for _, name := range names {
		peer, err := peers.All[Book]()[name](server.Addr(), loadBook)
		if err != nil {
			return nil, err
		}
		defer peer.Close() // it has served all its calls: an error would come too late
		op, err := hitOp(peer, keysOf(name, e.Keys))
		if err != nil {
			return nil, err
		}
		var sample measure.Sample
		cpu[name], err = profiled(func() error {
			sample, err = (&contender{op: op}).slice(goroutines, e.Profile)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ops[name] = sample.Ops
	}
	var lost []string
	ours := perHit(sum(cpu[peers.Readthrough]), ops[peers.Readthrough])
	for _, name := range names {
		if theirs := perHit(sum(cpu[name]), ops[name]); theirs < ours {
			lost = append(lost, fmt.Sprintf("CPU of a hit at %d goroutines: %.2f µs with %s, %.2f here", goroutines, theirs, name, ours))
		}
	}
	return &Section{
		Losses: lost,
		Title:  "Where the time of a hit goes",
		Text:   fmt.Sprintf("The process's CPU profile while %d goroutines read hits, without what redis-server uses: microseconds for each hit, and their share.\n\n%s", goroutines, remedies),
		Tables: []Table{profileTable(names, cpu, ops)},
	}, nil
}

// remedies says what was done about what the profiles showed.
const remedies = "" +
	"What was done about the largest shares: *system calls*: callers who come while a pipeline is under way " +
	"leave together with the next. *Scheduler*: the goroutine that has answered a pipeline lets those whom it " +
	"has woken run first, so that they share the next one; its stack is kept for it; the caller on its own of " +
	"a client that keeps deadlines sends in person. *Allocation*: calls are used again, a lone " +
	"GET is one allocation with its arguments, a lookup stays on the stack but for its value, and batches " +
	"decode straight into their results. *msgpack*: decoders are used again and read the reply's own bytes; it " +
	"is what remains, with the allocations that a value is made of. *Check of the bytes*: one walk without " +
	"recursion, by a table of sizes."

func profileTable(names []string, cpu map[string]map[string]time.Duration, ops map[string]int64) Table {
	t := Table{Columns: []string{"CPU, µs a hit"}}
	for _, name := range names {
		t.Columns = append(t.Columns, name, "share")
	}
	total := []string{"all"}
	for _, name := range names {
		total = append(total, fmt.Sprintf("%.2f", perHit(sum(cpu[name]), ops[name])), "")
	}
	for _, g := range append(groups, group{name: others}) {
		row := []string{g.name}
		for _, name := range names {
			spent := cpu[name][g.name]
			row = append(row, fmt.Sprintf("%.2f", perHit(spent, ops[name])),
				fmt.Sprintf("%.0f%%", 100*float64(spent)/float64(max(1, sum(cpu[name])))))
		}
		t.Add(row...)
	}
	t.Add(total...)
	return t
}

func perHit(spent time.Duration, ops int64) float64 { return float64(spent) / 1e3 / float64(ops) }

func sum(cpu map[string]time.Duration) (all time.Duration) {
	for _, spent := range cpu {
		all += spent
	}
	return all
}

// profiled runs f and says on which groups it has spent the processor's time.
func profiled(f func() error) (map[string]time.Duration, error) {
	var raw bytes.Buffer
	if err := pprof.StartCPUProfile(&raw); err != nil {
		return nil, err
	}
	err := f()
	pprof.StopCPUProfile()
	if err != nil {
		return nil, err
	}
	parsed, err := profile.Parse(&raw)
	if err != nil {
		return nil, err
	}
	spent := make(map[string]time.Duration)
	for _, s := range parsed.Sample {
		spent[groupOf(stackOf(s))] += time.Duration(s.Value[len(s.Value)-1]) // nanoseconds, the last value of a CPU profile
	}
	return spent, nil
}

// stackOf is the functions of a sample, the innermost first.
func stackOf(s *profile.Sample) []string {
	var stack []string
	for _, location := range s.Location {
		for _, line := range location.Line {
			stack = append(stack, line.Function.Name)
		}
	}
	return stack
}

// group is a place where time goes.
type group struct {
	name string
	// anywhere are functions that put a stack into the group wherever they are in it:
	// those of the runtime, which others call without meaning it.
	anywhere []string
	// packages put a stack into the group that is the first to be met from its inner end.
	packages []string
}

const others = "the rest"

var groups = []group{
	{name: "system calls, network", anywhere: []string{"internal/runtime/syscall", "syscall.", "runtime.netpoll"}},
	{name: "allocation and garbage collection", anywhere: []string{
		"runtime.mallocgc", "runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcStart",
	}},
	{name: "scheduler: parking and waking goroutines", anywhere: []string{
		"runtime.schedule", "runtime.park_m", "runtime.goready", "runtime.chansend", "runtime.chanrecv", "runtime.selectgo", "runtime.mcall",
		"runtime.semacquire1", "runtime.semrelease1", "runtime.mstart", "runtime.gopreempt_m", "runtime.goschedImpl", "runtime.entersyscall", "runtime.exitsyscall",
	}},
	{name: "msgpack", packages: []string{"github.com/vmihailenco/msgpack/", "github.com/vmihailenco/tagparser/", "reflect."}},
	{name: "go-redis", packages: []string{"github.com/redis/go-redis/"}},
	{name: "readthrough: mux", packages: []string{"github.com/readthrough-go/readthrough/internal/mux."}},
	{name: "readthrough: check of the bytes", packages: []string{
		"github.com/readthrough-go/readthrough/internal/wire/wellformed.", "github.com/readthrough-go/readthrough/internal/wire/entry.",
	}},
	{name: "readthrough: the rest", packages: []string{"github.com/readthrough-go/readthrough.", "github.com/readthrough-go/readthrough/internal/"}},
	{name: "this benchmark", packages: []string{"github.com/readthrough-go/readthrough/bench/"}},
}

// groupOf is the group of a stack, the innermost function first.
func groupOf(stack []string) string {
	for _, g := range groups {
		for _, function := range stack {
			if hasPrefix(function, g.anywhere) {
				return g.name
			}
		}
	}
	for _, function := range stack {
		for _, g := range groups {
			if hasPrefix(function, g.packages) {
				return g.name
			}
		}
	}
	return others
}

func hasPrefix(function string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(function, prefix) {
			return true
		}
	}
	return false
}
