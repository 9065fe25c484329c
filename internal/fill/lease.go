package fill

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/readthrough-go/readthrough/internal/lease"
)

const (
	// firstPoll and maxPoll are the pauses between two looks at another process's load.
	firstPoll = time.Millisecond
	maxPoll   = 50 * time.Millisecond
)

// acquire asks for the leases of rs and for their entries, in one round trip.
func (e *Engine[K, V]) acquire(rs []*loadRun[K, V]) {
	if len(rs) == 0 {
		return
	}
	requests := make([]lease.Request, len(rs))
	for i, r := range rs {
		requests[i] = e.request(r)
		r.sent = r.flight.Mark()
	}
	began := time.Now()
	answers := e.leases.Acquire(rs[0].redisContext(), requests)
	took := time.Since(began)
	for i, r := range rs {
		r.asked = took
		if errors.Is(answers[i].Err, lease.ErrRefused) {
			r.OnRefused()
			continue
		}
		e.noteRedis(r, answers[i].Err)
		usable := answers[i].Err == nil && answers[i].Found && e.useEntry(r, answers[i].Entry)
		r.older = answers[i].Found || r.Steal // which does not look
		r.waitsFor = answers[i].Holder
		if answers[i].Held {
			r.token = answers[i].Token
		}
		r.OnAcquire(answers[i].Held, usable, answers[i].Failed, answers[i].Err != nil)
	}
}

// useEntry takes an entry that another process has stored for the result of r, if it is
// fresh and not the one to be replaced.
func (e *Engine[K, V]) useEntry(r *loadRun[K, V], raw []byte) bool {
	// What cannot be decoded was counted by the lookup that led here.
	result, ok := e.wrapper.Decode(r.flight.Key, raw)
	if !ok || !result.Header.LoadedAt.After(r.replace) {
		return false
	}
	r.result = result
	return true
}

// split returns those of rs that load, and those that wait for other processes. If there
// are both, the latter go on by themselves: so no process keeps others from a key while
// it waits for one of theirs.
func (e *Engine[K, V]) split(rs []*loadRun[K, V]) (loading, waiting []*loadRun[K, V]) {
	loading, apart := atStep(rs, lease.Load), atStep(rs, lease.Wait)
	if len(loading) == 0 || len(apart) == 0 {
		return loading, apart
	}
	e.wrapper.Go(func() { // ends with their loads, which the load timeout bounds
		e.pause(apart)
		e.run(apart)
	})
	return loading, nil
}

// pause waits for the processes that load what rs are waiting for.
func (e *Engine[K, V]) pause(rs []*loadRun[K, V]) {
	if len(rs) == 0 {
		return
	}
	wait, left := maxPoll, maxPoll
	for _, r := range rs {
		if r.waitUntil.IsZero() {
			r.waitUntil = time.Now().Add(e.settings.LeaseWait)
		}
		wait, left = min(wait, r.wait), min(left, time.Until(r.waitUntil))
	}
	timer := time.NewTimer(min(wait/2+rand.N(wait), left))
	defer timer.Stop()
	ctx, stop := awaited(rs)
	defer stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	for _, r := range rs {
		r.wait = min(2*r.wait, maxPoll)
		if r.flight.Context().Err() != nil {
			r.OnAbandon()
			continue
		}
		r.OnWait(!time.Now().Before(r.waitUntil))
	}
}

// renewal returns what makes the leases of rs last while their load takes its time, or nil if
// there are none. That returns what notes how it went. A lease that is lost shows when the fill
// is refused.
func (e *Engine[K, V]) renewal(rs []*loadRun[K, V]) func() (note func()) {
	var held []*loadRun[K, V]
	var requests []lease.Request
	for _, r := range rs {
		if r.Held {
			held, requests = append(held, r), append(requests, e.request(r))
		}
	}
	if len(held) == 0 {
		return nil
	}
	return func() func() {
		outcomes := e.leases.Renew(held[0].redisContext(), requests)
		return func() {
			for i, o := range outcomes {
				e.noteRedis(held[i], o.Err)
				held[i].OnRenew(o.Err != nil)
			}
		}
	}
}
