//go:build race

package lease_test

// underRace leaves the larger searches out: they run on one goroutine, where the
// race detector has nothing to find, and it makes them several times slower.
const underRace = true
