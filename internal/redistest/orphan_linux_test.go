package redistest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// A test binary that dies runs no Cleanup. Its servers must go all the same, even a stopped one.
func TestServer_DiesWithTestProcess(t *testing.T) {
	needRedis(t)
	inheritOrphans(t)
	for name, die := range map[string]func(*testing.T, *redistest.Proc){
		"killed": func(_ *testing.T, p *redistest.Proc) { p.Kill() },
		"panicking": func(t *testing.T, p *redistest.Proc) {
			say(t, p, "panic")
			require.Error(t, p.Wait())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := redistest.Process(t, "own a paused server", "DIR="+t.TempDir())
			pid, err := strconv.Atoi(hear(t, p))
			require.NoError(t, err)

			die(t, p)

			var status syscall.WaitStatus
			require.Eventually(t, func() bool {
				ended, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
				return err == nil && ended == pid
			}, soon, brief)
			assert.Equal(t, syscall.SIGKILL, status.Signal())
		})
	}
}

// The kernel ties a death signal to the thread that forked, and a Go program's threads come and go.
func TestProcess_OutlivesThreadThatStartedIt(t *testing.T) {
	t.Parallel()
	var p *redistest.Proc
	tid := onDyingThread(func() { p = redistest.Process(t, "echo") })
	require.Eventually(t, func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
		return errors.Is(err, fs.ErrNotExist)
	}, soon, brief)

	say(t, p, "still here")

	assert.Equal(t, " still here", hear(t, p))
}

// onDyingThread runs f on a thread that ends with it: a goroutine that ends locked takes its thread along.
func onDyingThread(f func()) (tid int) {
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		runtime.LockOSThread()
		if tid = syscall.Gettid(); tid == os.Getpid() { // the main thread never ends: another one, while it is taken
			defer runtime.UnlockOSThread()
			tid = onDyingThread(f)
			return
		}
		f()
	}()
	<-done
	return tid
}

// inheritOrphans makes this process the parent of processes whose parent it started and which has died. So it can wait
// for them, and none is left as a zombie where the first process of a container waits for nobody.
func inheritOrphans(t *testing.T) {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER, which package syscall does not name
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	require.Zero(t, errno)
}
