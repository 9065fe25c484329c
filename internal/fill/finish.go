package fill

import (
	"errors"
	"time"

	"github.com/readthrough-go/readthrough/internal/lease"
)

// settle stores the values of filling and gives back the leases of releasing, in one
// round trip: either shows whether anything was invalidated since the lease was acquired.
func (e *Engine[K, V]) settle(filling, releasing []*loadRun[K, V]) {
	rs := append(filling, releasing...)
	if len(rs) == 0 {
		return
	}
	size := 0
	settlements := make([]lease.Settlement, len(rs))
	for i, r := range rs {
		settlements[i] = lease.Settlement{Key: r.flight.Key, Token: r.token, Failed: r.inVain, Drop: r.older}
		if r.Step == lease.Fill {
			settlements[i].Entry, settlements[i].TTL = r.entry.Bytes, r.entry.Keep
			size += len(r.entry.Bytes)
		}
		r.sent = r.flight.Leave()
	}
	// Who waits for the load has waited for the lease already, and does not wait for longer
	// than one round trip may take for the two together.
	trips := 1 + time.Duration(size/e.settings.TripBytes)
	if answer := e.answerEarly(rs); e.settings.BackgroundFill {
		answer()
	} else {
		early := time.AfterFunc(trips*e.settings.RedisTimeout-rs[0].asked, answer)
		defer early.Stop()
	}
	began := time.Now()
	outcomes := e.leases.Settle(rs[0].redisContext(), settlements)
	took := time.Since(began)
	for i, r := range rs {
		e.noteFill(r, outcomes[i], took)
		failed := outcomes[i].Err != nil && !errors.Is(outcomes[i].Err, lease.ErrRefused)
		r.OnSettle(outcomes[i].Kept, failed)
	}
}

// answerEarly returns what hands the results of rs to those who may have them whatever
// becomes of the fill.
func (e *Engine[K, V]) answerEarly(rs []*loadRun[K, V]) func() {
	results := make([]Result[V], len(rs))
	for i, r := range rs {
		results[i] = r.result
	}
	return func() {
		for i, r := range rs {
			r.flight.Answer(results[i], lease.SharedBefore(lease.BeforeLoad, r.began, r.sent))
		}
	}
}

// noteFill notes what became of a fill, or that a release has failed.
func (e *Engine[K, V]) noteFill(r *loadRun[K, V], o lease.Outcome, took time.Duration) {
	switch {
	case o.Err != nil:
		e.noteRedis(r, o.Err)
	case r.Step != lease.Fill:
	case o.Kept:
		r.result.Stored = true
		e.note(r, Filled, took, nil)
	default:
		e.note(r, FillRefused, took, nil)
	}
}

// finish hands the results of rs to those who may have them by the join rule. Those who
// joined too late start over, together.
func (e *Engine[K, V]) finish(rs []*loadRun[K, V]) {
	var again []*loadRun[K, V]
	var owed []*loadRun[K, V]
	for _, r := range rs {
		before := lease.SharedBefore(r.Audience, r.began, r.sent)
		if next := r.flight.Finish(r.result, before, r.began); next != nil {
			s := e.newRun(next, r.key, r.Successor())
			s.batched = r.batched
			again = append(again, s)
		}
		if r.OnFinish() {
			owed = append(owed, r)
		}
	}
	if len(again) > 0 {
		e.wrapper.Go(func() { e.run(again) }) // ends with the loads, which the load timeout bounds
	}
	e.giveBack(owed)
}

// giveBack releases leases that came with an entry, or whose fate is unknown. Nobody
// waits for this: it only keeps others from being held up.
func (e *Engine[K, V]) giveBack(rs []*loadRun[K, V]) {
	if len(rs) == 0 {
		return
	}
	settlements := make([]lease.Settlement, len(rs))
	for i, r := range rs {
		settlements[i] = lease.Settlement{Key: r.flight.Key, Token: r.token, Failed: r.inVain}
	}
	e.wrapper.Go(func() { // ends with the round trip
		_ = e.leases.Settle(rs[0].redisContext(), settlements) // else they expire
	})
}
