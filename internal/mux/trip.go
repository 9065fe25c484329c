package mux

import (
	"context"
	"runtime"
	"time"

	"github.com/redis/go-redis/v9"
)

// trip is one round trip to Redis: the calls that travel together.
type trip struct {
	calls  []*call
	one    [1]*call           // the backing array of calls for a call on its own
	gets   []*redis.StringCmd // the GET that answers each of calls; nil for a call with commands of its own
	get    [1]*redis.StringCmd
	args   [2]any // of the GET for a call on its own: one allocation serves all
	ctx    tripContext
	sent   time.Time
	cancel context.CancelFunc
	probe  *probe
	solo   bool // counts for no pipeline
	over   bool // under the Mux's lock: its callers are being released, or have been
}

// newTrip is a trip for one call.
func newTrip(c *call) *trip {
	t := &trip{one: [1]*call{c}}
	t.calls = t.one[:]
	return t
}

// worker is a goroutine that makes one trip after the other. It keeps its stack,
// grown to what go-redis needs, from one to the next.
type worker struct {
	trips  chan *trip
	lent   *trip           // that a caller makes in place of the worker's goroutine
	ctx    context.Context // cancelled when a trip is given up, so that the client stops retrying
	cancel context.CancelFunc
}

// dispatch hands t to a worker. The Mux's lock is held.
func (m *Mux) dispatch(t *trip) {
	w := m.hire()
	m.depart(w, t)
	w.trips <- t
}

// board keeps a worker free for t, which the caller makes itself by drive. The
// Mux's lock is held.
func (m *Mux) board(t *trip) *worker {
	w := m.hire()
	m.depart(w, t)
	w.lent = t
	m.workers.Add(1) // for the caller
	return w
}

// lose counts out a trip that does not arrive, and its worker.
func (m *Mux) lose(w *worker, t *trip) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.over {
		m.stuck--
	} else {
		delete(m.running, t)
		m.busy--
	}
	close(w.trips)
}

