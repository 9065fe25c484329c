package mux

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
)

// breaker wraps gobreaker so that a healthy Redis costs nothing: the breaker
// proper is consulted only from the first failure until the success that makes
// up for it.
type breaker struct {
	proper   *gobreaker.TwoStepCircuitBreaker[struct{}]
	troubled atomic.Bool // some round trip has failed since the last success
	open     atomic.Bool
	onState  func(open bool)

	mu      sync.Mutex
	untold  []bool // changes of open that onState has not been told
	telling bool
	tellers sync.WaitGroup
}

func newBreaker(cfg Config) *breaker {
	b := &breaker{onState: cfg.OnState}
	b.proper = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     cfg.OpenFor,
		ReadyToTrip: func(counts gobreaker.Counts) bool {
			return counts.ConsecutiveFailures >= uint32(cfg.Failures)
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNoVerdict) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			open := to != gobreaker.StateClosed
			if b.open.Swap(open) != open && b.onState != nil {
				b.changed(open)
			}
		},
	})
	return b
}

// errNoVerdict is reported for a round trip that says nothing of Redis.
var errNoVerdict = errors.New("no verdict")

// probe is the one round trip that may find out whether Redis is back.
type probe struct{ report func(error) }

// withdraw gives the permission back for another to use. A nil probe is no probe.
func (p *probe) withdraw() {
	if p != nil {
		p.report(errNoVerdict)
	}
}

// admit says whether a call may be sent. While the breaker is open the answer is
// ErrOpen, but for one caller each openFor, who gets a probe.
func (b *breaker) admit() (*probe, error) {
	if !b.open.Load() {
		return nil, nil
	}
	report, err := b.proper.Allow()
	if err != nil {
		return nil, ErrOpen
	}
	return &probe{report}, nil
}

// report tells the breaker how the round trip of an ordinary call ended.
func (b *breaker) report(err error) {
	if err == nil && !b.troubled.Load() {
		return
	}
	b.troubled.Store(err != nil)
	// Refused: the breaker opened while the round trip was under way.
	if report, refused := b.proper.Allow(); refused == nil {
		report(err)
	}
}

// changed has onState told, on a goroutine of its own: what listens may take its
// time, or ask the cache something, and must not hold a round trip up.
func (b *breaker) changed(open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.untold = append(b.untold, open)
	if !b.telling {
		b.telling = true
		b.tellers.Go(b.tell) // ends when all is told; Close waits for it
	}
}

// tell tells onState what has changed, in order and with no lock held.
func (b *breaker) tell() {
	for {
		b.mu.Lock()
		untold := b.untold
		b.untold = nil
		b.telling = len(untold) > 0
		b.mu.Unlock()
		if len(untold) == 0 {
			return
		}
		for _, open := range untold {
			b.onState(open)
		}
	}
}

// verdict tells a failed round trip from a reply that its caller may not like:
// whatever Redis answers, it has answered, but for the answers that say that it
// cannot serve at present.
func verdict(err error) error {
	if err == nil {
		return nil
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return err
	}
	for _, prefix := range []string{"LOADING ", "MASTERDOWN ", "CLUSTERDOWN ", "READONLY ", "NOAUTH ", "TRYAGAIN "} {
		if strings.HasPrefix(reply.Error(), prefix) {
			return err
		}
	}
	return nil
}
