//go:build race

package lease_test

// The search runs on one goroutine, so the race detector has nothing to find in it
// and makes it several times slower.
const underRace = true
