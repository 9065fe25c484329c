package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/readthrough-go/readthrough"
)

// batch is what came of a batch of rows.
type batch struct {
	rows    int
	relayed Event
	failed  Event
	err     error // of the cache
}

// outage reports whether the cache has failed for all keys.
func (b *batch) outage() bool { return b.err != nil && b.relayed.Rows == 0 }

// batch relays one batch, even when ctx ends meanwhile: what was begun is brought to its end. The
// error is that of the database.
func (r *Relay) batch(ctx context.Context) (batch, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), batchTimeout)
	defer cancel()
	var b batch
	n, err := r.store.batch(ctx, r.settings.batch, func(ctx context.Context, rows []row) verdict {
		var v verdict
		v, b = r.handOver(ctx, rows)
		return v
	})
	if err != nil {
		return batch{}, err // the rows are as they were
	}
	b.rows = n
	for _, e := range []Event{b.relayed, b.failed} {
		if e.Rows > 0 {
			slices.Sort(e.Keys)
			e.Keys = slices.Compact(e.Keys)
			r.meter.note(e)
		}
	}
	return b, nil
}

// handOver has the cache delete the entries of rows.
func (r *Relay) handOver(ctx context.Context, rows []row) (verdict, batch) {
	left, err := r.deleteEntries(ctx, rows)
	b := batch{relayed: Event{Kind: EventRelayed}, failed: Event{Kind: EventFailed, Err: err}, err: err}
	var v verdict
	attempts := 0
	for _, row := range rows {
		switch {
		case row.bad != nil:
			b.failed.Err = errors.Join(b.failed.Err, fmt.Errorf("row %d: %w", row.id, row.bad))
		case !left[row.key]:
			v.done = append(v.done, row.id)
			b.relayed.add(row)
			continue
		}
		v.failed = append(v.failed, row.id)
		b.failed.add(row)
		attempts = max(attempts, row.attempts)
	}
	v.wait = r.settings.backoff(attempts)
	b.failed.Wait = v.wait
	return v, b
}

// deleteEntries has the cache delete the entries of rows. It returns the keys whose entries may be
// left, with the reason.
func (r *Relay) deleteEntries(ctx context.Context, rows []row) (left map[string]bool, err error) {
	var keys []string
	for _, row := range rows {
		if row.bad == nil {
			keys = append(keys, row.key)
		}
	}
	slices.Sort(keys)
	if keys = slices.Compact(keys); len(keys) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	if err = r.cache.Delete(ctx, keys...); err == nil {
		return nil, nil
	}
	if some := new(readthrough.WriteError); errors.As(err, &some) && len(some.Keys) > 0 {
		keys = some.Keys
	}
	left = make(map[string]bool, len(keys))
	for _, key := range keys {
		left[key] = true
	}
	return left, err
}

// add counts a row to an event.
func (e *Event) add(r row) {
	e.Rows++
	e.Lag = max(e.Lag, r.age)
	e.Keys = append(e.Keys, r.key)
}

// backoff returns how long to wait after a failure that followed on n others.
func (s *settings) backoff(n int) time.Duration {
	wait := s.firstWait
	for ; n > 0 && wait < s.maxWait; n-- {
		wait *= 2
	}
	return jitter(min(wait, s.maxWait))
}

// jitter shortens d at random, by half at most.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/2+1) }
