//go:build !linux

package redistest

import (
	"bytes"
	"os/exec"
	"strconv"
)

// dieWithParent does nothing here: only Linux kills a process with its parent. Elsewhere Cleanup is all there is.
func dieWithParent(*exec.Cmd) {}

// isStopped asks ps, which every Unix has.
func isStopped(pid int) (bool, error) {
	state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return false, err
	}
	return bytes.HasPrefix(bytes.TrimSpace(state), []byte("T")), nil
}
