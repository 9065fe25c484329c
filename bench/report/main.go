// The report command runs the workloads against Redis servers that it starts itself
// and writes what it has measured, as a page with tables and charts.
//
//	go run -C bench ./report
//	go run -C bench ./report -quick -only hit -out /tmp
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/readthrough-go/readthrough/bench/workload"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func main() {
	workload.RegisterChildren()
	redistest.RunIfChild()
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(args []string, progress io.Writer) error {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "run everything for an instant, to see that it works")
	only := flags.String("only", "", "run only the workloads with these names, separated by commas")
	out := flags.String("out", "../docs", "the folder for benchmarks.md and its charts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	scale := workload.Full
	if *quick {
		scale = workload.Quick
	}
	began := time.Now()
	var sections []*workload.Section
	for _, w := range chosen {
		fmt.Fprintf(progress, "%5.0fs %s\n", time.Since(began).Seconds(), w.Name)
		s, err := runOne(w, scale, progress)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		sections = append(sections, s)
	}
	page, err := newPage(args, began, sections)
	if err != nil {
		return err
	}
	if err := page.write(*out); err != nil {
		return err
	}
	fmt.Fprintf(progress, "%5.0fs done\n", time.Since(began).Seconds())
	return nil
}

// choose returns the workloads with the given names, or all.
func choose(only string) ([]workload.Workload, error) {
	if only == "" {
		return workload.All, nil
	}
	var chosen []workload.Workload
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(workload.All, func(w workload.Workload) bool { return w.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no workload is called %q", name)
		}
		chosen = append(chosen, workload.All[i])
	}
	return chosen, nil
}

// runOne runs a workload and stops whatever it has started.
func runOne(w workload.Workload, scale workload.Scale, progress io.Writer) (s *workload.Section, err error) {
	owner := &owner{name: w.Name, log: progress}
	defer owner.release()
	defer func() {
		if p := recover(); p != nil {
			failure, ok := p.(fatal)
			if !ok {
				panic(p)
			}
			err = failure
		}
	}()
	return w.Run(&workload.Env{TB: owner, Scale: scale})
}
