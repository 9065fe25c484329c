// Package clock is the time by which entries age, refreshes are due and failed loads are
// spared. Whatever waits (timers, budgets, time limits) uses the machine's clock directly.
package clock

import (
	"sync/atomic"
	"time"
)

// Clock is the machine's clock, moved ahead by what Advance was given. The nil Clock is
// the machine's clock itself; only package readthroughtest makes others.
type Clock struct{ ahead atomic.Int64 }

// Now returns the time of c.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

// Until returns how long t is in the future of c.
func (c *Clock) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

// Advance moves c ahead by d.
func (c *Clock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }
