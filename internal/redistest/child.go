package redistest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// signalLimit bounds the wait for a signal to take effect.
const signalLimit = 10 * time.Second

// child is a process that this one started and waits for.
type child struct {
	process *os.Process
	exited  chan struct{} // closed when the process has been waited for
	err     error         // what Wait said; to be read after exited
}

// startChild starts cmd so that it dies with this process, however that ends.
func startChild(cmd *exec.Cmd) (*child, error) {
	dieWithParent(cmd)
	c := &child{exited: make(chan struct{})}
	started := make(chan error)

	// The kernel signals the child when the thread that forked it ends, not the process. So one goroutine keeps one
	// thread from the fork until the child is gone. It ends when the child does, at the latest by the Cleanup that
	// kills it; there is nothing else to stop, and nothing for goleak to find.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		c.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		close(c.exited)
	}()

	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) alive() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// pause returns when every thread of the process has stopped.
func (c *child) pause() error { return c.signalUntil(stopProcess, true) }

// resume returns when the process may run again.
func (c *child) resume() error { return c.signalUntil(continueProcess, false) }

func (c *child) signalUntil(send func(*os.Process) error, stopped bool) error {
	if err := send(c.process); err != nil {
		return err
	}
	return poll(signalLimit, func() error {
		now, err := isStopped(c.process.Pid)
		switch {
		case !c.alive():
			return fmt.Errorf("%w: the process has ended", errHopeless)
		case err != nil:
			return err
		case now != stopped:
			return fmt.Errorf("stopped is %t", now)
		}
		return nil
	})
}

// kill ends the process, stopped or not, and returns when it is gone.
func (c *child) kill() error {
	if err := c.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.exited:
		return nil
	case <-time.After(signalLimit):
		return fmt.Errorf("process %d is still there %s after SIGKILL", c.process.Pid, signalLimit)
	}
}
