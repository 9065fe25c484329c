package fill

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

var (
	// ErrTimeout is the error of a load that has taken longer than the load timeout.
	ErrTimeout = errors.New("load timeout")
	// ErrGoexit is the error of a load whose goroutine was ended by the user's code.
	ErrGoexit = errors.New("runtime.Goexit was called")
	// ErrKeyChanged is the error of a load whose K is not that of its Redis key any more.
	ErrKeyChanged = errors.New("the key was changed by its owner before it was loaded and stored")
)

// worthTelling is how long a load must have taken for it to matter to the processes that
// wait for it that it has brought nothing to store. After a shorter one they take turns.
const worthTelling = 5 * time.Millisecond

// loaded is how the load of one key ended.
type loaded[V any] struct {
	result     Result[V]
	entry      Entry
	unstorable error // why the value cannot become an entry
	skipped    bool  // the loader was not called
	failed     bool  // the error is of a whole batch and has several causes: no key's answer
	took       time.Duration
}

// takeSlot waits for the turn of rs among the loads of the limit, and returns what to
// release when the loader has returned. Nothing is held in Redis meanwhile. If all
// callers leave, the runs have come to their end.
func (e *Engine[K, V]) takeSlot(rs []*loadRun[K, V]) Slots {
	if e.loads == nil {
		return nil
	}
	ctx, stop := awaited(rs)
	defer stop()
	if e.loads.acquire(ctx) != nil {
		for _, r := range rs {
			r.OnAbandon()
		}
		return nil
	}
	return e.loads
}

// load calls the loader for rs, and releases slot when it has returned.
func (e *Engine[K, V]) load(rs []*loadRun[K, V], slot Slots) {
	if len(rs) == 0 {
		slot.release()
		return
	}
	ctx, stop := awaited(rs)
	defer stop()
	if ctx.Err() != nil { // everyone has gone
		slot.release()
		for _, r := range rs {
			r.result.Err = ctx.Err()
			r.OnLoad(false)
		}
		return
	}
	for _, r := range rs {
		r.began = r.flight.Mark()
	}
	for i, l := range e.callLoader(ctx, rs, slot) {
		e.afterLoad(rs[i], l)
	}
}

// callLoader calls the loader with the load timeout, on a goroutine of its own: so a
// loader that ignores its context, panics or ends its goroutine harms nobody but its
// callers. The leases of rs are renewed meanwhile.
func (e *Engine[K, V]) callLoader(ctx context.Context, rs []*loadRun[K, V], slot Slots) []loaded[V] {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, e.settings.LoadTimeout, ErrTimeout)
	defer cancel()
	done := make(chan []loaded[V], 1)
	e.wrapper.Go(func() { // ends with the user's code, not with the wait for it
		e.loadAndEncode(ctx, rs, func(loads []loaded[V]) {
			slot.release()
			done <- loads
		})
	})
	ticker := time.NewTicker(e.settings.LeaseTTL / 3)
	defer ticker.Stop()
	tick := ticker.C
	renewed := make(chan func(), 1)
	for {
		select {
		case loads := <-done:
			return loads
		case <-ctx.Done():
			select {
			case loads := <-done: // it came at the same time
				return loads
			default:
				return givenUp[V](len(rs), context.Cause(ctx), time.Since(began))
			}
		case <-tick:
			if renew := e.renewal(rs); renew != nil {
				tick = nil                                  // one at a time
				e.wrapper.Go(func() { renewed <- renew() }) // ends with the round trip, which nobody waits for
			}
		case note := <-renewed:
			note()
			tick = ticker.C
		}
	}
}

// givenUp returns the loads of n keys that were not waited for to their end.
func givenUp[V any](n int, err error, took time.Duration) []loaded[V] {
	loads := make([]loaded[V], n)
	for i := range loads {
		loads[i].result.Err, loads[i].took = err, took
	}
	return loads
}

// loadAndEncode runs the user's code: the loader, and what makes entries of its values.
// Its panics and Goexits become results of the keys that they concern.
func (e *Engine[K, V]) loadAndEncode(ctx context.Context, rs []*loadRun[K, V], done func([]loaded[V])) {
	loads := make([]loaded[V], len(rs))
	began := time.Now()
	load := e.loadEach
	if e.wrapper.LoadMany != nil && rs[0].batched {
		load = e.loadTogether
	}
	e.guardEach(0, 1, func(int) { load(ctx, rs, loads) }, func(_ int, err error) {
		for i := range loads {
			loads[i].crash(err)
		}
	}, func() {
		took := time.Since(began)
		for i := range loads {
			loads[i].took = took
		}
		e.guardEach(0, len(rs), func(i int) { e.encode(ctx, rs[i], &loads[i]) },
			func(i int, err error) { loads[i].crash(err) },
			func() { done(loads) })
	})
}

// crash makes of l a load that ended with a panic, or with a Goexit if err is nil.
func (l *loaded[V]) crash(err error) {
	l.result = Result[V]{Panic: err}
	if err == nil {
		l.result.Err = ErrGoexit
	}
}

