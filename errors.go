package readthrough

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/mux"
	"github.com/readthrough-go/readthrough/internal/retry"
)

// The errors of the cache itself, for errors.Is. Whatever else a read returns is the
// loader's.
var (
	// ErrMiss says that the cache holds no value for a key: of Peek and the raw Get.
	ErrMiss = errors.New("readthrough: miss")
	// ErrNotFound says that the batch loader has left a key out. If WithNotFound names
	// errors, the first of them says so instead.
	ErrNotFound = errors.New("readthrough: the batch loader has left the key out")
	// ErrEmptyKey says that the key extractor returned an empty string, which would
	// make one entry of all such keys.
	ErrEmptyKey = errors.New("readthrough: the key is empty")
	// ErrUnavailable says that Redis could not be asked: it was not reached, did not
	// answer in time, cannot serve at present, or is left alone by the circuit breaker.
	ErrUnavailable = errors.New("readthrough: redis is unavailable")
	// ErrClosed says that the Cache was closed.
	ErrClosed = errors.New("readthrough: cache is closed")
)

// errGoexit is what callers get when the loader has ended its goroutine.
var errGoexit = errors.New("readthrough: the loader called runtime.Goexit")

// WriteError is the error of a write that may have failed for some of its keys: of Set,
// SetMany, Invalidate, Expire and Cache.Delete. The entries at Keys may be out of date
// until the invalidation, which is retried in the background, has reached Redis. If
// errors.Is finds ErrClosed it is not retried after Close has ended. Close returns one too, for what
// it has tried a last time in vain.
type WriteError struct {
	Op   string   // "set", "invalidate", "expire", "delete" or "close: invalidate"
	Keys []string // the Redis keys, all of them
	Err  error    // why; errors.Is finds ErrUnavailable if Redis could not be asked
}

// Error names up to ten of the keys.
func (e *WriteError) Error() string {
	const named = 10
	keys := strings.Join(e.Keys[:min(len(e.Keys), named)], ", ")
	if more := len(e.Keys) - named; more > 0 {
		keys += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("readthrough: %s %s: %s", e.Op, keys, unprefixed(e.Err))
}

// Unwrap returns Err.
func (e *WriteError) Unwrap() error { return e.Err }

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

// prefix begins the text of every error of this package. It is added by the outermost
// exported function, and only once.
const prefix = "readthrough: "

// opError is an error with what was being done when it happened.
type opError struct {
	op  string // with the name of what it was done to
	err error
}

func (e *opError) Error() string { return prefix + e.op + ": " + unprefixed(e.err) }
func (e *opError) Unwrap() error { return e.err }

// failed returns err as the error of op, or nil if there is none.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &opError{op, err}
}

// joined returns those of errs that are not nil as one: a single one as it is.
func joined(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// unprefixed returns err's text without the prefix of this package.
func unprefixed(err error) string { return strings.TrimPrefix(textOf(err), prefix) }

// textOf returns err's text, even if its Error method panics, as that of a nil pointer may.
func textOf(err error) string { return fmt.Sprint(err) }

// redisError returns what a caller is told of an error of the mux.
func redisError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, mux.ErrClosed), errors.Is(err, ErrClosed):
		return ErrClosed
	case ctx.Err() == nil && mux.Unavailable(err):
		return &unavailable{err}
	}
	return err
}

// unavailable is why Redis could not be asked.
type unavailable struct{ cause error }

func (e *unavailable) Error() string   { return e.cause.Error() }
func (e *unavailable) Unwrap() []error { return []error{ErrUnavailable, e.cause} }

// unretried is why a key was not invalidated, and will not be.
type unretried struct{ cause error }

func (e *unretried) Error() string {
	return unprefixed(e.cause) + " (it is not retried after Close)"
}
func (e *unretried) Unwrap() []error { return []error{ErrClosed, e.cause} }

// errTooManyPending is why a pending invalidation is dropped.
var errTooManyPending = fmt.Errorf("%sover %d invalidations are pending: the oldest is given up", prefix, retry.MaxKeys)

// loadError returns what a caller is told of an error of the engine about key.
func loadError(key string, err error) error {
	// The very ones: a loader's error may have an Is that does anything.
	if err == fill.ErrTimeout { //nolint:errorlint // see above
		return failed("load "+key, context.DeadlineExceeded)
	}
	if err == fill.ErrGoexit { //nolint:errorlint // see above
		return errGoexit
	}
	if err == fill.ErrKeyChanged { //nolint:errorlint // see above
		return failed("load "+key, err)
	}
	return err
}
