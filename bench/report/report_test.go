package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/bench/workload"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	workload.RegisterChildren()
	redistest.RunIfChild()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}

func TestReportWritesPageAndCharts(t *testing.T) {
	redistest.Start(t) // skips where there is no redis-server
	dir := filepath.Join(t.TempDir(), "docs")
	var progress strings.Builder
	require.NoError(t, run([]string{"-quick", "-only", "stampede,freshness", "-out", dir}, &progress))

	text, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	require.NoError(t, err)
	for _, part := range []string{"go run -C bench ./report -quick -only stampede,freshness", "## Targets", "## Stampede", "## A hot key", "redis-server 7", "go-redis/v9 v9."} {
		assert.Contains(t, string(text), part)
	}
	for _, chart := range []string{"stampede.svg", "freshness.svg"} {
		assert.Contains(t, string(text), "("+chart+")")
		svg, err := os.ReadFile(filepath.Join(dir, chart))
		require.NoError(t, err)
		assert.Contains(t, string(svg), "</svg>")
	}
	assert.Contains(t, progress.String(), "freshness")
}

func TestUnknownWorkloadIsAnError(t *testing.T) {
	require.ErrorContains(t, run([]string{"-only", "nonsense"}, io.Discard), `"nonsense"`)
}

func TestWorkloadThatCannotGoOnStopsWhatItStarted(t *testing.T) {
	var order []string
	s, err := runOne(workload.Workload{Name: "w", Run: func(e *workload.Env) (*workload.Section, error) {
		e.Cleanup(func() { order = append(order, "server") })
		e.Cleanup(func() { order = append(order, "client"); e.Fatalf("a cleanup fails") })
		e.Fatalf("no %s", "port")
		return nil, nil
	}}, workload.Quick, io.Discard)
	require.EqualError(t, err, "no port")
	assert.Nil(t, s)
	assert.Equal(t, []string{"client", "server"}, order, "the last to come is the first to go")
}

func TestPageSaysWhatDoesNotHold(t *testing.T) {
	p := page{args: nil, began: time.Now(), sections: []*workload.Section{{
		Title: "T", Text: "text", Losses: []string{"a peer is faster"},
		Targets: []workload.Target{{What: "good", Goal: "1", Measured: "1", Holds: true}, {What: "bad", Goal: "1", Measured: "2"}},
		Tables:  []workload.Table{{Caption: "c", Columns: []string{"", "n"}, Rows: [][]string{{"x", "7"}}}},
	}}}
	text := string(p.markdown())
	assert.Contains(t, text, "| good | 1 | 1 | yes |")
	assert.Contains(t, text, "| bad | 1 | 2 | **no** |")
	assert.Contains(t, text, "- a peer is faster.")
	assert.Contains(t, text, "\nc:\n\n|  | n |\n| --- | ---: |\n| x | 7 |\n")
}

func TestLogarithmicAxisHasPowersOfTen(t *testing.T) {
	c := workload.Chart{LogY: true}
	ticks := decades{}.Ticks(0, height(c, 2000))
	require.Len(t, ticks, 4)
	for i, label := range []string{"1", "10", "100", "1000"} {
		assert.Equal(t, label, ticks[i].Label)
	}
	assert.InDelta(t, height(c, 100), ticks[2].Value, 1e-9)
	assert.Zero(t, height(c, 0), "nothing is no bar")
	assert.Equal(t, 7.0, height(workload.Chart{}, 7))
}
