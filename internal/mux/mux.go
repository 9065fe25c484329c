package mux

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// MaxPipelines is how many pipelines of one lane are under way at a time: Redis answers one
	// while the next one is being sent.
	MaxPipelines = 2
	// MaxCommands is how many commands one pipeline carries, so that no waiter waits for too many
	// others. A call of Do or Force may have up to maxCallCommands in a pipeline of its own.
	MaxCommands     = 512
	maxCallCommands = 4000
	// MaxBytes bounds what one pipeline carries to Redis and is expected to carry back, for the
	// same reason.
	MaxBytes = 1 << 20
	// bulkBytes and bulkCommands are what makes a request one of the bulk lane.
	bulkBytes    = 16 << 10
	bulkCommands = 64
	// progressBytes is the size from which a reply shows that a pipeline makes progress.
	progressBytes = 1 << 10
	// maxStuck bounds the round trips to a node that timed out and that the client has not given up
	// yet. Past it, callers are refused at once.
	maxStuck = 16
	// learnTimeouts is how many timeouts the client may take to learn of a cluster's nodes.
	learnTimeouts = 10
	// sweepsPerTimeout is how often within one timeout a node looks for overdue waiters.
	sweepsPerTimeout = 20
)

// Config says how a Mux treats Redis. It has no defaults: New takes the values as they are.
type Config struct {
	// Timeout is the longest that a caller waits, in the queue and for its round trip together,
	// while nothing arrives: see doc.go for what is progress. It is enforced by a periodic sweep,
	// hence with a tolerance of Timeout/20, at least 1 ms.
	Timeout time.Duration
	// Failures is how many round trips to a node must fail in a row to open its breaker; at least 1.
	Failures int
	// OpenFor is how long a breaker stays open before one round trip probes the node again.
	OpenFor time.Duration
	// OnState, if not nil, is called with each change of a breaker, in their order and never two
	// at a time, on a goroutine that holds no lock: it may block, and it may call the Mux.
	OnState func(open bool)
}

// masters is a client of a cluster, as far as it tells which node has a key.
type masters interface {
	MasterForKey(ctx context.Context, key string) (*redis.Client, error)
}

// Mux runs commands on one Redis client. It is safe for concurrent use.
type Mux struct {
	client   redis.UniversalClient
	config   Config
	notifier notifier
	first    *node   // has all keys, or on a cluster those whose node is not known yet
	cluster  masters // nil: first is the only node
	role     *atomic.Int32

	mapped  atomic.Bool // the client knows the cluster's nodes, and tells them without asking
	mapping atomic.Bool // it is being told
	nodes   sync.Map    // by address, of *node

	mu      sync.Mutex // guards what follows
	closed  bool
	running sync.WaitGroup // of the goroutine that sets mapped
}

// New returns a Mux on client. Closing the client remains the caller's task, after Close.
func New(client redis.UniversalClient, cfg Config) *Mux {
	m := &Mux{client: client, config: cfg, notifier: notifier{onState: cfg.OnState}}
	m.cluster, _ = client.(masters)
	m.role = new(atomic.Int32)
	watchConnections(client, m.role)
	m.first = newNode(client, cfg, &m.notifier)
	return m
}

// Role returns the role of the server that the last connection was made to. On a cluster it says
// nothing.
func (m *Mux) Role() Role { return m.role.Load() }

// Get returns the value of key, and has size learn how large it is; size may be nil. Its errors are
// redis.Nil when there is no such key, any other error reply of Redis, the error of a failed round
// trip, ErrTimeout, ErrOpen, ErrClosed, or that of ctx.
//
// Callers may share the bytes: they must not be written to. A Get shares its GET command with
// others only if the command was not yet sent when Get was called.
func (m *Mux) Get(ctx context.Context, key string, size *ReplySize) ([]byte, error) {
	n := m.nodeOf(key)
	w := n.newWaiter(request{ctx: ctx, key: key, learn: size})
	if err := n.await(ctx, w); err != nil {
		return nil, err
	}
	reply, err := w.reply, w.err
	n.recycle(w)
	return reply, err
}

