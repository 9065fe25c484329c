package local

import (
	"context"
	"sync"
	"time"
)

// signal is a condition that is waited for.
type signal struct {
	mu   sync.Mutex
	is   bool
	when chan struct{} // closed while it is so
}

func newSignal() *signal { return &signal{when: make(chan struct{})} }

func (s *signal) set(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case is && !s.is:
		close(s.when)
	case !is && s.is:
		s.when = make(chan struct{})
	}
	s.is = is
}

// wait returns when the condition is met, after limit, or with ctx.
func (s *signal) wait(ctx context.Context, limit time.Duration) {
	s.mu.Lock()
	when := s.when
	s.mu.Unlock()
	select {
	case <-when:
		return
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-when:
	case <-timer.C:
	case <-ctx.Done():
	}
}
