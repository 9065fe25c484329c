package readthrough

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// errGoexit is what callers get when the loader ended its goroutine.
var errGoexit = errors.New("readthrough: the loader called runtime.Goexit")

// PanicError is what a panic of the loader becomes in each caller that waited for
// it: they panic with it.
type PanicError struct {
	Value any    // what the loader panicked with
	Stack []byte // where
}

// Error has the loader's stack in it.
func (p *PanicError) Error() string {
	return fmt.Sprintf("readthrough: the loader panicked: %v\n\n%s", p.Value, p.Stack)
}

// Unwrap returns the error that the loader panicked with, if it was one.
func (p *PanicError) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// outcome is what a flight brings.
type outcome[V any] struct {
	value    V
	err      error
	bytes    []byte // the entry, from which each caller decodes a value of its own
	notFound bool   // err is an answer, not a failure
	shared   bool   // another process loaded it
	stored   bool   // this process has stored it
	entry    entry.Entry
}

func (o *outcome[V]) failed() bool { return o.err != nil && !o.notFound }

// unpack gives a caller its result: the value itself to the one whose call began
// the load, a copy to the others.
func (rt *ReadThrough[K, V]) unpack(o outcome[V], first bool) (V, error) {
	if panicked, ok := o.err.(*PanicError); ok {
		panic(panicked)
	}
	if o.err != nil || first || rt.shareable || o.bytes == nil {
		return o.value, o.err
	}
	var v V
	e, err := entry.Parse(o.bytes)
	if err == nil {
		err = decodeValue(rt.settings.codec, e.Value, &v)
	}
	if err != nil { // what cannot be decoded again can only be shared
		return o.value, nil
	}
	return v, nil
}

// errLoadTimeout tells the end of WithLoadTimeout from a deadline of the loader's own.
var errLoadTimeout = errors.New("readthrough: load timeout")

// turns are those of what may run at a time, for one thing the loads of
// WithLoadLimit: nil for no limit.
type turns chan struct{}

// full reports whether a load would have to wait.
func (t turns) full() bool { return t != nil && len(t) == cap(t) }

// give lets another load run.
func (t turns) give() {
	if t != nil {
		<-t
	}
}

// take waits for the turn to load, until ctx ends, and meanwhile calls keepLease
// at each tick.
func (t turns) take(ctx context.Context, tick <-chan time.Time, keepLease func()) error {
	if t == nil {
		return nil
	}
	for {
		select {
		case t <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
			keepLease()
		}
	}
}

// call calls f, when it is its turn and with the load timeout, on a goroutine of
// its own: so a loader that ignores its context, panics or ends its goroutine harms
// nobody but its callers. Every third of a lease it calls keepLease; it calls begin
// right before f.
func call[K, V, R any](rt *ReadThrough[K, V], ctx context.Context, keepLease, begin func(), f func(context.Context) (R, error)) (R, error) {
	if ctx.Err() != nil {
		return zero[R](), ctx.Err()
	}
	ticker := time.NewTicker(rt.settings.leaseTTL / 3)
	defer ticker.Stop()
	if err := rt.turns.take(ctx, ticker.C, keepLease); err != nil {
		return zero[R](), err
	}
	begin()
	ctx, cancel := context.WithTimeoutCause(ctx, rt.settings.loadTimeout, errLoadTimeout)
	defer cancel()
	done := make(chan loaded[R], 1)
	if !rt.cache.spawn(func() {
		defer rt.turns.give() // after a timeout, the turn ends with the loader, not with the wait for it
		guard(ctx, done, f)
	}) {
		rt.turns.give()
		return zero[R](), ErrClosed
	}
	for {
		select {
		case res := <-done:
			_, panicked := res.err.(*PanicError)
			if !panicked && errors.Is(res.err, context.DeadlineExceeded) && context.Cause(ctx) == errLoadTimeout {
				res.err = errLoadTimeout
			}
			return res.value, res.err
		case <-ctx.Done():
			select {
			case res := <-done: // it came at the same time
				return res.value, res.err
			default:
				return zero[R](), context.Cause(ctx)
			}
		case <-ticker.C:
			keepLease()
		}
	}
}

// loaded is what a loader returned.
type loaded[R any] struct {
	value R
	err   error
}

// guard calls f and tells done how it ended, whatever f does.
func guard[R any](ctx context.Context, done chan<- loaded[R], f func(context.Context) (R, error)) {
	res := loaded[R]{err: errGoexit}
	defer func() {
		if p := recover(); p != nil {
			res.err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		done <- res
	}()
	res.value, res.err = f(ctx)
}
