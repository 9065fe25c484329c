package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
)

// machine is where the numbers come from.
type machine struct {
	cpu, system, redis string
	cpus               int
	modules            []string
}

// measured are the modules whose versions matter.
var measured = []string{
	"github.com/redis/go-redis/v9", "github.com/vmihailenco/msgpack/v5", "github.com/go-redis/cache/v9",
	"github.com/dtm-labs/rockscache", "github.com/redis/rueidis",
}

func describeMachine() (machine, error) {
	m := machine{cpus: runtime.NumCPU(), cpu: runtime.GOARCH, system: runtime.GOOS}
	version, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		return m, fmt.Errorf("redis-server --version: %w", err)
	}
	m.redis = fieldAfter(string(version), "v=")
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil { // on Linux; elsewhere the architecture must do
		m.cpu = cpuModel(string(text))
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.system += " " + strings.TrimSpace(string(text))
	}
	build, _ := debug.ReadBuildInfo() // nil: no module is named
	for _, name := range measured {
		for _, dep := range build.Deps {
			if dep.Path == name {
				m.modules = append(m.modules, strings.TrimPrefix(name, "github.com/")+" "+dep.Version)
			}
		}
	}
	return m, nil
}

// cpuModel finds the model in /proc/cpuinfo, whose fields depend on the architecture.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

// fieldAfter is the word in text that begins with prefix, without it.
func fieldAfter(text, prefix string) string {
	for _, word := range strings.Fields(text) {
		if value, ok := strings.CutPrefix(word, prefix); ok {
			return value
		}
	}
	return "unknown"
}

func (m machine) writeTo(b *bytes.Buffer) {
	fmt.Fprintf(b, "\nMachine: %d CPUs (%s), %s, which the Redis servers share with the readers. redis-server %s, %s, %s.\n",
		m.cpus, m.cpu, m.system, m.redis, strings.TrimPrefix(runtime.Version(), "go version "), strings.Join(m.modules, ", "))
}