// guardEach calls f with each number from i up to n, and then done. A panic or Goexit in
// one call is told to crashed, and keeps f from none of the others.
func (e *Engine[K, V]) guardEach(i, n int, f func(i int), crashed func(i int, panicked error), done func()) {
	defer func() {
		if i == n {
			done()
			return
		}
		var err error
		if p := recover(); p != nil {
			err = e.wrapper.Panicked(p)
		}
		crashed(i, err)
		// A goroutine that ends itself cannot go on.
		e.wrapper.Go(func() { e.guardEach(i+1, n, f, crashed, done) })
	}()
	for ; i < n; i++ {
		f(i)
	}
}

// loadEach calls the loader for the one key there is.
func (e *Engine[K, V]) loadEach(ctx context.Context, rs []*loadRun[K, V], loads []loaded[V]) {
	for i, r := range rs {
		if !e.skip(r, &loads[i]) {
			loads[i].result.Value, loads[i].result.Err = e.wrapper.Load(ctx, r.key)
		}
	}
}

// loadTogether calls the batch loader for all keys.
func (e *Engine[K, V]) loadTogether(ctx context.Context, rs []*loadRun[K, V], loads []loaded[V]) {
	ks := make([]K, 0, len(rs))
	for i, r := range rs {
		if !e.skip(r, &loads[i]) {
			ks = append(ks, r.key)
		}
	}
	if len(ks) == 0 {
		return
	}
	values, err := e.wrapper.LoadMany(ctx, ks)
	for i, r := range rs {
		result := &loads[i].result
		if loads[i].skipped {
			continue
		}
		if result.Err = err; err != nil {
			loads[i].failed = wraps(err)
			continue
		}
		value, ok := values[r.flight.Key] // not by ks, which the batch loader may have changed
		if result.Value = value; !ok {
			result.Err = e.wrapper.Missing
		}
	}
}

// skip reports whether the loader must not be called for r, whose K is another's by now.
func (e *Engine[K, V]) skip(r *loadRun[K, V], l *loaded[V]) bool {
	if !e.wrapper.Same(r.key, r.flight.Key) {
		l.skipped, l.unstorable = true, ErrKeyChanged
		l.result = Result[V]{Err: ErrKeyChanged, Changed: true}
	}
	return l.skipped
}

// encode makes the entry of what the loader returned for r.
func (e *Engine[K, V]) encode(ctx context.Context, r *loadRun[K, V], l *loaded[V]) {
	at := Loaded{At: e.settings.Clock.Now(), Took: l.took}
	result := &l.result
	switch {
	case l.skipped || result.Panic != nil || result.Err == ErrGoexit: //nolint:errorlint // the very one
	case !e.wrapper.Same(r.key, r.flight.Key):
		l.unstorable, result.Changed = ErrKeyChanged, true
		l.entry.Header = entry.Entry{LoadedAt: at.At, FreshUntil: at.At}
	case result.Err != nil:
		if !l.failed {
			l.entry, result.NotFound = e.wrapper.EncodeErr(result.Err, at)
		}
		timedOut := context.Cause(ctx) == ErrTimeout //nolint:errorlint // the very one
		if timedOut && !result.NotFound && Is(result.Err, context.DeadlineExceeded) {
			result.Err = ErrTimeout
		}
	default:
		l.entry, l.unstorable = e.wrapper.Encode(r.flight.Key, result.Value, at)
		result.Bytes = l.entry.Bytes // each caller's copy comes from them, stored or not
	}
	result.Header = l.entry.Header
}

// Is is errors.Is for an error of the user's, whose methods may panic: as those of a nil
// pointer do that a loader returns by mistake. Such an error is no other.
func Is(err, target error) (is bool) {
	defer func() { _ = recover() }()
	return errors.Is(err, target)
}

// wraps reports whether err is more than what errors.Is may find in it. Such an error of a batch
// is a failure: a not-found in it may be of one key, or of something else. Without more it says
// that none of the keys is there.
func wraps(err error) bool {
	switch err.(type) { //nolint:errorlint // not what it wraps
	case interface{ Unwrap() error }, interface{ Unwrap() []error }, interface{ Is(target error) bool }:
		return true
	}
	return false
}

// afterLoad notes how the load of r ended, and goes on.
func (e *Engine[K, V]) afterLoad(r *loadRun[K, V], l loaded[V]) {
	r.result, r.entry = l.result, l.entry
	err := cmp.Or(r.result.Panic, r.result.Err)
	failed := r.result.Failed()
	if !l.skipped {
		e.note(r, LoadEnded, l.took, err)
	}
	switch {
	case l.skipped:
	case !failed:
		e.backoff.forget(r.flight.Key)
	case r.flight.Context().Err() == nil: // else its callers have gone: no fault of the loader's
		e.note(r, LoadFailed, l.took, err)
		e.backoff.failed(r.flight.Key, e.settings.TTL)
	}
	if l.unstorable != nil {
		e.note(r, Unstorable, 0, l.unstorable)
	}
	r.older = r.older && !failed && !r.result.Changed
	r.inVain = l.took >= worthTelling && r.flight.Context().Err() == nil
	r.OnLoad(!failed && l.unstorable == nil && !r.entry.Skip)
}
