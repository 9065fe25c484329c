package readthrough

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/internal/drain"
)

// closeTimeout is how long Close waits for what is under way.
const closeTimeout = 5 * time.Second

// The phases of a Cache.
const (
	open     int32 = iota
	draining       // Close waits for the calls under way, and only their loaders may make new ones
	closed
)

// closing is how far Close has come.
type closing struct {
	phase atomic.Int32
	ended chan struct{} // closed when Close has ended
	err   error         // what Close returned; to be read after ended
}

// enter counts a call, which Close then waits for, until its End. It returns ErrClosed
// if Close has begun, but not to a loader of a call under way.
func (c *Cache) enter(ctx context.Context) (call *drain.Stripe, err error) {
	call = c.work.Begin()
	if phase := c.closing.phase.Load(); phase == closed || phase == draining && ctx.Value(c) == nil {
		err = ErrClosed
	}
	return call, err
}

// apart runs f on a goroutine of its own, which the user's code in it may end, and returns
// when that has ended.
func (c *Cache) apart(f func()) {
	ended := make(chan struct{})
	c.work.Go(func() { // ends with f
		defer close(ended)
		f()
	})
	<-ended
}

// within returns the context of a load, by which enter knows the calls of its loader.
func (c *Cache) within(ctx context.Context) context.Context { return context.WithValue(ctx, c, true) }

// Close refuses new calls with ErrClosed, ends background work, and waits for the calls
// under way, and for what their loaders call, up to 5 seconds; use Shutdown for another
// limit. Invalidations that could not reach Redis are tried a last time. The client stays
// open. A Close that comes meanwhile waits for the first, and returns its error; a later
// one returns nil.
func (c *Cache) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.Shutdown(ctx)
}

// Shutdown is Close with the caller's limit. Its error says what had not ended
// when ctx did, or which keys may still hold what was invalidated.
func (c *Cache) Shutdown(ctx context.Context) error {
	if c.beginClose() {
		c.closing.err = c.drain(ctx)
		close(c.closing.ended)
		return c.closing.err
	}
	select {
	case <-c.closing.ended:
		return nil
	default:
	}
	select {
	case <-c.closing.ended:
		return c.closing.err
	case <-ctx.Done():
		return failed("close", fmt.Errorf("another Close is under way: %w", ctx.Err()))
	}
}

// beginClose refuses new calls and stops what nobody waits for. It reports false if the
// Cache is being closed already.
func (c *Cache) beginClose() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing.phase.CompareAndSwap(open, draining) {
		return false
	}
	c.retries.Stop()
	for _, w := range c.wrappers {
		w.stop()
	}
	return true
}

// drain waits for what is under way until ctx ends, and tries what is left to invalidate.
func (c *Cache) drain(ctx context.Context) error {
	c.tier.Retire(ctx)
	waited := c.work.Wait(ctx)
	if waited != nil {
		waited = failed("close", fmt.Errorf("calls are still under way: %w", waited))
	}
	c.closing.phase.Store(closed)
	if c.disabled() {
		return waited
	}
	// The last attempt has time of its own: the wait may have used up that of ctx.
	last := ctx
	if deadline, limited := ctx.Deadline(); ctx.Err() != nil || limited && time.Until(deadline) < c.settings.redisTimeout {
		var cancel context.CancelFunc
		last, cancel = context.WithTimeout(context.WithoutCancel(ctx), c.settings.redisTimeout)
		defer cancel()
	}
	var pending error
	if left, err := c.retries.Last(last); err != nil {
		pending = &WriteError{Op: "close: invalidate", Keys: left, Err: redisError(last, err)}
	}
	if err := c.tier.Close(ctx); err != nil && waited == nil {
		waited = failed("close", fmt.Errorf("the local tier has not ended: %w", err))
	}
	if err := c.mux.Close(ctx); err != nil && waited == nil {
		waited = failed("close", err)
	}
	return joined(waited, pending)
}
