package mux

import (
	"errors"
	"sync/atomic"

	"github.com/sony/gobreaker/v2"
)

// breaker wraps gobreaker's so that a healthy Redis costs nothing: the circuit, which takes a lock,
// is consulted only from the first failure until the next success.
type breaker struct {
	circuit  *gobreaker.TwoStepCircuitBreaker[struct{}]
	failing  atomic.Bool // the last round trip that was reported has failed
	open     atomic.Bool // the circuit is open, or half-open: it waits for a probe
	notifier notifier
}

func newBreaker(cfg Config) *breaker {
	b := &breaker{notifier: notifier{onState: cfg.OnState}}
	b.circuit = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1, // one probe at a time
		Timeout:     cfg.OpenFor,
		ReadyToTrip: func(counts gobreaker.Counts) bool {
			return counts.ConsecutiveFailures >= uint32(cfg.Failures)
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errUnknown) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			open := to != gobreaker.StateClosed
			if b.open.Swap(open) != open {
				b.notifier.notify(open)
			}
		},
	})
	return b
}

// errUnknown is reported for a probe that was never sent: it says nothing of Redis.
var errUnknown = errors.New("outcome unknown")

// probe is the permission to make the one round trip that finds out whether Redis is back. The
// circuit admits no other until report is called.
type probe struct{ report func(error) }

// withdraw gives the permission back, for another caller to use. A nil probe has none to give.
func (p *probe) withdraw() {
	if p != nil {
		p.report(errUnknown)
	}
}

// admit returns ErrOpen if nothing may be sent. While the breaker is open it lets one caller
// through in each OpenFor, and gives it a probe.
func (b *breaker) admit() (*probe, error) {
	if !b.open.Load() {
		return nil, nil
	}
	report, err := b.circuit.Allow()
	if err != nil {
		return nil, ErrOpen
	}
	return &probe{report}, nil
}

// report tells the breaker how a round trip that is no probe has ended.
func (b *breaker) report(err error) {
	if err == nil && !b.failing.Load() {
		return
	}
	b.failing.Store(err != nil)
	// The circuit refuses if it has opened while the round trip was under way.
	if report, refused := b.circuit.Allow(); refused == nil {
		report(err)
	}
}
