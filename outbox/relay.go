package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/readthrough-go/readthrough"
)

const (
	// batchTimeout bounds a batch, from its claim to its removal. It is less than claimLease.
	batchTimeout = 10 * time.Second
	// deleteTimeout bounds the call of the cache in it, and leaves time to write down what came of it.
	deleteTimeout = 5 * time.Second
)

// Cache is what a relay needs of a cache. A *readthrough.Cache is one.
type Cache interface {
	// Delete deletes whatever entries there are at keys. If it fails for some keys only, its error is
	// a *readthrough.WriteError that names these.
	Delete(ctx context.Context, keys ...string) error
}

// Relay hands the invalidations recorded in a table to a cache, and removes them. Any number of
// relays may work on one table. A Relay is safe for concurrent use.
type Relay struct {
	settings settings
	store    store
	cache    Cache
	meter    meter
	wake     chan struct{} // holds one wake-up that the loop has not seen
}

// NewRelay returns a Relay of a table in db. It does not speak to the database.
func NewRelay(db *sql.DB, cache Cache, opts ...Option) (*Relay, error) {
	if db == nil || cache == nil {
		return nil, errors.New("outbox: NewRelay: the database or the cache is nil")
	}
	s, err := newSettings(opts)
	if err != nil {
		return nil, fmt.Errorf("outbox: NewRelay: %w", err)
	}
	return newRelay(&sqlStore{db: db, table: s.table, known: s.dialect}, cache, s), nil
}

func newRelay(store store, cache Cache, s settings) *Relay {
	return &Relay{settings: s, store: store, cache: cache, meter: meter{onEvent: s.onEvent}, wake: make(chan struct{}, 1)}
}

// Run is NewRelay and its Run in one.
func Run(ctx context.Context, db *sql.DB, cache Cache, opts ...Option) error {
	r, err := NewRelay(db, cache, opts...)
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// Run relays until ctx ends, and returns its error, after the batch under way: 10 s later at
// most. It goes on through failures of the cache and the database, and ends by itself only when the
// cache was closed (readthrough.ErrClosed).
//
// Rows are handed over in batches, new ones by id. One that fails is tried again after a wait
// (WithBackoff), and does not keep those behind it from being relayed. When a whole batch fails, as
// when Redis is down, the relay pauses. A relay that dies leaves its batch to the others: when they
// look next on MySQL and PostgreSQL, 15 s later on SQLite.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var listeners sync.WaitGroup
	defer listeners.Wait()
	defer cancel()
	for _, listen := range r.settings.wakeUps {
		listeners.Go(func() { r.listen(ctx, listen) })
	}
	for troubles := 0; ; {
		wait, wake := r.settings.poll, r.wake
		p := r.pass(ctx, troubles)
		switch {
		case errors.Is(p.err, readthrough.ErrClosed):
			return fmt.Errorf("outbox: %w", p.err)
		case p.trouble:
			troubles++
			wait, wake = p.wait, nil // a wake-up mends nothing, nor does another look before its time
		default:
			troubles = 0
			wait = min(jitter(wait), p.wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		case <-wake:
		}
	}
}

// Notify has the relay look at once: call it after a commit, in the process of the relay. It returns
// at once. While the relay pauses because everything failed, it waits for the end of the pause.
func (r *Relay) Notify() {
	select {
	case r.wake <- struct{}{}:
	default: // it has been told, and has yet to look
	}
}

// Stats returns what the relay has done.
func (r *Relay) Stats() Stats { return r.meter.stats() }

// Pending returns how many rows wait in the table, for any relay, and the age of the oldest. It
// counts them in the database: cheap while relays keep up, slow when a million rows are left.
func (r *Relay) Pending(ctx context.Context) (rows int64, oldest time.Duration, err error) {
	rows, oldest, err = r.store.pending(ctx)
	if err != nil {
		err = fmt.Errorf("outbox: pending: %w", err)
	}
	return rows, oldest, err
}

// outcome is what came of one look at the table.
type outcome struct {
	trouble bool          // nothing could be done
	wait    time.Duration // the next look is worthwhile by then
	err     error         // why, of the cache
}

// pass relays all that is due, until everything fails. Troubles says how often it did just before.
func (r *Relay) pass(ctx context.Context, troubles int) outcome {
	wait, err := r.next(ctx)
	for due := wait == 0; due && err == nil && ctx.Err() == nil; {
		var b batch
		b, err = r.batch(ctx)
		if b.outage() {
			return outcome{trouble: true, wait: r.settings.backoff(troubles), err: b.err}
		}
		if due = b.rows == r.settings.batch; !due && err == nil {
			wait, err = r.next(ctx)
		}
	}
	if err != nil && ctx.Err() == nil {
		wait = r.settings.backoff(troubles)
		r.meter.note(Event{Kind: EventError, Wait: wait, Err: err})
		return outcome{trouble: true, wait: wait}
	}
	if wait == 0 { // other relays have these rows, or they came just now: with a wake-up, or for the next poll
		wait = never
	}
	return outcome{wait: wait}
}

// next is that of the store, bounded.
func (r *Relay) next(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	return r.store.next(ctx)
}

// listen has listen wake the loop until ctx ends, and calls it again when it fails.
func (r *Relay) listen(ctx context.Context, listen func(ctx context.Context, wake func()) error) {
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := listen(ctx, r.Notify)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > r.settings.maxWait {
			failures = 0
		}
		wait := r.settings.backoff(failures)
		r.meter.note(Event{Kind: EventError, Wait: wait, Err: errors.Join(errListener, err)})
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

var errListener = errors.New("a listener of WithWakeUps has ended")
