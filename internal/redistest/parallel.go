package redistest

import (
	"flag"
	"strconv"
)

// Parallel lets n tests that call t.Parallel run at a time, where the command line has no
// -parallel. The default is the number of CPUs, which is too few for tests that mostly wait: for a
// server, a lease, an election. It is called in TestMain, after [RunIfChild].
func Parallel(n int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return
	}
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err) // not a test binary
	}
}