// hire returns a worker that is idle, or a new one. The Mux's lock is held.
func (m *Mux) hire() *worker {
	if n := len(m.idle); n > 0 {
		// The last to become idle is the one whose caches are warm.
		w := m.idle[n-1]
		m.idle = m.idle[:n-1]
		return w
	}
	w := &worker{trips: make(chan *trip, 1)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	m.workers.Add(1)
	go m.work(w) // ends when it is not worth keeping, or at Close, which waits for it
	return w
}

// drive makes the trip that w has lent to its caller.
func (m *Mux) drive(w *worker) {
	defer m.workers.Done()
	t := w.lent
	w.lent = nil
	arrived := false
	defer func() {
		if !arrived { // a hook of the client's has panicked
			m.lose(w, t)
		}
	}()
	m.send(w, t)
	arrived = true
	switch next, keep := m.arrive(w, t); {
	case next != nil:
		w.trips <- next
	case !keep:
		close(w.trips)
	}
}

// depart counts t as under way. The Mux's lock is held.
func (m *Mux) depart(w *worker, t *trip) {
	t.cancel = w.cancel
	t.sent = time.Now()
	m.running[t] = struct{}{}
	if !t.solo {
		m.busy++
	}
}

// work makes the trips that w is handed and, after each, those that the queue asks for.
func (m *Mux) work(w *worker) {
	defer m.workers.Done()
	defer w.cancel()
	for t := range w.trips {
		for t != nil {
			m.send(w, t)
			var keep bool
			if t, keep = m.arrive(w, t); !keep {
				return
			}
		}
	}
}

// send makes the round trip. What it writes to is the trip's, never a call's: if
// the trip is given up, its calls belong to others by the time the client returns.
func (m *Mux) send(w *worker, t *trip) {
	t.ctx = tripContext{w.ctx, t.calls[0].ctx, t.sent.Add(m.timeout)}
	ctx := &t.ctx
	if len(t.calls) == 1 && t.calls[0].cmds == nil {
		t.args = [2]any{"get", t.calls[0].key}
		t.get[0] = redis.NewStringCmd(ctx, t.args[:]...)
		t.gets = t.get[:]
		_ = m.client.Process(ctx, t.get[0]) // the command keeps its error
		return
	}
	pipe := m.client.Pipeline()
	t.gets = make([]*redis.StringCmd, len(t.calls))
	asked := make(map[string]*redis.StringCmd, len(t.calls))
	for i, c := range t.calls {
		if c.cmds != nil {
			_ = pipe.BatchProcess(ctx, c.cmds...) // queues them; cannot fail
			continue
		}
		get := asked[c.key]
		if get == nil {
			get = redis.NewStringCmd(ctx, "get", c.key)
			asked[c.key] = get
			_ = pipe.Process(ctx, get) // queues it; cannot fail
		}
		t.gets[i] = get
	}
	if cmds, err := pipe.Exec(ctx); err != nil {
		blame(cmds, err)
	}
}

// arrive releases the callers of t, and returns the next trip if some callers are
// waiting for one, and whether w is still needed.
func (m *Mux) arrive(w *worker, t *trip) (next *trip, keep bool) {
	m.mu.Lock()
	if t.over {
		m.stuck--
		m.mu.Unlock()
		return nil, false
	}
	t.over = true
	delete(m.running, t)
	if t.solo || len(t.calls) == 1 && len(m.queue) == 0 {
		// A caller on its own finds the worker idle again when it comes back.
		keep = m.rest(w, t)
		m.mu.Unlock()
		m.release(t)
		return nil, keep
	}
	m.mu.Unlock()
	m.release(t)

	// Those who have just been released are likely to come back. Going behind
	// them lets them leave together.
	runtime.Gosched()

	m.mu.Lock()
	defer m.mu.Unlock()
	next = m.embark()
	if next == nil {
		return nil, m.rest(w, t)
	}
	m.busy--
	m.depart(w, next)
	return next, true
}

// rest ends the count of t and keeps w for another trip if it is worth keeping.
// The Mux's lock is held.
func (m *Mux) rest(w *worker, t *trip) bool {
	if !t.solo {
		m.busy--
	}
	if m.closed || len(m.idle) >= MaxPipelines {
		return false
	}
	m.idle = append(m.idle, w)
	return true
}

// embark takes those who leave next from the queue: nil if nobody waits. The
// Mux's lock is held.
func (m *Mux) embark() *trip {
	t := &trip{calls: make([]*call, 0, min(len(m.queue), MaxCommands))}
	size, commands, looked := 0, 0, 0
	for _, c := range m.queue {
		n := max(1, len(c.cmds))
		if len(t.calls) > 0 && (size+c.size > maxBytes || commands+n > MaxCommands) {
			break
		}
		looked++
		if c.gone {
			continue
		}
		t.calls = append(t.calls, c)
		size, commands = size+c.size, commands+n
	}
	rest := copy(m.queue, m.queue[looked:])
	clear(m.queue[rest:])
	m.queue = m.queue[:rest]
	if len(t.calls) == 0 {
		return nil
	}
	return t
}

// release tells each caller of t who still waits how its call ended.
func (m *Mux) release(t *trip) {
	var failed error
	answered := false
	for i, c := range t.calls {
		var reply []byte
		var err error
		if get := t.gets[i]; get != nil {
			reply, err = get.Bytes()
		} else {
			err = failure(c.cmds)
		}
		if !c.late { // else it has been released, and its fields are its caller's
			c.reply, c.err = reply, err
		}
		if err := verdict(err); err != nil {
			failed = err
		} else {
			answered = true
		}
	}
	// On a cluster one node may fail while the others answer: that is no reason
	// to stop asking those.
	if answered {
		failed = nil
	}
	m.conclude(t, failed)
	for _, c := range t.calls {
		if !c.late {
			c.done <- struct{}{}
		}
	}
}

// conclude tells the breaker how t ended.
func (m *Mux) conclude(t *trip, failed error) {
	if t.probe != nil {
		t.probe.report(failed)
		return
	}
	m.breaker.report(failed)
}

// leaveBehind releases those callers of t who have waited for too long if the time
// in the queue is counted. The Mux's lock is held.
func (t *trip) leaveBehind(late time.Time) {
	for _, c := range t.calls {
		if !c.since.IsZero() && c.since.Before(late) {
			c.timeOut()
		}
	}
}

// giveUp releases the callers of a trip that takes too long, and its place for
// another. The Mux's lock is held.
func (m *Mux) giveUp(t *trip) {
	t.over = true
	delete(m.running, t)
	m.stuck++
	if !t.solo {
		m.busy--
	}
	m.conclude(t, ErrTimeout)
	for _, c := range t.calls {
		c.timeOut()
	}
	t.cancel()
}

// blame gives the error of a pipeline to its commands if none has one of its own: a
// hook of the client's has not sent them.
func blame(cmds []redis.Cmder, err error) {
	for _, cmd := range cmds {
		if cmd.Err() != nil {
			return
		}
	}
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
}

// failure is the error of a round trip that has brought a call no answer at all. On a
// cluster some of its commands may have failed, with their node, and others not.
func failure(cmds []redis.Cmder) error {
	var failed error
	for _, cmd := range cmds {
		err := verdict(cmd.Err())
		if err == nil {
			return nil
		}
		failed = err
	}
	return failed
}

// tripContext is the context of one round trip: cancelled with its worker, with
// the values of the caller (or of the first of several), so that tracing hooks see them.
type tripContext struct {
	context.Context
	values   context.Context
	deadline time.Time
}

// Deadline is for clients that obey it (ContextTimeoutEnabled); the others are
// left behind by the sweep.
func (c *tripContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Value asks the worker's context first: so package context recognizes it as the
// one that does the cancelling.
func (c *tripContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}
