// Package fill is the engine of a miss: it takes the fill lease in Redis, calls the
// loader, stores what it returned and hands the result to those who wait for it.
//
// What happens next, and who may share the result, is decided by lease.Protocol; who
// waits for what is kept by flight.Group. The engine carries the decisions out.
package fill

import (
	"context"
	"sync"
	"time"

	"github.com/readthrough-go/readthrough/internal/clock"
	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// Wrapper is what the engine needs of the wrapper that it fills for.
type Wrapper[K, V any] struct {
	Load func(ctx context.Context, k K) (V, error)
	// LoadMany answers by Redis key. Nil: there is no batch loader.
	LoadMany func(ctx context.Context, ks []K) (map[string]V, error)
	Missing  error // of a key that LoadMany leaves out
	// Same reports whether k, which its owner may have changed, still has this Redis key.
	Same     func(k K, key string) bool
	Panicked func(value any) error // what a panic of the code above becomes, with its stack

	// Encode makes the entry of a value at a Redis key, EncodeErr that of a loader's error
	// if it is an answer (a cached not-found). Either may call the user's code.
	Encode    func(key string, v V, loaded Loaded) (Entry, error)
	EncodeErr func(err error, loaded Loaded) (e Entry, ok bool)
	// Decode takes apart an entry that another process has stored. It reports false if
	// the entry is not fresh, or none that this wrapper can read.
	Decode func(key string, raw []byte) (Result[V], bool)

	Note func(ctx context.Context, kind Event, key string, took time.Duration, err error)
	Go   func(f func()) // runs f on a goroutine whose end Close waits for
}

// Settings are the limits of an engine.
type Settings struct {
	TTL            time.Duration // bounds the pause after failed loads
	LoadTimeout    time.Duration
	LeaseTTL       time.Duration
	LeaseWait      time.Duration // how long another process's load is waited for
	RedisTimeout   time.Duration // of one step of the protocol
	BackgroundFill bool          // callers are answered before the value is stored
	LoadLimit      int           // loads at a time; 0: any number
	TripBytes      int           // how much the Doer of the leases sends to Redis in one round trip
	BatchSize      int           // keys in one call of LoadMany
	GatherWindow   time.Duration // 0: single misses are not gathered
	GatherSize     int
	Clock          *clock.Clock // by which entries age, and pauses end; nil: the machine's
}

// Event is something that the engine tells its wrapper by Note.
type Event uint8

// The events.
const (
	LoadEnded   Event = iota // with the loader's time, and its error
	LoadFailed               // follows LoadEnded if the error is no answer
	Filled                   // the value was stored
	FillRefused              // the lease was lost: the key was invalidated or set meanwhile
	Unstorable               // the value cannot be stored
	RedisFailed              // a step of the protocol failed
	Refreshing               // a background refresh begins
	RefreshSkipped
)

// Loaded says when a load ended and how long it took.
type Loaded struct {
	At   time.Time
	Took time.Duration
}

// Entry is what a load stores.
type Entry struct {
	Header entry.Entry
	Bytes  []byte
	Keep   time.Duration // in Redis; zero: until it is deleted
	Skip   bool          // it is not to be stored, by the wish of the user
}

// Result is what a load brings its callers.
type Result[V any] struct {
	Value    V
	Err      error
	Panic    error       // what Panicked made of a panic: to be raised again in each caller
	Header   entry.Entry // of the value's entry
	Bytes    []byte      // the entry, from which callers can decode values of their own
	NotFound bool        // Err is an answer, not a failure
	Shared   bool        // another process loaded it
	Stored   bool        // this process has stored it
	Changed  bool        // the K was changed meanwhile: only its owner can use the rest
}

// Failed reports whether the load brought no answer.
func (r *Result[V]) Failed() bool { return (r.Err != nil || r.Panic != nil) && !r.NotFound }

// Engine fills the cache for one wrapper. It is safe for concurrent use.
type Engine[K, V any] struct {
	wrapper   Wrapper[K, V]
	settings  Settings
	leases    *lease.Store
	flights   flight.Group[Result[V]]
	gather    *gather[K, V] // nil: each miss loads for itself
	loads     Slots         // of WithLoadLimit
	refreshes Slots         // shared by all engines of a cache
	audits    sync.Map      // of context.CancelFunc, by the key that is being audited
	backoff   backoff
}

// New returns an engine that fills for w through leases. refreshes bounds the background
// refreshes of all engines that share it.
func New[K, V any](w Wrapper[K, V], s Settings, leases *lease.Store, refreshes Slots) *Engine[K, V] {
	e := &Engine[K, V]{
		wrapper: w, settings: s, leases: leases,
		loads: NewSlots(s.LoadLimit), refreshes: refreshes, backoff: backoff{clock: s.Clock},
	}
	if s.GatherWindow > 0 && w.LoadMany != nil {
		e.gather = &gather[K, V]{window: s.GatherWindow, size: s.GatherSize}
	}
	return e
}

// Seat is a caller's place in a load.
type Seat[V any] = flight.Seat[Result[V]]

// Miss is a key that a caller did not find.
type Miss[K any] struct {
	K     K
	Key   string // its Redis key
	Alone bool   // the caller has waited for Redis in vain: the load does not ask it again
}

// Join takes a seat in the load of a key, and begins one if there is none.
func (e *Engine[K, V]) Join(ctx context.Context, m Miss[K]) *Seat[V] {
	seat, begun := e.flights.Join(ctx, m.Key)
	return e.start(seat, begun, m)
}

// JoinFresh is Join for a caller who wants the loader called from now on, whatever is
// stored.
func (e *Engine[K, V]) JoinFresh(ctx context.Context, m Miss[K]) *Seat[V] {
	seat, begun := e.flights.JoinFresh(ctx, m.Key)
	return e.start(seat, begun, m)
}

// start has the flight that seat's caller has begun, if it has, taken to its end.
func (e *Engine[K, V]) start(seat *Seat[V], begun *flight.Flight[Result[V]], m Miss[K]) *Seat[V] {
	if begun == nil {
		return seat
	}
	r := e.newRun(begun, m.K, firstStep(m.Alone))
	run := e.run
	if e.gather != nil {
		run = e.runGathered
	}
	e.wrapper.Go(func() { run([]*loadRun[K, V]{r}) }) // ends with the load, which the load timeout bounds
	return seat
}

// JoinMany takes seats in the loads of several keys, and begins one for those that have
// none: together, so that each step is one round trip, or one call of the batch loader,
// for all of them.
func (e *Engine[K, V]) JoinMany(ctx context.Context, misses []Miss[K]) []*Seat[V] {
	keys := make([]string, len(misses))
	byKey := make(map[string]*Miss[K], len(misses))
	for i := range misses {
		keys[i] = misses[i].Key
		byKey[keys[i]] = &misses[i]
	}
	seats, begun := e.flights.JoinMany(ctx, keys)
	if len(begun) == 0 {
		return seats
	}
	rs := make([]*loadRun[K, V], len(begun))
	for i, f := range begun {
		m := byKey[f.Key]
		rs[i] = e.newRun(f, m.K, firstStep(m.Alone))
		rs[i].batched = true
	}
	e.wrapper.Go(func() { e.run(rs) }) // ends with the loads, which the load timeout bounds
	return seats
}

// Forget keeps callers from joining what is being loaded for key, and lifts the pause
// after a failed load: the key was written.
func (e *Engine[K, V]) Forget(key string) {
	e.flights.Forget(key)
	e.backoff.forget(key)
}

// Stop cancels the loads that nobody waits for.
func (e *Engine[K, V]) Stop() {
	e.flights.Stop()
	e.audits.Range(func(_, cancel any) bool {
		cancel.(context.CancelFunc)()
		return true
	})
}

// Busy reports whether a load would have to wait for the limit of loads.
func (e *Engine[K, V]) Busy() bool { return e.loads.full() }

// run takes runs that begin together to their end: this loop is the protocol.
func (e *Engine[K, V]) run(rs []*loadRun[K, V]) {
	for len(rs) > 0 {
		slot := e.takeSlot(rs)
		e.acquire(atStep(rs, lease.Acquire))
		e.finish(atStep(rs, lease.Finish))
		loading, waiting := e.split(rs)
		e.load(loading, slot)
		e.settle(atStep(loading, lease.Fill), atStep(loading, lease.Release))
		e.finish(loading)
		e.pause(waiting)
		rs = waiting
	}
}

// atStep returns the runs whose next protocol step is step.
func atStep[K, V any](rs []*loadRun[K, V], step lease.Step) []*loadRun[K, V] {
	if len(rs) == 1 { // the common case allocates nothing
		if rs[0].Step == step {
			return rs
		}
		return nil
	}
	var those []*loadRun[K, V]
	for _, r := range rs {
		if r.Step == step {
			those = append(those, r)
		}
	}
	return those
}
