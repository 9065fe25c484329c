package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// childEnv names the entry that a child process runs.
const childEnv = "READTHROUGH_TEST_CHILD"

var (
	entriesMu  sync.Mutex
	entries    = make(map[string]func() int)
	childrenOK bool // RunIfChild was called, so that a copy of this process would call it too
)

// Register names a function that [Process] can run in a process of its own. It is called before [RunIfChild], from an
// init function or TestMain. The function's result is the process's exit code.
func Register(entry string, run func() int) {
	entriesMu.Lock()
	defer entriesMu.Unlock()
	if _, taken := entries[entry]; taken {
		panic("redistest: entry " + entry + " registered twice")
	}
	entries[entry] = run
}

// RunIfChild is called first in TestMain, before flags are parsed or goroutines started. In a process that [Process]
// started it runs the registered function and exits; in every other it returns at once.
func RunIfChild() {
	entriesMu.Lock()
	childrenOK = true
	entry, isChild := os.LookupEnv(childEnv)
	run, known := entries[entry]
	entriesMu.Unlock()
	if !isChild {
		return
	}
	_ = os.Unsetenv(childEnv) // what the child starts is no such child
	if !known {
		fmt.Fprintf(os.Stderr, "redistest: no entry %q is registered\n", entry)
		os.Exit(2)
	}
	os.Exit(run())
}

// Proc is another process of the fleet: this binary, running a registered function. Messages to and from it are lines,
// say of JSON. Its standard error goes to the test's log, line by line. It is killed with the test.
type Proc struct {
	// Stdin writes to the process; closing it is the usual way to say that there is nothing more to do.
	Stdin io.WriteCloser

	tb      TB
	entry   string
	child   *child
	stdout  *os.File
	lines   *bufio.Reader
	partial string // the beginning of a line whose end has not come within the limit
}

// Process starts the registered entry in a process of its own. The env ("NAME=value") is added to this process's
// environment.
func Process(tb TB, entry string, env ...string) *Proc {
	tb.Helper()
	entriesMu.Lock()
	_, known := entries[entry]
	ok := childrenOK
	entriesMu.Unlock()
	if !ok { // the copy would run all the tests, and start copies of its own
		tb.Fatalf("redistest: Process needs a TestMain that calls RunIfChild first")
	}
	if !known {
		tb.Fatalf("redistest: no entry %q is registered", entry)
	}
	p, err := startProcess(tb, entry, env)
	if err != nil {
		tb.Fatalf("redistest: start %s: %v", entry, err)
	}
	return p
}

func startProcess(tb TB, entry string, env []string) (*Proc, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Pipes of our own, not those of exec: its Wait closes them, and with them what has not been read yet.
	stdinEnd, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdinEnd.Close() // the process has its own descriptor, like that of stdoutEnd
	stdout, stdoutEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdoutEnd.Close()

	stderr := &lineLog{tb: tb, prefix: entry}
	cmd := exec.Command(self)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdinEnd, stdoutEnd, stderr
	cmd.WaitDelay = 2 * time.Second // a grandchild that keeps stderr open does not keep us waiting
	// A coverage build complains at its exit when it has no folder for its counts, which are not wanted here.
	cmd.Env = slices.Concat([]string{"GOCOVERDIR=" + tb.TempDir()}, os.Environ(), env, []string{childEnv + "=" + entry})
	c, err := startChild(cmd)
	if err != nil {
		return nil, err
	}

	p := &Proc{Stdin: stdin, tb: tb, entry: entry, child: c, stdout: stdout, lines: bufio.NewReader(stdout)}
	tb.Cleanup(func() {
		if err := c.kill(); err != nil {
			tb.Logf("redistest: kill %s: %v", entry, err)
			return
		}
		stderr.flush()
		_ = stdin.Close() // the error would say that the test has closed it
		_ = stdout.Close()
	})
	return p, nil
}

// PID is the process id.
func (p *Proc) PID() int { return p.child.process.Pid }

// ReadLine returns the next line that the process has written to standard output, without its end. The error wraps
// [os.ErrDeadlineExceeded] when there was none within the limit, and [io.EOF] after the last line of a process that
// has ended. A process whose lines nobody reads is held up once it is 64 KiB ahead.
func (p *Proc) ReadLine(limit time.Duration) (string, error) {
	if err := p.stdout.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "", fmt.Errorf("redistest: read from %s: %w", p.entry, err)
	}
	line, err := p.lines.ReadString('\n')
	line = p.partial + line
	p.partial = ""
	switch {
	case err == io.EOF && line != "":
		return line, nil // the last line, without an end
	case err != nil:
		p.partial = line
		return "", fmt.Errorf("redistest: read from %s: %w", p.entry, err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// Wait returns when the process has ended: nil for exit code 0, else an [exec.ExitError].
func (p *Proc) Wait() error {
	<-p.child.exited
	return p.child.err
}

// Pause stops the process with SIGSTOP and returns when all of its threads have stopped.
func (p *Proc) Pause() {
	p.tb.Helper()
	p.must("pause", p.child.pause())
}

// Resume lets a paused process run on.
func (p *Proc) Resume() {
	p.tb.Helper()
	p.must("resume", p.child.resume())
}

// Kill ends the process with SIGKILL, paused or not, and returns when it is gone.
func (p *Proc) Kill() {
	p.tb.Helper()
	p.must("kill", p.child.kill())
}

func (p *Proc) must(operation string, err error) {
	p.tb.Helper()
	if err != nil {
		p.tb.Fatalf("redistest: %s %s: %v", operation, p.entry, err)
	}
}

// lineLog logs what is written to it by lines. It is written to by one goroutine, which ends before child.exited.
type lineLog struct {
	tb     TB
	prefix string
	rest   []byte // of a line without its end yet
}

func (l *lineLog) Write(text []byte) (int, error) {
	l.rest = append(l.rest, text...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(text), nil
		}
		l.tb.Logf("%s: %s", l.prefix, line)
		l.rest = rest
	}
}

// flush logs a last line without an end.
func (l *lineLog) flush() {
	if len(l.rest) > 0 {
		l.tb.Logf("%s: %s", l.prefix, l.rest)
		l.rest = nil
	}
}
