//go:build race

package faults

// underRace says that the race detector is on, with which everything takes many times longer.
const underRace = true
