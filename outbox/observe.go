package outbox

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what a relay has done since it was made.
type Stats struct {
	Relayed int64         // rows whose entries were deleted from the cache
	Failed  int64         // attempts to do so that failed, counted for each row; they are repeated
	Errors  int64         // failures of the database, and of the listeners of WithWakeUps
	Lag     time.Duration // from Add to the relay, of the oldest row of the last batch relayed; 0 at first
}

// EventKind says what an Event is about.
type EventKind uint8

// The kinds of Event. Each is counted in the field of Stats that is named beside it.
const (
	EventRelayed EventKind = iota // Relayed: the entries at Keys were deleted from the cache
	EventFailed                   // Failed: the entries at Keys may not have been; Err says why
	EventError                    // Errors: the database or a listener failed; Err says how
)

// String returns the kind in words.
func (k EventKind) String() string {
	switch k {
	case EventRelayed:
		return "relayed"
	case EventFailed:
		return "failed"
	case EventError:
		return "error"
	}
	return "unknown"
}

// Event is one thing that a relay has done, or failed to do.
type Event struct {
	Kind EventKind
	Rows int           // how many rows it is about
	Keys []string      // their Redis keys, each once; of a row that is no key, as it is stored
	Lag  time.Duration // from Add to the relay, of the oldest of the rows
	Wait time.Duration // until the next attempt, if it has failed
	Err  error
}

// meter counts events and passes them on.
type meter struct {
	relayed, failed, errors, lag atomic.Int64

	mu      sync.Mutex // calls of onEvent come one at a time
	onEvent func(Event)
}

func (m *meter) note(e Event) {
	switch e.Kind {
	case EventRelayed:
		m.relayed.Add(int64(e.Rows))
		m.lag.Store(int64(e.Lag))
	case EventFailed:
		m.failed.Add(int64(e.Rows))
	case EventError:
		m.errors.Add(1)
	}
	if m.onEvent != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.onEvent(e)
	}
}

func (m *meter) stats() Stats {
	return Stats{
		Relayed: m.relayed.Load(), Failed: m.failed.Load(), Errors: m.errors.Load(),
		Lag: time.Duration(m.lag.Load()),
	}
}
