// Package mux turns the concurrent commands of one process into few pipelines.
//
// A caller that finds a pipeline free has its command sent at once. Callers that
// come while all pipelines are under way queue, and leave together as the next
// one. So the load itself sets the size of the pipelines: one goroutine pays for
// no batching, and a thousand share a handful of round trips. The idea is that of
// group commit in databases (DeWitt et al., SIGMOD 1984).
//
// No caller waits for Redis longer than the timeout or its own context, whatever
// the client does: the commands run on goroutines of the mux, which are left to
// finish in the background when Redis hangs. (Only a caller whose context cannot
// end, on a client that obeys deadlines, sends its command in person; a hook of
// that client which takes longer holds it up.)
// A circuit breaker spares callers the wait while Redis is known to be down.
package mux

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// MaxPipelines is how many pipelines are under way at a time: one is being
	// answered while the next is being sent.
	MaxPipelines = 2
	// MaxCommands bounds one pipeline, so that no caller waits for too many others.
	MaxCommands = 512
	// maxBytes bounds what one pipeline carries to Redis, for the same reason.
	maxBytes = 1 << 20
	// maxStuck bounds the round trips that nobody waits for any more but that
	// the client has not given up yet. Past it, callers are refused at once.
	maxStuck = 16
	// sweepsPerTimeout is how often in one timeout it is checked who has waited too long.
	sweepsPerTimeout = 20
)

var (
	// ErrTimeout is the error of a caller who waited for Redis for the whole timeout.
	ErrTimeout = errors.New("redis did not answer in time")
	// ErrOpen is the error of a caller who was turned away because Redis is known to be down.
	ErrOpen = errors.New("redis is down: circuit breaker is open")
	// ErrClosed is the error of a caller who came after Close.
	ErrClosed = errors.New("closed")
)

// Config says how a Mux treats Redis.
type Config struct {
	Timeout  time.Duration // the longest that a caller waits for one round trip
	Failures int           // round trips that must fail in a row to open the breaker
	OpenFor  time.Duration // how long the breaker stays open before one round trip tries again
	OnState  func(open bool)
}

// Mux runs commands on one Redis client. It is safe for concurrent use.
type Mux struct {
	client  redis.UniversalClient
	timeout time.Duration
	prompt  bool // the client obeys the timeout by itself
	breaker *breaker
	calls   sync.Pool // of *call

	mu       sync.Mutex
	queue    []*call // those who wait for a pipeline, in the order of their coming
	busy     int     // pipelines under way that somebody waits for
	stuck    int     // pipelines under way that nobody waits for any more
	running  map[*trip]struct{}
	idle     []*worker
	sweeping bool
	closed   bool
	sweeper  *time.Timer
	workers  sync.WaitGroup
}

// New returns a Mux on client, which stays the caller's to close.
func New(client redis.UniversalClient, cfg Config) *Mux {
	m := &Mux{
		client:  client,
		timeout: cfg.Timeout,
		prompt:  isPrompt(client),
		breaker: newBreaker(cfg),
		running: make(map[*trip]struct{}),
	}
	m.calls.New = func() any { return &call{done: make(chan struct{}, 1)} }
	m.sweeper = time.AfterFunc(time.Hour, m.sweep)
	m.sweeper.Stop()
	return m
}

// isPrompt reports whether client gives a command up when its context's deadline
// has passed, and runs nothing of its user's meanwhile that may not (of hooks that
// cannot be seen).
func isPrompt(client redis.UniversalClient) bool {
	c, ok := client.(*redis.Client)
	if !ok {
		return false
	}
	o := c.Options()
	return o.ContextTimeoutEnabled && o.OnConnect == nil && o.Limiter == nil &&
		o.CredentialsProvider == nil && o.CredentialsProviderContext == nil && o.StreamingCredentialsProvider == nil
}

// call is what one caller waits for.
type call struct {
	ctx   context.Context
	key   string        // a GET of this key, which others may share,
	cmds  []redis.Cmder // or else these commands, one after the other on one connection
	size  int           // bytes that the call adds to its pipeline, roughly
	force bool          // sent even though the breaker is open
	since time.Time     // when it was queued; zero: it was not
	ride  *worker       // whose trip the caller makes itself

	done  chan struct{} // told once the fields below are set
	reply []byte
	err   error

	gone bool // under the Mux's lock: the caller has given up, or was released before its pipeline
	late bool // a pipeline may still read the call: it cannot be used again
}

// timeOut releases a caller who has waited for too long, once.
func (c *call) timeOut() {
	if c.late {
		return
	}
	c.gone, c.late, c.err = true, true, ErrTimeout
	c.done <- struct{}{}
}

// Get returns the value of key, or redis.Nil. The bytes may be shared with other
// callers: they must not be written to. It shares a GET with others only if that
// was not yet sent when Get was called.
func (m *Mux) Get(ctx context.Context, key string) ([]byte, error) {
	c := m.calls.Get().(*call)
	c.ctx, c.key, c.size = ctx, key, len(key)
	if err := m.await(ctx, c); err != nil {
		return nil, err
	}
	reply, err := c.reply, c.err
	m.recycle(c)
	return reply, err
}

