package lease

// Step is what a load does next.
type Step uint8

// The steps of a load, in their order.
const (
	Acquire Step = iota // ask for the lease and the entry
	Wait                // another process loads: pause, then Acquire again
	Load                // call the loader
	Fill                // store the value, if the lease is still held
	Release             // give the lease back, and learn whether it was still held
	Finish              // hand the result out
	Done                // nothing is left to do
)

// Audience is who may be given the result of a load: the join rule.
type Audience uint8

const (
	// BeforeLoad is those who had joined before the load began: whatever was
	// invalidated before they came was so before the load.
	BeforeLoad Audience = iota
	// BeforeSend is those who had joined before the decisive command was sent: the
	// acquire that found the entry, or the fill or release that proves that nothing
	// was invalidated since the lease was acquired.
	BeforeSend
	// Nobody is the audience where there is no result.
	Nobody
)

// Protocol decides the steps of one load: what comes next, and who may share what
// comes of it. It does nothing itself, so that a model checker can drive the very
// code that the cache runs. The zero Protocol begins with an Acquire.
type Protocol struct {
	Step     Step
	Steal    bool     // the lease is taken from whoever holds it, and what is stored is not looked at
	Yields   bool     // a load in another process is not waited for
	Asked    bool     // an acquire was sent
	Held     bool     // the lease was acquired, and has not been given back
	Down     bool     // Redis failed: it is not asked again
	Audience Audience // at Finish
}

// Alone returns the Protocol of a load that does not ask Redis at all.
func Alone() Protocol { return Protocol{Step: Load, Down: true} }

// OnAcquire goes on after an Acquire: usable says that it found an entry to serve, and
// inVain that the load that was waited for has brought nothing to store. To wait for the
// next would be to queue: all who have waited load for themselves, at the same time.
func (p *Protocol) OnAcquire(held, usable, inVain, failed bool) {
	p.Asked = true
	switch {
	case failed:
		p.Down, p.Step = true, Load
	case usable:
		// A lease that came along is given back after the callers have the entry.
		p.Held, p.Audience, p.Step = held, BeforeSend, Finish
	case held:
		p.Held, p.Step = true, Load
	case p.Yields:
		p.Audience, p.Step = Nobody, Finish
	case inVain:
		p.Step = Load
	default:
		p.Step = Wait
	}
}

// OnRefused goes on after an Acquire that was not sent, since Redis refuses what it takes
// to store a value under a lease. A load that nobody waits for would be of no use.
func (p *Protocol) OnRefused() {
	yields := p.Yields
	if *p = Alone(); yields {
		p.Audience, p.Step = Nobody, Finish
	}
}

// OnWait goes on after a Wait. A load that has waited for too long calls the loader
// for itself, and stores nothing.
func (p *Protocol) OnWait(over bool) {
	if over {
		p.Step = Load
		return
	}
	p.Step = Acquire
}

// OnRenew goes on after a renewal of the lease during the Load: Redis is down as long as the last one
// has failed.
func (p *Protocol) OnRenew(failed bool) { p.Down = failed }

// OnLoad goes on after a Load: storable says that there is something to fill.
func (p *Protocol) OnLoad(storable bool) {
	switch {
	case !p.Held || p.Down: // a fill would cost the callers a second wait
		p.Audience, p.Step = BeforeLoad, Finish
	case storable:
		p.Step = Fill
	default:
		p.Step = Release
	}
}

// OnSettle goes on after a Fill or a Release: kept says that Redis found the lease
// still held.
func (p *Protocol) OnSettle(kept, failed bool) {
	p.Down = p.Down || failed
	p.Held = failed // whatever Redis made of the command, the lease may still be there
	p.Audience = BeforeLoad
	if kept {
		p.Audience = BeforeSend
	}
	p.Step = Finish
}

// OnAbandon goes on after a Wait during which every caller has gone.
func (p *Protocol) OnAbandon() { p.Audience, p.Step = Nobody, Finish }

// OnFinish ends the load. It reports whether the lease is to be given back: it came with
// an entry, or its fate is unknown.
func (p *Protocol) OnFinish() (owed bool) {
	p.Step = Done
	return p.Held || p.Down && p.Asked
}

// Successor returns the Protocol for those who were refused the result. One wait for
// Redis is enough for them too.
func (p *Protocol) Successor() Protocol {
	if p.Down {
		return Alone()
	}
	return Protocol{}
}

// SharedBefore returns the mark before which a caller must have joined to be given the
// result: began is the mark of the load's beginning and sent that of the last command.
// The zero mark is before every join.
func SharedBefore[Mark ~int | ~int8](a Audience, began, sent Mark) Mark {
	switch a {
	case BeforeLoad:
		return began
	case BeforeSend:
		return sent
	}
	return 0
}
