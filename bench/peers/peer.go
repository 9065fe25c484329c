// Package peers puts this library and what else reads values through Redis behind
// one interface, each used as its own documentation does.
//
// Those that use go-redis have a client of their own with default options (but for
// readthrough's own Open), and all but go-redis/cache, which brings its own, and
// rockscache, which stores strings, decode with the same msgpack.
package peers

import (
	"context"
	"time"
)

// The names of the peers.
const (
	Readthrough      = "readthrough"
	InPerson         = "readthrough, Open" // on a client that keeps deadlines
	Raw              = "GET+msgpack"
	AutoPipeline     = "AutoPipeline"
	FullDuplex       = "AutoPipeline FD"
	GoRedisCache     = "go-redis/cache"
	RockscacheWeak   = "rockscache weak"
	RockscacheStrong = "rockscache strong"
	Rueidis          = "rueidis"
)

// TTL is that of all entries but where a workload is about it: so long that no run
// sees one end, and longer than the 10 s for which rockscache keeps deleted keys.
const TTL = time.Hour

// Loader is where the values come from.
type Loader[V any] func(ctx context.Context, key string) (V, error)

// Peer reads values through Redis.
type Peer[V any] interface {
	// Get returns the value from Redis, or else loads and stores it.
	Get(ctx context.Context, key string) (V, error)
	// Invalidate is what the peer's users call after they have changed the value.
	Invalidate(ctx context.Context, key string) error
	Close() error
}

// Open makes a peer on the Redis at addr.
type Open[V any] func(addr string, load Loader[V]) (Peer[V], error)

// All are the peers by name.
func All[V any]() map[string]Open[V] {
	return map[string]Open[V]{
		Readthrough:      func(addr string, load Loader[V]) (Peer[V], error) { return OpenReadthrough(addr, load) },
		InPerson:         openInPerson[V],
		Raw:              openRaw[V],
		AutoPipeline:     openAutoPipeline[V](false),
		FullDuplex:       openAutoPipeline[V](true),
		GoRedisCache:     openGoRedisCache[V],
		RockscacheWeak:   openRockscache[V](false),
		RockscacheStrong: openRockscache[V](true),
		Rueidis:          openRueidis[V],
	}
}
