package redistest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// dieWithParent has the kernel kill the command when the thread that starts it ends. That is SIGKILL, because nothing
// less reaches a stopped process.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// isStopped tells whether every thread of the process is stopped. The first one alone is not enough: on another core a
// second one may run on for a moment, and a test that paused a process relies on it doing nothing more.
func isStopped(pid int) (bool, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended meanwhile
		}
		if err != nil {
			return false, err
		}
		// pid (name) state ...: the name may hold anything, so the state is looked for behind the last parenthesis.
		_, state, _ := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
		if !bytes.HasPrefix(state, []byte("T")) {
			return false, nil
		}
	}
	return len(stats) > 0, nil
}
