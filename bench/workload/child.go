package workload

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// RegisterChildren registers what the processes of the fleet run. It is called
// before redistest.RunIfChild.
func RegisterChildren() {
	redistest.Register("stampede", child(stampede))
	redistest.Register("freshness", child(freshness))
}

// patience bounds the wait for what a process has to say.
const patience = 5 * time.Minute

// job is what a process of the fleet is told first.
type job struct {
	Process int // from 0
	Addr    string
	Peer    string
	Crowd   int
	Load    time.Duration

	Fresh    string        // one of modes
	TTL      time.Duration //
	Every    time.Duration // between two calls of one process
	Duration time.Duration
}

// conversation is a process's side of what it and its parent say to each other, in
// lines of JSON: a job, then orders and answers.
type conversation struct {
	in  *bufio.Scanner
	out *json.Encoder
}

// hear reads the next line into v; false: there is none.
func (c *conversation) hear(v any) bool {
	return c.in.Scan() && json.Unmarshal(c.in.Bytes(), v) == nil
}

// child makes an entry of a function that does a job and takes part in a conversation.
func child(run func(job, *conversation) error) func() int {
	return func() int {
		c := &conversation{bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)}
		var j job
		if !c.hear(&j) {
			fmt.Fprintln(os.Stderr, "no job")
			return 2
		}
		if err := run(j, c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
}

// fleet is some processes that do the same job.
type fleet []*redistest.Proc

// fleetSize is how many processes share a cache.
const fleetSize = 4

// startFleet starts the processes and returns when all are ready.
func startFleet(e *Env, entry string, j job) (fleet, error) {
	var f fleet
	for i := range fleetSize {
		f = append(f, redistest.Process(e, entry))
		j.Process = i
		if err := tell(f[i], j); err != nil {
			return nil, err
		}
	}
	_, err := answers[string](f)
	return f, err
}

// tell gives all processes an order.
func (f fleet) tell(order any) error {
	for _, p := range f {
		if err := tell(p, order); err != nil {
			return err
		}
	}
	return nil
}

func tell(p *redistest.Proc, what any) error { return json.NewEncoder(p.Stdin).Encode(what) }

// answers hears one answer of each process.
func answers[A any](f fleet) ([]A, error) {
	all := make([]A, len(f))
	for i, p := range f {
		line, err := p.ReadLine(patience)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(line), &all[i]); err != nil {
			return nil, fmt.Errorf("%.80q: %w", line, err)
		}
	}
	return all, nil
}

// dismiss ends the processes.
func (f fleet) dismiss() error {
	for _, p := range f {
		if err := p.Stdin.Close(); err != nil {
			return err
		}
		if err := p.Wait(); err != nil {
			return fmt.Errorf("a process of the fleet: %w", err)
		}
	}
	return nil
}
