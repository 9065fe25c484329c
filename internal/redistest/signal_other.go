//go:build !unix

package redistest

import (
	"errors"
	"os"
)

// Processes can't be stopped here. The package compiles all the same, so that the tests that use it need no build tags.

func stopProcess(*os.Process) error     { return errors.ErrUnsupported }
func continueProcess(*os.Process) error { return errors.ErrUnsupported }