// Do sends cmds in few round trips, possibly with those of other callers: those for one node one
// after the other, and in one round trip unless they are too large or too many for that.
//
// A nil error means that each command has its own result. Otherwise the error is that of a failed
// round trip, ErrTimeout, ErrOpen, ErrClosed, or that of ctx; then it is unknown whether the
// commands were carried out, and they must not be looked at: they may still be under way. If that
// is so for some of them only, the error is an UnansweredError.
func (m *Mux) Do(ctx context.Context, cmds ...redis.Cmder) error {
	return m.send(call{request{ctx: ctx}, maxCallCommands, 1}, cmds)
}

// Force is Do for what must be tried even while Redis is thought to be down: it sends cmds while
// the breaker is open, and tells the breaker nothing. Only past a bound on the round trips that
// have not ended does it return ErrOpen.
func (m *Mux) Force(ctx context.Context, cmds ...redis.Cmder) error {
	return m.send(call{request{ctx: ctx, force: true}, maxCallCommands, 1}, cmds)
}

// GetMany has each GET of gets answered as by Do, but in no order: in as many round trips as it
// takes to keep each small, by what size has learned of the values, MaxPipelines at a time.
func (m *Mux) GetMany(ctx context.Context, size *ReplySize, gets []redis.Cmder) error {
	return m.send(call{request{ctx: ctx, learn: size}, MaxCommands, MaxPipelines}, gets)
}

// nodeOf returns the node that has key. It is no more than a guess: the client sends each command
// where it belongs. It never waits for Redis.
func (m *Mux) nodeOf(key string) *node {
	if m.cluster == nil {
		return m.first
	}
	if !m.mapped.Load() {
		m.learnNodes()
		return m.first
	}
	master, err := m.cluster.MasterForKey(context.Background(), key)
	if err != nil {
		return m.first
	}
	if n, ok := m.nodes.Load(master.Options().Addr); ok {
		return n.(*node)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return m.first
	}
	n, _ := m.nodes.LoadOrStore(master.Options().Addr, newNode(m.client, m.config, &m.notifier))
	return n.(*node)
}

// learnNodes has the client ask the cluster for its nodes, in the background: from then on it knows
// them, and looks for changes in a background of its own.
func (m *Mux) learnNodes() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.mapped.Load() || m.mapping.Swap(true) {
		return
	}
	m.running.Go(func() { // ends with the client's answer, or with ctx
		ctx, cancel := context.WithTimeout(context.Background(), learnTimeouts*m.config.Timeout)
		defer cancel()
		_, err := m.cluster.MasterForKey(ctx, "")
		m.mapped.Store(err == nil)
		m.mapping.Store(false)
	})
}

// allNodes returns first and the nodes of the cluster.
func (m *Mux) allNodes() []*node {
	all := []*node{m.first}
	m.nodes.Range(func(_, n any) bool {
		all = append(all, n.(*node))
		return true
	})
	return all
}

// Close refuses new calls, with ErrClosed, and waits until all round trips have ended or ctx has.
// In the latter case its error wraps that of ctx and says how many round trips have not ended.
// Calls that were accepted before Close are still answered. Close may be called again.
func (m *Mux) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true // no node is added any more
	m.mu.Unlock()
	nodes := m.allNodes()
	for _, n := range nodes {
		n.close()
	}

	ended := make(chan struct{})
	go func() { // ends with the last worker, which the client's own timeouts bound
		for _, n := range nodes {
			n.workers.alive.Wait()
		}
		m.running.Wait()
		m.notifier.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		left := 0
		for _, n := range nodes {
			left += n.underWay()
		}
		if left == 0 {
			return nil // the goroutines are about to end
		}
		return fmt.Errorf("%d round trips have not ended: %w", left, ctx.Err())
	}
}