// Do sends cmds one after the other in one round trip, possibly with those of
// other callers. The error is that of the round trip: when it is not nil, whether
// the commands were carried out is unknown, and they must not be looked at any
// more. When it is nil, at least one command was answered and each has its own
// result: on a cluster, one node may fail while the others answer.
func (m *Mux) Do(ctx context.Context, cmds ...redis.Cmder) error {
	return m.do(ctx, false, cmds)
}

// Force is Do for what must be tried even while Redis is thought to be down.
func (m *Mux) Force(ctx context.Context, cmds ...redis.Cmder) error {
	return m.do(ctx, true, cmds)
}

func (m *Mux) do(ctx context.Context, force bool, cmds []redis.Cmder) error {
	c := m.calls.Get().(*call)
	c.ctx, c.cmds, c.force, c.size = ctx, cmds, force, sizeOf(cmds)
	if err := m.await(ctx, c); err != nil {
		return err
	}
	err := c.err
	m.recycle(c)
	return err
}

// await submits c and waits for it. A nil error says that c is complete and the caller's again.
func (m *Mux) await(ctx context.Context, c *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.submit(c); err != nil {
		return err
	}
	if c.ride != nil {
		m.drive(c.ride)
	}
	quit := ctx.Done()
	if quit == nil {
		<-c.done
		return nil
	}
	select {
	case <-c.done:
		return nil
	case <-quit:
		m.abandon(c)
		return ctx.Err()
	}
}

// submit has c sent at once if it can be, and queues it if it cannot.
func (m *Mux) submit(c *call) error {
	probe, err := m.breaker.admit()
	if err != nil && !c.force {
		return err
	}
	alone := probe != nil || err != nil

	m.mu.Lock()
	defer m.mu.Unlock()
	if refusal := m.refuse(alone); refusal != nil {
		probe.withdraw()
		return refusal
	}
	switch {
	case alone:
		// The call that finds out whether Redis is back, and the call that must
		// be tried all the same, travel without company that they would hold up.
		t := newTrip(c)
		t.probe, t.solo = probe, true
		m.dispatch(t)
	case m.busy < MaxPipelines && m.prompt && c.ctx.Done() == nil:
		// Nothing can call this caller away: it saves the way to a worker and back.
		c.ride = m.board(newTrip(c))
	case m.busy < MaxPipelines:
		m.dispatch(newTrip(c))
	default:
		c.since = time.Now()
		m.queue = append(m.queue, c)
	}
	if !m.sweeping {
		m.sweeping = true
		m.sweeper.Reset(m.sweepEvery())
	}
	return nil
}

// refuse says why no further call can be taken. The Mux's lock is held.
func (m *Mux) refuse(alone bool) error {
	switch {
	case m.closed:
		return ErrClosed
	case alone && len(m.running)+m.stuck >= 2*maxStuck:
		return ErrOpen
	case !alone && m.stuck >= maxStuck:
		return ErrTimeout
	}
	return nil
}

// abandon frees the place of a caller who has given up. The call is not
// recycled: a pipeline may still hold it.
func (m *Mux) abandon(c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.gone = true
}

func (m *Mux) recycle(c *call) {
	if c.late {
		return
	}
	*c = call{done: c.done}
	m.calls.Put(c)
}

// sweep releases whoever has waited for the whole timeout, in the queue or on a
// pipeline. It runs on a timer while there is anything to watch, so that no
// caller needs a timer of its own.
func (m *Mux) sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	late := time.Now().Add(-m.timeout)
	for t := range m.running {
		if t.sent.Before(late) {
			m.giveUp(t)
		} else {
			t.leaveBehind(late)
		}
	}
	for m.busy < MaxPipelines {
		t := m.embark()
		if t == nil {
			break
		}
		m.dispatch(t)
	}
	waiting := 0
	for _, c := range m.queue {
		switch {
		case c.gone:
		case c.since.Before(late):
			c.timeOut()
		default:
			m.queue[waiting] = c
			waiting++
		}
	}
	clear(m.queue[waiting:])
	m.queue = m.queue[:waiting]
	m.sweeping = waiting > 0 || len(m.running) > 0
	if m.sweeping {
		m.sweeper.Reset(m.sweepEvery())
	}
}

func (m *Mux) sweepEvery() time.Duration {
	return max(m.timeout/sweepsPerTimeout, time.Millisecond)
}

// Close refuses new calls and waits until the pipelines under way have ended or ctx has.
func (m *Mux) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	for _, w := range m.idle {
		close(w.trips)
	}
	m.idle = nil
	m.mu.Unlock()

	ended := make(chan struct{})
	go func() { // ends with the last worker, which the client's own timeouts bound
		m.workers.Wait()
		m.breaker.tellers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		return fmt.Errorf("%d round trips have not ended: %w", len(m.running)+m.stuck, ctx.Err())
	}
}

func sizeOf(cmds []redis.Cmder) int {
	size := 0
	for _, cmd := range cmds {
		for _, arg := range cmd.Args() {
			switch arg := arg.(type) {
			case string:
				size += len(arg)
			case []byte:
				size += len(arg)
			}
		}
	}
	return size
}
