package readthrough

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/internal/clock"
	"github.com/readthrough-go/readthrough/internal/drain"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// Stats counts what has happened since the start, for one wrapper or for a Cache and all its
// wrappers.
type Stats struct {
	Hits         int64 // reads answered with a fresh value from Redis
	NegativeHits int64 // reads answered with a cached not-found
	StaleHits    int64 // reads answered with a value past its TTL
	Misses       int64 // reads that found nothing fresh, and were not served a stale value at once
	Loads        int64 // calls of the loader, one for each key of a batch
	LoadErrors   int64 // loads that failed; a not-found of WithNotFound is no failure
	Shared       int64 // misses answered by the load of another call, in this process or in another
	Collapsed    int64 // those of Shared whose load another call in this process began
	Fills        int64 // loads stored in Redis
	RefusedFills int64 // loads not stored because the key was invalidated or set meanwhile
	Unstorable   int64 // values that could not be encoded, or were too large
	Corrupt      int64 // entries in Redis that were no entry of this wrapper's
	RedisErrors  int64 // round trips that failed, or were not made because Redis was down

	Forgotten        int64 // entries that WithAudit has found to be out of date, and nobody has invalidated
	Refreshes        int64 // refreshes begun in the background
	SkippedRefreshes int64 // refreshes not begun because too many were under way
	Invalidations    int64 // keys invalidated, set and deleted

	// Of a Cache only:
	PendingInvalidations int64 // keys whose invalidation is still being retried
	DroppedInvalidations int64 // pending invalidations given up because over 100,000 were pending
	RefusedCommands      int64 // commands that Redis has begun to refuse, so that it is done without
	Findings             int64 // ways in which Redis, as reached, breaks a promise or costs more than it need

	// Of WithLocal:
	LocalHits      int64 // reads answered with a copy in this process; they are no Hits
	LocalEvictions int64 // copies that made room for others
	LocalLost      int64 // times that the lease was lost, and all copies with it; of a Cache only
	LocalReady     int64 // times that copies were served from then on; of a Cache only
	Fences         int64 // writes that have told the other processes; of a Cache only
	FencesWaited   int64 // those that had to wait for leases to be over; of a Cache only
	LocalMembers   int64 // other processes with copies, as the last fence has found them; of a Cache only
}

// EventKind says what an Event is about.
type EventKind uint8

// The kinds of Event. Those about reads, loads and writes are counted in the field of Stats that is
// named beside them; those of the breaker are not counted.
const (
	EventHit                 EventKind = iota // Hits
	EventNegativeHit                          // NegativeHits
	EventStaleHit                             // StaleHits
	EventMiss                                 // Misses
	EventLoad                                 // Loads: Took is the loader's time, Err its error, not-founds included
	EventLoadError                            // LoadErrors: follows the EventLoad
	EventCollapsed                            // Collapsed: followed by EventShared, and likewise
	EventShared                               // Shared: Took is how long the caller waited
	EventFill                                 // Fills: Took is the round trip's time
	EventRefusedFill                          // RefusedFills: Took is the round trip's time
	EventUnstorable                           // Unstorable: Err says why
	EventCorrupt                              // Corrupt: Err says why
	EventRedisError                           // RedisErrors: Err says why
	EventRefresh                              // Refreshes: it begins in the background
	EventSkipped                              // SkippedRefreshes: it does not begin
	EventForgotten                            // Forgotten: Took is the entry's age; Err says so
	EventInvalidation                         // Invalidations: of one key; Err if it may have failed
	EventDroppedInvalidation                  // DroppedInvalidations: the key may stay stale until it expires; no Wrapper
	EventRefusedCommand                       // RefusedCommands: Err says which, and what is done instead; only that
	EventFinding                              // Findings: Err says, once, what is wrong with Redis or client; no Wrapper
	EventBreakerOpen                          // Redis is not asked any more; no Wrapper, no Key
	EventBreakerClosed                        // Redis is asked again; no Wrapper, no Key
	EventLocalHit                             // LocalHits
	EventLocalLost                            // LocalLost: Err says why; no Wrapper, no Key
	EventLocalReady                           // LocalReady; no Wrapper, no Key
	EventFence                                // Fences: Took is how long it took; no Wrapper, no Key
	EventFenceWaited                          // FencesWaited: follows the EventFence; no Wrapper, no Key
	eventKinds
)

var eventNames = [eventKinds]string{
	"hit", "negative hit", "stale hit", "miss", "load", "load error", "collapsed", "shared", "fill", "refused fill",
	"unstorable", "corrupt", "redis error", "refresh", "skipped refresh", "forgotten", "invalidation",
	"dropped invalidation",
	"refused command", "finding", "breaker open", "breaker closed", "local hit", "local copies lost", "local copies ready",
	"fence", "fence waited",
}

// String returns the kind in words.
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

// Observer is told what happens, on the goroutine of the caller to whom it happens, who waits, or on
// one of its own. Observe must be quick and safe for concurrent use. It may call any
// method of the Cache and its wrappers but Close and Shutdown. What takes longer than
// 100 ms is no longer waited for; then events can come at the same time and out of order,
// and some are not told at all if it hangs. A panic in it is dropped.
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
		attrs = append(attrs, slog.String("error", textOf(e.Err)))
	}
	o.log.LogAttrs(ctx, level, "readthrough: "+e.Kind.String(), attrs...)
}

// meter counts events and passes them on to the observers.
type meter struct {
	wrapper  string
	audience *audience
	counts   [eventKinds]atomic.Int64
}

