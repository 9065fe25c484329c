package local

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/drain"
	"github.com/readthrough-go/readthrough/internal/lua"
)

// Doer sends commands to Redis in one round trip, whatever a circuit breaker says. When the error
// is nil each command has its own result, else they must not be looked at.
type Doer interface {
	Force(ctx context.Context, cmds ...redis.Cmder) error
}

// Event is something that a Tier tells by Config.Note.
type Event uint8

// The events.
const (
	Ready   Event = iota // copies are served from now on
	Lost                 // the lease was lost, and all copies with it: the error says why
	Fenced               // a fence has returned, after that time
	Waited               // it has waited for leases to be over: a member was silent, or the table was new
	Refused              // the process cannot become a member, or not even fence: the error says why
)

// Subscribe returns a connection that listens to channels.
type Subscribe func(ctx context.Context, channels ...string) *redis.PubSub

// Config holds the settings of a Tier.
type Config struct {
	Prefix string        // of the keys and channels
	Lease  time.Duration // the same for all processes of the prefix
	Wait   bool          // fences wait until no other process holds a copy
	Redis  Doer
	// Subscribe is redis.UniversalClient's.
	Subscribe Subscribe
	Note      func(what Event, took time.Duration, err error)
}

// Tier is one process's part in the tier: the lease under which its Stores serve copies, and the
// fences that it sends. It is safe for concurrent use.
type Tier struct {
	config      Config
	names       names
	base        time.Time    // of the clock
	end         atomic.Int64 // of the lease, for hits; written under mu
	scriptsSent lua.Sent
	used        atomic.Bool // it has a part in the tier
	listener
	fences fences
	work   work

	mu     sync.Mutex // guards what follows, and that one message is carried out at a time
	stores []store
}

// store is a Store, whatever it holds.
type store interface {
	// dropKey drops the copy of a Redis key, if it is one of the store's.
	dropKey(key string)
	flush()
}

// work is the goroutines of a Tier.
type work struct {
	ctx     context.Context //nolint:containedctx // it ends with the Tier
	stop    context.CancelFunc
	started sync.Once
	running *drain.Group
}

// New returns a Tier that does nothing before its first Store, or its first fence.
func New(c Config) *Tier {
	t := &Tier{config: c, names: namesOf(c.Prefix), base: time.Now()}
	t.work.ctx, t.work.stop = context.WithCancel(context.Background())
	t.work.running = drain.New()
	t.fences.init()
	t.listener.init() //nolint:staticcheck // beside that of the fences
	return t
}

// now reads the clock of the leases.
func (t *Tier) now() time.Duration { return time.Since(t.base) }

// Use has the Tier fence from now on.
func (t *Tier) Use() { t.used.Store(true) }

// Start has the Tier listen, in the background, until Close.
func (t *Tier) Start() {
	t.work.started.Do(func() { t.spawn(t.listen) })
}

// spawn runs f on a goroutine that ends, by its context, with the Tier, and that Close waits for.
func (t *Tier) spawn(f func(ctx context.Context)) {
	t.work.running.Go(func() { f(t.work.ctx) })
}

// attach has s told what to drop, and the process become a member.
func (t *Tier) attach(s store) {
	t.mu.Lock()
	t.stores = append(t.stores, s)
	t.mu.Unlock()
	t.join()
	t.Use()
	t.Start()
}

// Drop drops this process's copies of Redis keys whose entries were changed: before the fence, which
// only tells the others.
func (t *Tier) Drop(keys ...string) {
	if !t.used.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(keys...)
}

// drop is Drop under mu.
func (t *Tier) drop(keys ...string) {
	for _, s := range t.stores {
		for _, key := range keys {
			s.dropKey(key)
		}
	}
}

// flush ends the lease, and drops all copies. mu is held.
func (t *Tier) flush() {
	t.end.Store(0)
	for _, s := range t.stores {
		s.flush()
	}
}

// Retire ends the lease for good and leaves the table, so that no writer waits for this process.
// Fences can still be sent.
func (t *Tier) Retire(ctx context.Context) {
	t.mu.Lock()
	t.retired, t.wants, t.ready = true, false, false
	t.protocol.onLoss()
	t.flush()
	names := t.mine
	t.mine = nil
	t.mu.Unlock()
	if len(names) > 0 { // else they are marked and removed by a writer
		_, _ = t.run(ctx, remove, append([]any{"", t.names.acks}, names...)...)
	}
}

// Close ends what Retire has left, and returns when the goroutines have ended or ctx has.
func (t *Tier) Close(ctx context.Context) error {
	t.work.started.Do(func() {}) // nothing starts any more
	t.work.stop()
	return t.work.running.Wait(ctx)
}

// Members returns how many others the last fence has found.
func (t *Tier) Members() int64 { return t.fences.members.Load() }

// newName returns a name that no other member, and no other table, has.
func newName() string { return rand.Text() }
