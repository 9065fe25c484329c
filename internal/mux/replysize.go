package mux

import "sync/atomic"

// ReplySize is a moving average of the size of values, learned from the values that came. The zero
// ReplySize has seen none.
type ReplySize struct{ bytes atomic.Int64 }

// expected returns how large the next value may be. A nil ReplySize knows nothing.
func (s *ReplySize) expected() int {
	if s == nil {
		return 0
	}
	return int(s.bytes.Load())
}

// saw learns from a value of n bytes. Calls at the same time may undo each other: an average can do
// without one of them.
func (s *ReplySize) saw(n int) {
	if s == nil || n == 0 {
		return
	}
	old := s.bytes.Load()
	average := old + (int64(n)-old)/8
	if old == 0 {
		average = int64(n)
	}
	if average != old {
		s.bytes.Store(average)
	}
}