// note is for events of a caller: observers are told on its goroutine, unless one of them
// may be what calls.
func (m *meter) note(ctx context.Context, kind EventKind, key string, took time.Duration, err error) {
	m.counts[kind].Add(1)
	if a := m.audience; len(a.observers) > 0 {
		e := Event{Wrapper: m.wrapper, Key: key, Kind: kind, Took: took, Err: err}
		if a.told.Load() == 0 {
			a.tell(ctx, e)
		} else {
			a.tellApart(ctx, e)
		}
	}
}

// noteApart is note for what others wait for: neither an observer that ends its goroutine
// nor one that waits for them, too, must hold them up.
func (m *meter) noteApart(ctx context.Context, kind EventKind, key string, took time.Duration, err error) {
	m.counts[kind].Add(1)
	if len(m.audience.observers) > 0 {
		m.audience.tellApart(ctx, Event{Wrapper: m.wrapper, Key: key, Kind: kind, Took: took, Err: err})
	}
}

// audience is the observers of a Cache.
type audience struct {
	observers []Observer
	work      *drain.Group
	told      atomic.Int64 // events that observers are being told
	late      atomic.Int64 // those of them that nobody waits for any more
}

const (
	// observeTimeout is how long an observer is waited for.
	observeTimeout = 100 * time.Millisecond
	// maxTold bounds the goroutines in which observers hang.
	maxTold = 1000
)

// tell tells all observers of e.
func (a *audience) tell(ctx context.Context, e Event) {
	a.told.Add(1)
	defer a.told.Add(-1)
	tellEach(ctx, a.observers, e)
}

// tellEach tells each observer of e, even after one that panics or ends the goroutine.
func tellEach(ctx context.Context, observers []Observer, e Event) {
	if len(observers) == 0 {
		return
	}
	defer tellEach(ctx, observers[1:], e)
	defer func() { _ = recover() }()
	observers[0].Observe(ctx, e)
}

// tellApart is tell on a goroutine of its own. It returns when that has ended, or before
// if some observer takes too long.
func (a *audience) tellApart(ctx context.Context, e Event) {
	late := a.late.Load() > 0
	if a.told.Add(1) > maxTold && late {
		a.told.Add(-1)
		return
	}
	told := make(chan struct{})
	a.work.Go(func() { // ends with the observers
		defer close(told)
		defer a.told.Add(-1)
		tellEach(ctx, a.observers, e)
	})
	if late {
		return
	}
	timer := time.NewTimer(observeTimeout)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
		a.late.Add(1)
		a.work.Go(func() { // ends with the observers
			<-told
			a.late.Add(-1)
		})
	}
}

func (m *meter) addTo(s *Stats) {
	for kind, field := range map[EventKind]*int64{
		EventHit: &s.Hits, EventNegativeHit: &s.NegativeHits, EventStaleHit: &s.StaleHits, EventMiss: &s.Misses,
		EventLoad: &s.Loads, EventLoadError: &s.LoadErrors, EventCollapsed: &s.Collapsed, EventShared: &s.Shared,
		EventFill: &s.Fills, EventRefusedFill: &s.RefusedFills, EventUnstorable: &s.Unstorable,
		EventCorrupt: &s.Corrupt, EventRedisError: &s.RedisErrors, EventRefresh: &s.Refreshes,
		EventSkipped: &s.SkippedRefreshes, EventForgotten: &s.Forgotten, EventInvalidation: &s.Invalidations,
		EventDroppedInvalidation: &s.DroppedInvalidations, EventRefusedCommand: &s.RefusedCommands,
		EventFinding:   &s.Findings,
		EventLocalLost: &s.LocalLost, EventLocalReady: &s.LocalReady,
		EventFence: &s.Fences, EventFenceWaited: &s.FencesWaited,
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
	SourceShared                 // the loader, called for another call, in this process or in another
	SourceLocal                  // this process had a copy of it, or of a not-found: WithLocal
)

// String returns the source in a word.
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
	case SourceLocal:
		return "local"
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
func (i *Info) fill(source Source, e *entry.Entry, stored bool, c *clock.Clock) {
	if i == nil {
		return
	}
	now := c.Now()
	*i = Info{Source: source, Age: max(now.Sub(e.LoadedAt), 0), TTL: NoExpiry, Stored: stored}
	if !e.FreshUntil.IsZero() {
		i.TTL = e.FreshUntil.Sub(now)
	}
}

// CacheStatus renders i as a member of the Cache-Status header (RFC 9211), for a
// cache of the given name. A name that is no token of HTTP is quoted.
func (i Info) CacheStatus(name string) string {
	status := cacheName(name)
	switch i.Source {
	case SourceHit, SourceStale, SourceNegative, SourceLocal:
		status += "; hit"
	default:
		status += "; fwd=miss"
	}
	if i.Source != SourceNone && i.TTL != NoExpiry {
		status += fmt.Sprintf("; ttl=%d", int64(math.Floor(i.TTL.Seconds())))
	}
	if i.Stored {
		status += "; stored"
	}
	switch i.Source {
	case SourceShared:
		status += "; collapsed"
	case SourceNegative:
		status += "; detail=negative"
	}
	return status
}

// cacheName is name as an item of a structured field (RFC 8941): a token, or else a
// string, in which what a string cannot hold is replaced.
func cacheName(name string) string {
	isToken := name != ""
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '*'
		inside := r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'+-.^_`|~:/", r)
		isToken = isToken && (letter || inside && i > 0)
	}
	if isToken {
		return name
	}
	var quoted strings.Builder
	quoted.WriteByte('"')
	for _, r := range name {
		switch {
		case r < ' ' || r > '~':
			r = '?'
		case r == '"' || r == '\\':
			quoted.WriteByte('\\')
		}
		quoted.WriteRune(r)
	}
	quoted.WriteByte('"')
	return quoted.String()
}
