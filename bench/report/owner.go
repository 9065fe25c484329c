package main

import (
	"fmt"
	"io"
	"os"
)

// owner owns the servers and processes of a workload: what a test is to redistest.
type owner struct {
	name     string
	log      io.Writer
	cleanups []func()
}

// fatal is what an owner panics with when a workload cannot go on.
type fatal string

func (f fatal) Error() string { return string(f) }

func (o *owner) Helper()          {}
func (o *owner) Name() string     { return o.name }
func (o *owner) Cleanup(f func()) { o.cleanups = append(o.cleanups, f) }

func (o *owner) TempDir() string {
	dir, err := os.MkdirTemp("", "readthrough-bench-")
	if err != nil {
		o.Fatalf("temporary folder: %v", err)
	}
	o.Cleanup(func() { _ = os.RemoveAll(dir) }) // the system clears what is left
	return dir
}

func (o *owner) Logf(format string, args ...any)   { fmt.Fprintf(o.log, format+"\n", args...) }
func (o *owner) Skipf(format string, args ...any)  { panic(fatal(fmt.Sprintf(format, args...))) }
func (o *owner) Fatalf(format string, args ...any) { panic(fatal(fmt.Sprintf(format, args...))) }

// release does the cleanups, the last one first. A cleanup that fails keeps none of
// the others from running.
func (o *owner) release() {
	for len(o.cleanups) > 0 {
		last := len(o.cleanups) - 1
		cleanup := o.cleanups[last]
		o.cleanups = o.cleanups[:last]
		func() {
			defer func() {
				if p := recover(); p != nil {
					o.Logf("%s: cleanup: %v", o.name, p)
				}
			}()
			cleanup()
		}()
	}
}
