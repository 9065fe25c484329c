package mux

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// request is what a caller asks of Redis: one GET, or commands of its own.
type request struct {
	ctx   context.Context
	key   string        // a GET of this key, which others may share,
	cmds  []redis.Cmder // or else these commands, one after the other on one connection
	size  int           // of cmds, roughly, on their way to Redis
	learn *ReplySize    // of what Redis answers; nil: not known, and not learned
	force bool          // to be sent even while the breaker is open
}

// commands returns how many commands r adds to its pipeline.
func (r *request) commands() int { return max(1, len(r.cmds)) }

// bytes returns roughly how many bytes r adds to its pipeline, to Redis and back.
func (r *request) bytes() int { return r.size + len(r.key) + r.commands()*r.learn.expected() }

// waiter is a caller of Get, Do or Force: its request, and the place for its result. Waiters are
// reused, since a hit should cost few allocations.
type waiter struct {
	request
	queuedAt time.Time // zero if it never queued

	done  chan struct{} // receives once, after reply and err are set
	reply []byte
	err   error

	// gone is guarded by node.mu. It says that nobody waits any more: the caller has left, or the
	// waiter has timed out. The queue skips it.
	gone bool
	// timedOut is guarded by node.mu until the waiter's pipeline has ended. It says that the waiter
	// was released ahead of its pipeline, which may still read the request: it is never reused.
	timedOut bool
}

// newWaiter returns a waiter with r for its request, a used one if possible.
func (n *node) newWaiter(r request) *waiter {
	w := n.waiters.Get().(*waiter)
	w.request = r
	return w
}

// recycle keeps w for another caller, unless a pipeline may still read it.
func (n *node) recycle(w *waiter) {
	if w.timedOut {
		return
	}
	*w = waiter{done: w.done}
	n.waiters.Put(w)
}

// leave notes that the caller of w has given up. It does not recycle w, which the queue or a
// pipeline may still hold.
func (n *node) leave(w *waiter) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w.gone = true
}

// timeOut releases w with ErrTimeout, once. node.mu is held.
func (w *waiter) timeOut() {
	if w.timedOut {
		return
	}
	w.gone, w.timedOut, w.err = true, true, ErrTimeout
	w.done <- struct{}{}
}

// excuse does not count late of the time that w has waited since it queued. node.mu is held.
func (w *waiter) excuse(late time.Duration) {
	if !w.queuedAt.IsZero() {
		w.queuedAt = w.queuedAt.Add(late)
	}
}

// sizeOf returns roughly how many bytes cmd is on the wire: those of its strings and byte slices,
// which alone can be large.
func sizeOf(cmd redis.Cmder) int {
	size := 0
	for _, arg := range cmd.Args() {
		switch arg := arg.(type) {
		case string:
			size += len(arg)
		case []byte:
			size += len(arg)
		}
	}
	return size
}
