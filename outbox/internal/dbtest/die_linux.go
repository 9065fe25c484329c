package dbtest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel end the command when the thread that starts it ends. SIGQUIT, so that a
// server can end its own children.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT }
