package readthrough

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// Stats counts what has happened since the start, for one wrapper or for a Cache
// and all its wrappers.
type Stats struct {
	Hits         int64 // reads answered with a fresh value from Redis
	NegativeHits int64 // reads answered with a cached not-found
	StaleHits    int64 // reads answered with a value past its TTL
	Misses       int64 // reads that found nothing fresh, and were not served a stale value at once
	Loads        int64 // calls of the loader, one for each key of a batch
	LoadErrors   int64 // loads that failed; a not-found of WithNotFound is no failure
	Collapsed    int64 // misses answered by a load that another caller began
	Shared       int64 // misses answered by an entry that was in Redis by the time the lease was asked for
	Fills        int64 // loads stored in Redis
	RefusedFills int64 // loads not stored because the key was invalidated or set meanwhile
	Unstorable   int64 // values that could not be encoded, or were too large
	Corrupt      int64 // entries in Redis that were no entry of this wrapper's
	RedisErrors  int64 // round trips that failed, or were not made because Redis was down
	Findings     int64 // ways in which Redis, as this client reaches it, breaks a promise

	Refreshes        int64 // refreshes begun in the background
	SkippedRefreshes int64 // refreshes not begun because too many were under way
	Invalidations    int64 // keys invalidated, set and deleted

	PendingInvalidations int64 // of a Cache: keys whose invalidation is still being retried
}

// EventKind says what an Event is about.
type EventKind uint8

// The kinds of Event. Each is counted in the field of Stats that has its name.
const (
	EventHit EventKind = iota
	EventNegativeHit
	EventStaleHit
	EventMiss
	EventLoad         // Took is the loader's time; Err its error, not-founds included
	EventLoadError    // follows the EventLoad
	EventCollapsed    // Took is how long the caller waited
	EventShared       // likewise
	EventFill         // Took is the round trip's time
	EventRefusedFill  // likewise
	EventUnstorable   // Err says why
	EventCorrupt      // Err says why
	EventRedisError   // Err says why
	EventRefresh      // begins in the background
	EventSkipped      // a refresh that did not begin
	EventInvalidation // of one key; Err if it may have failed
	EventBreakerOpen  // Redis is not asked any more; no Wrapper, no Key
	EventBreakerClosed
	// EventFinding is about Redis as this client reaches it: Err says which promise of
	// docs/guarantees.md it breaks, and what to do. Each Err comes once in a Cache. No Wrapper.
	EventFinding
	eventKinds
)

var eventNames = [eventKinds]string{
	"hit", "negative hit", "stale hit", "miss", "load", "load error", "collapsed", "shared", "fill", "refused fill",
	"unstorable", "corrupt", "redis error", "refresh", "skipped refresh", "invalidation", "breaker open", "breaker closed", "finding",
}

// String is the kind in words.
func (k EventKind) String() string {
	if k >= eventKinds {
		return "unknown"
	}
	return eventNames[k]
}

// Event is one thing that has happened. It holds no value.
type Event struct {
	Wrapper string        // the name given to New; empty for what concerns the whole Cache
	Key     string        // the Redis key; empty for what concerns no single key
	Kind    EventKind     // what happened
	Took    time.Duration // how long it took, where the kind says so; else 0
	Err     error         // what went wrong, if anything
}

// Observer is told what happens, on the goroutine on which it happens (a change of
// the breaker: on one of its own): Observe must be quick and safe for concurrent
// use, and not close the Cache. A panic in it is dropped.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// logObserver logs events.
type logObserver struct{ log *slog.Logger }

func (o logObserver) Observe(ctx context.Context, e Event) {
	level := slog.LevelDebug
	if e.Err != nil && e.Kind != EventLoad || e.Kind == EventBreakerOpen {
		level = slog.LevelWarn
	}
	if !o.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 4)
	if e.Wrapper != "" {
		attrs = append(attrs, slog.String("wrapper", e.Wrapper))
	}
	if e.Key != "" {
		attrs = append(attrs, slog.String("key", e.Key))
	}
	if e.Took != 0 {
		attrs = append(attrs, slog.Duration("took", e.Took))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	o.log.LogAttrs(ctx, level, "readthrough: "+e.Kind.String(), attrs...)
}

// meter counts events and passes them on to the observers.
type meter struct {
	wrapper   string
	observers []Observer
	counts    [eventKinds]atomic.Int64
}

func (m *meter) note(ctx context.Context, kind EventKind, key string, took time.Duration, err error) {
	m.counts[kind].Add(1)
	for _, o := range m.observers {
		observe(ctx, o, Event{Wrapper: m.wrapper, Key: key, Kind: kind, Took: took, Err: err})
	}
}

// observe keeps an observer's panic from ending the process: what it watches runs
// on goroutines that have no caller to panic in.
func observe(ctx context.Context, o Observer, e Event) {
	defer func() { _ = recover() }()
	o.Observe(ctx, e)
}

func (m *meter) addTo(s *Stats) {
	for kind, field := range map[EventKind]*int64{
		EventHit: &s.Hits, EventNegativeHit: &s.NegativeHits, EventStaleHit: &s.StaleHits, EventMiss: &s.Misses,
		EventLoad: &s.Loads, EventLoadError: &s.LoadErrors, EventCollapsed: &s.Collapsed, EventShared: &s.Shared,
		EventFill: &s.Fills, EventRefusedFill: &s.RefusedFills, EventUnstorable: &s.Unstorable,
		EventCorrupt: &s.Corrupt, EventRedisError: &s.RedisErrors, EventRefresh: &s.Refreshes,
		EventSkipped: &s.SkippedRefreshes, EventInvalidation: &s.Invalidations, EventFinding: &s.Findings,
	} {
		*field += m.counts[kind].Load()
	}
}

// Source says where a value came from.
type Source uint8

// The sources of a value.
const (
	SourceNone     Source = iota // there is no value: the call failed
	SourceHit                    // Redis had it
	SourceStale                  // Redis had it, past its TTL
	SourceNegative               // Redis had it as not found
	SourceLoaded                 // the loader, called for this call
	SourceShared                 // the loader, called for another call, here or in another process
)

// String is the source in a word.
func (s Source) String() string {
	switch s {
	case SourceHit:
		return "hit"
	case SourceStale:
		return "stale"
	case SourceNegative:
		return "negative"
	case SourceLoaded:
		return "loaded"
	case SourceShared:
		return "shared"
	}
	return "none"
}

// Info says where the value of a GetInfo came from, and how old it is.
type Info struct {
	Source Source
	Age    time.Duration // since it was loaded
	TTL    time.Duration // until it is stale; negative if it is, NoExpiry if it never will be
	Stored bool          // this process has just stored it in Redis
}

// fill describes a value that came from source with the header e. A nil Info is
// one that nobody asked for.
func (i *Info) fill(source Source, e *entry.Entry, stored bool) {
	if i == nil {
		return
	}
	now := time.Now()
	*i = Info{Source: source, Age: max(now.Sub(e.LoadedAt), 0), TTL: NoExpiry, Stored: stored}
	if !e.FreshUntil.IsZero() {
		i.TTL = e.FreshUntil.Sub(now)
	}
}
