package lease

// Step is what a flight does next.
type Step uint8

const (
	Acquire Step = iota // ask for the lease and the entry
	Wait                // another process loads: pause, then Acquire again
	Load                // call the loader
	Fill                // store the value, if the lease is still held
	Release             // give the lease back, and learn whether it was still held
	Finish              // the result is there
)

// Audience is who may be given the result of a flight.
type Audience uint8

const (
	// BeforeLoad is those who had joined before the load began: whatever was
	// invalidated before they came was so before the load.
	BeforeLoad Audience = iota
	// BeforeSend is those who had joined before the decisive command was sent:
	// the acquire that found the entry, or the fill or release that proves that
	// nothing was invalidated since the lease was acquired.
	BeforeSend
)

// Course decides the steps of one flight: what comes next, and who may share what
// comes of it. It does nothing itself, so that a model checker can drive the very
// code that the cache runs.
type Course struct {
	Step     Step
	Held     bool     // the flight has acquired a lease that it has not given back
	Down     bool     // Redis failed: it is not asked again
	Audience Audience // at Finish
}

// Alone is the course of a flight that does not ask Redis at all.
func Alone() Course { return Course{Step: Load, Down: true} }

// OnAcquire goes on after an Acquire: usable says that it found an entry to serve.
func (c *Course) OnAcquire(held, usable, failed bool) {
	switch {
	case failed:
		c.Down, c.Step = true, Load
	case usable:
		// A lease that came along is given back after the callers have the entry.
		c.Held, c.Audience, c.Step = held, BeforeSend, Finish
	case held:
		c.Held, c.Step = true, Load
	default:
		c.Step = Wait
	}
}

// OnWait goes on after a Wait. A flight that has waited for too long loads for
// itself, and stores nothing.
func (c *Course) OnWait(over bool) {
	if over {
		c.Step = Load
		return
	}
	c.Step = Acquire
}

// OnLoad goes on after a Load: storable says that there is something to fill.
func (c *Course) OnLoad(storable bool) {
	switch {
	case !c.Held:
		c.Audience, c.Step = BeforeLoad, Finish
	case storable:
		c.Step = Fill
	default:
		c.Step = Release
	}
}

// OnSettle goes on after a Fill or a Release: kept says that Redis found the lease
// still held.
func (c *Course) OnSettle(kept, failed bool) {
	c.Down = c.Down || failed
	c.Held = failed // whatever Redis made of the command, the lease may still be there
	c.Audience = BeforeLoad
	if kept {
		c.Audience = BeforeSend
	}
	c.Step = Finish
}
