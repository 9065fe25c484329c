package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/readthrough-go/readthrough/bench/workload"
)

// page is benchmarks.md and its charts.
type page struct {
	args     []string
	began    time.Time
	took     time.Duration
	machine  machine
	sections []*workload.Section
}

func newPage(args []string, began time.Time, sections []*workload.Section) (*page, error) {
	m, err := describeMachine()
	return &page{args, began, time.Since(began), m, sections}, err
}

func (p *page) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range p.sections {
		for _, c := range s.Charts {
			if err := drawChart(c, filepath.Join(dir, c.File)); err != nil {
				return fmt.Errorf("draw %s: %w", c.File, err)
			}
		}
	}
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), p.markdown(), 0o644)
}

func (p *page) markdown() []byte {
	var b bytes.Buffer
	b.WriteString("# Benchmarks\n\n")
	fmt.Fprintf(&b, "Written by `%s` on %s, in %s. Do not edit: run it again.\n\n",
		strings.Join(append([]string{"go run -C bench ./report"}, p.args...), " "),
		p.began.Format("2 January 2006"), p.took.Round(time.Second))
	b.WriteString("The contenders take turns on one redis-server: in each round each of them runs for a slice of time. Numbers are " +
		"medians over the rounds. Ratios are taken within each round, and their median is given.\n")
	p.machine.writeTo(&b)
	p.writeTargets(&b)
	p.writeLosses(&b)
	for _, s := range p.sections {
		writeSection(&b, s)
	}
	return b.Bytes()
}

func (p *page) writeTargets(b *bytes.Buffer) {
	t := workload.Table{Columns: []string{"target", "goal", "measured", "holds"}}
	for _, s := range p.sections {
		for _, target := range s.Targets {
			holds := "yes"
			if !target.Holds {
				holds = "**no**"
			}
			t.Add(target.What, target.Goal, target.Measured, holds)
		}
	}
	if len(t.Rows) > 0 {
		b.WriteString("\n## Targets\n\n")
		writeTable(b, t)
	}
}

func (p *page) writeLosses(b *bytes.Buffer) {
	var losses []string
	for _, s := range p.sections {
		losses = append(losses, s.Losses...)
	}
	b.WriteString("\n## Where this library loses\n\n")
	if len(losses) == 0 {
		b.WriteString("Nowhere in this run.\n")
	}
	for _, loss := range losses {
		fmt.Fprintf(b, "- %s.\n", loss)
	}
}

func writeSection(b *bytes.Buffer, s *workload.Section) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", s.Title, s.Text)
	for _, c := range s.Charts {
		fmt.Fprintf(b, "\n![%s](%s)\n", c.Title, c.File)
	}
	for _, t := range s.Tables {
		if t.Caption != "" {
			fmt.Fprintf(b, "\n%s:\n", t.Caption)
		}
		b.WriteString("\n")
		writeTable(b, t)
	}
}

func writeTable(b *bytes.Buffer, t workload.Table) {
	writeRow(b, t.Columns)
	rule := make([]string, len(t.Columns))
	for i := range rule {
		rule[i] = "---"
		if i > 0 {
			rule[i] = "---:"
		}
	}
	writeRow(b, rule)
	for _, row := range t.Rows {
		writeRow(b, row)
	}
}

func writeRow(b *bytes.Buffer, cells []string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}
