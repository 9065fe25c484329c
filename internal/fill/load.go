package fill

import (
	"cmp"
	"context"
	"errors"
	"time"
)

var (
	// ErrTimeout is the error of a load that has taken longer than the load timeout.
	ErrTimeout = errors.New("load timeout")
	// ErrGoexit is the error of a load whose goroutine was ended by the user's code.
	ErrGoexit = errors.New("runtime.Goexit was called")
	// ErrClosed is the error of a load that was to begin after Close.
	ErrClosed = errors.New("closed")
)

// loaded is how the load of one key ended.
type loaded[V any] struct {
	result     Result[V]
	entry      Entry
	unstorable error // why the value cannot become an entry
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
			r.result.Err = ctx.Err()
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
		case <-ticker.C:
			e.renew(rs)
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
	e.guardEach(1, func(int) { load(ctx, rs, loads) }, func(_ int, err error) {
		for i := range loads {
			loads[i].crash(err)
		}
	}, func() {
		took := time.Since(began)
		for i := range loads {
			loads[i].took = took
		}
		e.guardEach(len(rs), func(i int) { e.encode(ctx, &loads[i]) },
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

// guardEach calls f with each number below n, and then done. A panic or Goexit in one
// call is told to crashed, and keeps f from none of the others.
func (e *Engine[K, V]) guardEach(n int, f func(i int), crashed func(i int, panicked error), done func()) {
	e.guardFrom(0, n, f, crashed, done)
}

func (e *Engine[K, V]) guardFrom(i, n int, f func(i int), crashed func(i int, panicked error), done func()) {
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
		e.wrapper.Go(func() { e.guardFrom(i+1, n, f, crashed, done) })
	}()
	for ; i < n; i++ {
		f(i)
	}
}

// loadEach calls the loader for the one key there is.
func (e *Engine[K, V]) loadEach(ctx context.Context, rs []*loadRun[K, V], loads []loaded[V]) {
	for i, r := range rs {
		loads[i].result.Value, loads[i].result.Err = e.wrapper.Load(ctx, r.key)
	}
}

// loadTogether calls the batch loader for all keys.
func (e *Engine[K, V]) loadTogether(ctx context.Context, rs []*loadRun[K, V], loads []loaded[V]) {
	ks := make([]K, len(rs))
	for i, r := range rs {
		ks[i] = r.key
	}
	values, err := e.wrapper.LoadMany(ctx, ks)
	for i, r := range rs {
		result := &loads[i].result
		if result.Err = err; err != nil {
			continue
		}
		value, ok := values[e.wrapper.Key(r.key)] // not ks, which the batch loader may have changed
		if result.Value = value; !ok {
			result.Err = e.wrapper.Missing
		}
	}
}

// encode makes the entry of what the loader returned.
func (e *Engine[K, V]) encode(ctx context.Context, l *loaded[V]) {
	at := Loaded{At: e.settings.Clock.Now(), Took: l.took}
	r := &l.result
	switch {
	case r.Panic != nil || r.Err == ErrGoexit: //nolint:errorlint // the very one
	case r.Err != nil:
		l.entry, r.NotFound = e.wrapper.EncodeErr(r.Err, at)
		if !r.NotFound && context.Cause(ctx) == ErrTimeout && errors.Is(r.Err, context.DeadlineExceeded) { //nolint:errorlint // the very one
			r.Err = ErrTimeout
		}
	default:
		l.entry, l.unstorable = e.wrapper.Encode(r.Value, at)
		r.Bytes = l.entry.Bytes // each caller's copy comes from them, stored or not
	}
	r.Header = l.entry.Header
}

// afterLoad notes how the load of r ended, and goes on.
func (e *Engine[K, V]) afterLoad(r *loadRun[K, V], l loaded[V]) {
	r.result, r.entry = l.result, l.entry
	err := cmp.Or(r.result.Panic, r.result.Err)
	e.note(r, LoadEnded, l.took, err)
	failed := r.result.Failed()
	switch {
	case !failed:
		e.backoff.forget(r.flight.Key)
	case r.flight.Context().Err() == nil: // else its callers have gone: no fault of the loader's
		e.note(r, LoadFailed, l.took, err)
		e.backoff.failed(r.flight.Key, e.settings.TTL)
	}
	if l.unstorable != nil {
		e.note(r, Unstorable, 0, l.unstorable)
	}
	r.OnLoad(!failed && l.unstorable == nil && !r.entry.Skip)
}
