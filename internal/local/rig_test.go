package local

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.Parallel(8)
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}

// direct is a Doer without pipelines of its own.
type direct struct{ redis.UniversalClient }

func (d direct) Force(ctx context.Context, cmds ...redis.Cmder) error {
	_, err := d.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, cmd := range cmds {
			_ = pipe.Process(ctx, cmd)
		}
		return nil
	})
	if _, replied := err.(redis.Error); replied {
		return nil
	}
	return err
}

// told is what a Tier has told.
type told struct {
	mu     sync.Mutex
	counts [Refused + 1]int
	last   [Refused + 1]error
}

func (n *told) note(what Event, _ time.Duration, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[what]++
	n.last[what] = err
}

func (n *told) count(what Event) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts[what]
}

// process is what a process of a fleet has: a tier, and a store of strings.
type process struct {
	*Tier
	*told
	copies *Store[string]
}

const testLease = time.Second

// newProcess returns a process on the Redis of client. Without copies it only writes.
func newProcess(t *testing.T, client redis.UniversalClient, copies bool, change ...func(*Config)) *process {
	t.Helper()
	p := &process{told: new(told)}
	c := Config{Prefix: "p", Lease: testLease, Wait: true, Redis: direct{client}, Subscribe: client.Subscribe, Note: p.note}
	for _, f := range change {
		f(&c)
	}
	p.Tier = New(c)
	p.Use()
	if copies {
		p.copies = NewStore(p.Tier, "p:row:", 1<<20, func(s *string) int { return len(*s) })
		p.copies.Open()
	}
	t.Cleanup(func() {
		p.Retire(context.Background())
		require.NoError(t, p.Close(context.Background()))
	})
	return p
}

// awaitReady waits until p serves copies.
func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { _, leased := p.copies.Now(); return leased }, 10*time.Second, time.Millisecond)
}

// keep keeps a copy of what was asked for just now. On a busy machine a lease may be lost meanwhile.
func (p *process) keep(t *testing.T, key, v string) {
	t.Helper()
	require.Eventually(t, func() bool {
		p.copies.Keep(key, p.copies.Note(key), time.Minute, v)
		return p.get(key) == v
	}, 10*time.Second, time.Millisecond)
}

// get returns the copy of a key, or nothing.
func (p *process) get(key string) string {
	if now, leased := p.copies.Now(); leased {
		if v := p.copies.Get(key, now); v != nil {
			return *v
		}
	}
	return ""
}

// age waits until the table is no longer young, so that fences need not wait for leases to be over.
func age(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	require.Eventually(t, func() bool {
		young, err := client.HExists(t.Context(), "p:{p:local}:state", "young").Result()
		return err == nil && !young && client.Exists(t.Context(), "p:{p:local}:table").Val() == 1
	}, 10*time.Second, time.Millisecond)
}

func miniClient(t *testing.T) *redis.Client {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}
