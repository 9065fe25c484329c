package lease_test

import (
	"context"
	"encoding"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// direct sends commands as the Mux would, and remembers them. A test may have it fail.
type direct struct {
	client redis.UniversalClient
	fail   func(call int) error // for the nth round trip, from 0: not sent
	spoil  func(redis.Cmder)    // changes the result of a command
	// resends reports whether the client has lost the answers, and sends the commands again.
	resends func() bool

	mu     sync.Mutex
	sent   [][]redis.Cmder
	forced int // how many of them by Force
}

func (d *direct) Do(ctx context.Context, cmds ...redis.Cmder) error {
	d.mu.Lock()
	call := len(d.sent)
	d.sent = append(d.sent, cmds)
	d.mu.Unlock()
	var failure error
	if d.fail != nil {
		failure = d.fail(call)
	}
	if _, inPart := failure.(lostFrom); failure != nil && !inPart {
		return failure
	}
	if d.client != nil {
		for again := true; again; again = d.resends != nil && d.resends() {
			pipe := d.client.Pipeline()
			_ = pipe.BatchProcess(ctx, cmds...) // queues them; cannot fail
			_, _ = pipe.Exec(ctx)               // each command has its own result
		}
	}
	if d.spoil != nil {
		for _, cmd := range cmds {
			d.spoil(cmd)
		}
	}
	return failure
}

func (d *direct) Force(ctx context.Context, cmds ...redis.Cmder) error {
	d.mu.Lock()
	d.forced++
	d.mu.Unlock()
	return d.Do(ctx, cmds...)
}

// sendAgain sends the commands of a call late.
func (d *direct) sendAgain(ctx context.Context, call int) {
	d.mu.Lock()
	cmds := d.sent[call]
	d.mu.Unlock()
	pipe := d.client.Pipeline()
	_ = pipe.BatchProcess(ctx, cmds...)
	_, _ = pipe.Exec(ctx)
}

// last is the words of the last command that was sent.
func (d *direct) last() []any {
	cmds := d.sent[len(d.sent)-1]
	return cmds[len(cmds)-1].Args()
}

// single is a Store for one key at a time.
type single struct{ *lease.Store }

func newSingle(do lease.Doer) single { return single{lease.NewStore(do, lease.Config{})} }

// inTransactions returns a Store for a Redis that refuses scripts.
func inTransactions(client *redis.Client) single {
	refuses := &direct{spoil: func(cmd redis.Cmder) { cmd.SetErr(refusal("ERR unknown command")) }}
	return single{lease.NewStore(refuses, lease.Config{Watch: client.Watch})}
}

func (s single) Acquire(ctx context.Context, key, token string, ttl time.Duration) (lease.Acquired, error) {
	return s.ask(ctx, lease.Request{Key: key, Token: token, TTL: ttl})
}

func (s single) Steal(ctx context.Context, key, token string, ttl time.Duration) (lease.Acquired, error) {
	return s.ask(ctx, lease.Request{Key: key, Token: token, TTL: ttl, Steal: true})
}

func (s single) ask(ctx context.Context, r lease.Request) (lease.Acquired, error) {
	a := s.Store.Acquire(ctx, []lease.Request{r})[0]
	err := a.Err
	a.Err = nil
	return a, err
}

func (s single) Fill(ctx context.Context, key, token string, entry []byte, ttl time.Duration) (bool, error) {
	o := s.Settle(ctx, []lease.Settlement{{Key: key, Token: token, Entry: entry, TTL: ttl}})[0]
	return o.Kept, o.Err
}

func (s single) Release(ctx context.Context, key, token string) (bool, error) {
	o := s.Settle(ctx, []lease.Settlement{{Key: key, Token: token}})[0]
	return o.Kept, o.Err
}

func (s single) Renew(ctx context.Context, key, token string, ttl time.Duration) (bool, error) {
	o := s.Store.Renew(ctx, []lease.Request{{Key: key, Token: token, TTL: ttl}})[0]
	return o.Kept, o.Err
}

func (s single) Set(ctx context.Context, key string, entry []byte, ttl time.Duration) error {
	_, err := s.Store.Set(ctx, lease.Item{Key: key, Entry: entry, TTL: ttl})
	return err
}

// rig is a Store on a Redis, and that Redis.
type rig struct {
	single
	redis *redis.Client
	wire  *direct
}

func (r *rig) ctx() context.Context { return context.Background() }

// onEach runs a test on miniredis and on a redis-server.
func onEach(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	t.Parallel()
	for name, dial := range map[string]func(t *testing.T) *redis.Client{
		"miniredis": func(t *testing.T) *redis.Client {
			client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
			t.Cleanup(func() { require.NoError(t, client.Close()) })
			return client
		},
		"redis-server": func(t *testing.T) *redis.Client { return redistest.Start(t).Client() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := dial(t)
			wire := &direct{client: client}
			test(t, &rig{newSingle(wire), client, wire})
		})
	}
}

// reset begins a row of a table: nothing is stored, and nothing has been sent.
func (r *rig) reset(t *testing.T) {
	t.Helper()
	require.NoError(t, r.redis.FlushAll(r.ctx()).Err())
	*r.wire = direct{client: r.redis}
}

// put sets a key behind the Store's back.
func (r *rig) put(t *testing.T, key, value string, ttl time.Duration) {
	t.Helper()
	require.NoError(t, r.redis.Set(r.ctx(), key, value, ttl).Err())
}

// requireKey says what a key must hold, and that its TTL is ttl or little less; 0: it has none.
func (r *rig) requireKey(t *testing.T, key, value string, ttl time.Duration) {
	t.Helper()
	got, err := r.redis.Get(r.ctx(), key).Result()
	require.NoError(t, err)
	require.Equal(t, value, got)
	left, err := r.redis.PTTL(r.ctx(), key).Result()
	require.NoError(t, err)
	if ttl == 0 {
		require.Equal(t, time.Duration(-1), left, "it must not expire")
		return
	}
	require.LessOrEqual(t, left, ttl)
	require.Greater(t, left, ttl/2)
}

func (r *rig) requireGone(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		n, err := r.redis.Exists(r.ctx(), key).Result()
		require.NoError(t, err)
		require.Zero(t, n, "%s is there", key)
	}
}

// ofLoad returns an answer with that part of its token which names the load. It fails the test unless the whole token
// is what Redis has at the lease's key, if the lease was acquired, and none is told if it was not.
func ofLoad(t *testing.T, redis redis.Cmdable, lease string, a lease.Acquired) lease.Acquired {
	t.Helper()
	if !a.Held {
		require.Empty(t, a.Token)
		return a
	}
	holder, err := redis.Get(t.Context(), lease).Result()
	require.NoError(t, err)
	require.Equal(t, holder, a.Token)
	a.Token = loadOf(a.Token)
	return a
}

func loadOf(token string) string {
	load, _, _ := strings.Cut(token, ".")
	return load
}

// nextAttempt returns the token that a client would now write for the SET of an acquire.
func nextAttempt(t *testing.T, set redis.Cmder) string {
	t.Helper()
	token, err := set.Args()[2].(encoding.BinaryMarshaler).MarshalBinary()
	require.NoError(t, err)
	return string(token)
}

const (
	key = "app:user:1"
	// own is the lease's key, spelled out: other programs may look at it.
	own = "{app:user:1}:lease"
	ttl = time.Hour // so long that no test sees the end of it
)
