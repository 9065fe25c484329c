// Package workload has what is measured: each workload is a function that runs this
// library and its peers against real Redis servers and returns a section of the
// report. The first ones are about speed, the later ones about what a cache is for.
package workload

import (
	"fmt"
	"time"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// Workload is one that can be chosen by its name.
type Workload struct {
	Name string
	Run  func(*Env) (*Section, error)
}

// All are the workloads in the order of the report.
var All = []Workload{
	{"hit", Hit},
	{"large", Large},
	{"miss", Miss},
	{"stampede", Stampede},
	{"hung", Hung},
	{"resident", Resident},
	{"lostrace", LostRace},
	{"freshness", Freshness},
	{"batch", Batch},
	{"profile", Profile},
}

// Env is where a workload runs.
type Env struct {
	redistest.TB // owns the servers and processes
	Scale
}

// Scale says how thoroughly a workload measures.
type Scale struct {
	Rounds      int             // in which the contenders take turns
	Slice       time.Duration   // for which each runs in a round
	Keys        int             // that the readers of hits choose from
	Resident    []int           // numbers of keys in Redis
	Crowd       int             // goroutines of each process in a stampede
	Stampedes   int             // cold keys, one after the other
	Hang        time.Duration   // for which the server is stopped
	TTLs        []time.Duration // of a hot key
	Lifetimes   int             // for which it is read
	LoadTime    time.Duration   // of the loader there
	BatchKeys   int             // of one call
	ClusterKeys int             // of one call to a cluster
	Profile     time.Duration   // for which each is profiled
}

// Full is the scale of the published numbers; Quick shows in seconds that all works.
var (
	Full = Scale{
		Rounds: 9, Slice: 150 * time.Millisecond, Keys: 10_000, Resident: []int{1e3, 1e5, 1e6},
		Crowd: 1000, Stampedes: 5, Hang: 2 * time.Second,
		TTLs: []time.Duration{time.Second, 8 * time.Second}, Lifetimes: 20, LoadTime: 200 * time.Millisecond,
		BatchKeys: 1000, ClusterKeys: 10_000, Profile: 5 * time.Second,
	}
	Quick = Scale{
		Rounds: 2, Slice: 10 * time.Millisecond, Keys: 100, Resident: []int{100, 1000},
		Crowd: 20, Stampedes: 1, Hang: 600 * time.Millisecond,
		TTLs: []time.Duration{100 * time.Millisecond}, Lifetimes: 4, LoadTime: 20 * time.Millisecond,
		BatchKeys: 100, ClusterKeys: 300, Profile: 500 * time.Millisecond,
	}
)

// Section is what a workload has to say.
type Section struct {
	Title   string
	Text    string // what is measured, and how
	Tables  []Table
	Charts  []Chart
	Targets []Target
	Losses  []string // where a peer is better
}

// Table is a table of the report.
type Table struct {
	Caption string
	Columns []string
	Rows    [][]string
}

// Add adds a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Target is what was promised, beside what was measured.
type Target struct {
	What, Goal, Measured string
	Holds                bool
}

// atLeast and atMost are targets for one number.
func atLeast(what string, goal, measured float64, format string) Target {
	return Target{what, "at least " + fmt.Sprintf(format, goal), fmt.Sprintf(format, measured), measured >= goal}
}

func atMost(what string, goal, measured float64, format string) Target {
	return Target{what, "at most " + fmt.Sprintf(format, goal), fmt.Sprintf(format, measured), measured <= goal}
}

// Chart is a picture of the report: of bars if it has groups, else of points.
type Chart struct {
	File, Title    string
	XLabel, YLabel string
	LogY           bool
	Groups         []string // what the bars stand above, side by side
	Series         []Series
}

// Series are the bars of one colour, or the points.
type Series struct {
	Name string
	X, Y []float64 // of bars: one Y for each group, no X
}

func formatMillis(d time.Duration) string {
	ms := float64(d) / 1e6
	switch {
	case ms < 1:
		return fmt.Sprintf("%.3f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
