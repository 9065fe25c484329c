package redistest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.Register("echo", echo)
	redistest.Register("own a paused server", ownPausedServer)
	redistest.RunIfChild()
	redistest.Parallel(8)
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}

const (
	soon  = 10 * time.Second // far more than what is waited for takes, even on a busy machine
	brief = 100 * time.Millisecond
)

// recorder is a TB that is no test: Fatalf and Skipf are noted, and cleanups run when end is called.
type recorder struct {
	dir string

	mu       sync.Mutex
	cleanups []func()
	skipped  string
	failed   string
	logged   []string
}

// record runs f as a test would be run, cleanups included.
func record(t testing.TB, f func(redistest.TB)) *recorder {
	r := &recorder{dir: t.TempDir()}
	done := make(chan struct{})
	go func() { // ends with f, or when f fails or skips
		defer close(done)
		defer r.end()
		f(r)
	}()
	<-done
	return r
}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return "recorder" }
func (r *recorder) TempDir() string {
	dir, err := os.MkdirTemp(r.dir, "")
	if err != nil {
		panic(err)
	}
	return dir
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logged = append(r.logged, fmt.Sprintf(format, args...))
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// echo answers every line: with the environment's GREETING and the line, or as the line says.
func echo() int {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch line := lines.Text(); line {
		case "fail":
			return 7
		case "panic":
			panic("as told")
		case "complain":
			fmt.Fprint(os.Stderr, "first\nsecond")
		case "half":
			fmt.Print("ha")
		default:
			fmt.Println(os.Getenv("GREETING"), line)
		}
	}
	return 0
}

// ownPausedServer starts a server, pauses it, says its pid and waits for a line to panic at.
func ownPausedServer() int {
	tb := &recorder{dir: os.Getenv("DIR")}
	s := redistest.Start(tb)
	pid := s.PID()
	s.Pause()
	fmt.Println(pid)
	bufio.NewScanner(os.Stdin).Scan()
	panic("the test process dies")
}

// once is a client's setting: a command fails at its first error, within a second.
func once(o *redis.Options) {
	o.MaxRetries = -1
	o.DialerRetries = 1
	o.ReadTimeout = time.Second
	o.DialTimeout = time.Second
}

// within is a context for one command that must be answered.
func within(t testing.TB, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// needRedis skips, or fails, a test that starts its servers for a recorder, where there are none.
func needRedis(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		redistest.Start(t)
	}
}

// requireGone fails the test unless there is no such process, not even one that nobody has waited for yet.
func requireGone(t testing.TB, pid int) {
	t.Helper()
	process, err := os.FindProcess(pid)
	if err == nil {
		err = process.Signal(syscall.Signal(0))
	}
	require.Truef(t, errors.Is(err, os.ErrProcessDone), "process %d is still there (%v)", pid, err)
}

func (r *recorder) log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.logged, "\n")
}
