package readthroughtest

import (
	"context"
	"errors"
	"testing"

	"github.com/readthrough-go/readthrough"
)

// RequireCached fails t at once unless the next Get of k is answered without a load: with a value,
// a cached not-found, or a stale value that WithStale allows. It asks by Peek, which counts a hit or
// a miss in the statistics.
func RequireCached[K, V any](t testing.TB, rt *readthrough.ReadThrough[K, V], k K) {
	t.Helper()
	if _, err := rt.Peek(unaudited(context.Background()), k); errors.Is(err, readthrough.ErrMiss) {
		t.Fatalf("readthroughtest: %s is not cached", name(rt, k))
	} else if noAnswer(err) {
		t.Fatalf("readthroughtest: whether %s is cached is unknown: %v", name(rt, k), err)
	}
}

// RequireNotCached fails t at once unless the next Get of k would load. It asks by Peek, as
// RequireCached does.
func RequireNotCached[K, V any](t testing.TB, rt *readthrough.ReadThrough[K, V], k K) {
	t.Helper()
	switch v, err := rt.Peek(unaudited(context.Background()), k); {
	case errors.Is(err, readthrough.ErrMiss):
	case noAnswer(err):
		t.Fatalf("readthroughtest: whether %s is cached is unknown: %v", name(rt, k), err)
	case err != nil:
		t.Fatalf("readthroughtest: %s is cached, as %v", name(rt, k), err)
	default:
		t.Fatalf("readthroughtest: %s is cached: %+v", name(rt, k), v)
	}
}

// RequireOneLoad calls f, and fails t at once unless it has had the loader called exactly once; each
// key of a batch counts as one call. loads is a ReadThrough, or a Cache for all its wrappers.
// Whatever loads on other goroutines counts too, if it ends before f does.
func RequireOneLoad(t testing.TB, loads interface{ Stats() readthrough.Stats }, f func()) {
	t.Helper()
	before := loads.Stats().Loads
	f()
	if n := loads.Stats().Loads - before; n != 1 {
		t.Fatalf("readthroughtest: %d loads, not one", n)
	}
}

// noAnswer reports whether err says that the cache could not be asked, and nothing of a value.
func noAnswer(err error) bool {
	for _, no := range []error{readthrough.ErrUnavailable, readthrough.ErrClosed, readthrough.ErrEmptyKey} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// name returns k's Redis key, for a message.
func name[K, V any](rt *readthrough.ReadThrough[K, V], k K) string {
	key, err := rt.RedisKey(k)
	if err != nil {
		return err.Error()
	}
	return key
}

// unauditedKey marks a context whose hits Audit does not look at.
type unauditedKey struct{}

// unaudited returns ctx for looking into the cache.
func unaudited(ctx context.Context) context.Context {
	return context.WithValue(ctx, unauditedKey{}, true)
}
