// Package hook is the door by which package readthroughtest reaches what users of the root
// package must not see. The root package fills it in; as grpc-go does in its internal
// package, with types that are any here because this package is below the root's.
package hook

import "github.com/readthrough-go/readthrough/internal/clock"

var (
	// WithClock returns the readthrough.CacheOption that makes c the clock of a Cache.
	WithClock func(c *clock.Clock) any

	// OnHit has f, a func(context.Context, K, V, error), called with each answer that rt, a
	// *readthrough.ReadThrough[K, V], serves from the cache within its TTL, before the caller
	// gets it. It replaces the f of an earlier call.
	OnHit func(rt, f any)

	// Inside returns the *readthrough.Cache of rt, and a func(V) (V, error) that makes of a value
	// what a hit would return for it.
	Inside func(rt any) (cache, stored any)
)
