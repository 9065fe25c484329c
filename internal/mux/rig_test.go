package mux_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

const (
	timeout = 100 * time.Millisecond // of hasty
	openFor = 10 * time.Second       // of touchy
	soon    = 30 * time.Second       // far more than anything takes, even on a busy machine
)

var (
	// patient neither times out nor opens its breaker in the course of a test.
	patient = mux.Config{Timeout: time.Hour, Failures: 1000, OpenFor: time.Hour}
	// hasty times out, and does not open its breaker.
	hasty = mux.Config{Timeout: timeout, Failures: 1000, OpenFor: time.Hour}
	// touchy opens its breaker at the third failure, and does not time out.
	touchy = mux.Config{Timeout: time.Minute, Failures: 3, OpenFor: openFor}
)

var errConn = errors.New("connection reset by peer")

// rig is a Mux on a wire, in a bubble.
type rig struct {
	*mux.Mux
	*wire
	ctx context.Context
}

// wrapper changes the client of a rig, or puts another in its place.
type wrapper func(redis.UniversalClient) redis.UniversalClient

// inBubble runs test on a rig, whose wire holds what is sent, in parallel with other tests. The Mux
// must end in order: synctest fails the test if a goroutine is left behind.
func inBubble(t *testing.T, cfg mux.Config, test func(*testing.T, *rig), wrap ...wrapper) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		var client redis.UniversalClient = w.client()
		for _, wrap := range wrap {
			client = wrap(client)
		}
		m := mux.New(client, cfg)
		t.Cleanup(func() {
			w.drain()
			require.NoError(t, m.Close(context.Background()))
			require.NoError(t, client.Close())
		})
		test(t, &rig{Mux: m, wire: w, ctx: t.Context()})
	})
}

// get starts a Get, and returns when it waits or has returned.
func (r *rig) get(ctx context.Context, key string) *caller {
	return start(func(c *caller) {
		value, err := r.Get(ctx, key, nil)
		c.value, c.err = string(value), err
	})
}

// do starts a Do, and returns when it waits or has returned.
func (r *rig) do(cmds ...redis.Cmder) *caller {
	return start(func(c *caller) { c.err = r.Do(r.ctx, cmds...) })
}

// force starts a Force, and returns when it waits or has returned.
func (r *rig) force(cmds ...redis.Cmder) *caller {
	return start(func(c *caller) { c.err = r.Force(r.ctx, cmds...) })
}

// fillSlots takes both slots, so that who comes next has to queue.
func (r *rig) fillSlots(t *testing.T) (first, second *roundTrip) {
	t.Helper()
	r.get(r.ctx, "first")
	r.get(r.ctx, "second")
	sent := r.underWay()
	require.Len(t, sent, 2)
	return sent[0], sent[1]
}

// fillBulkSlots takes both slots of the bulk lane, and returns the first round trip.
func (r *rig) fillBulkSlots(t *testing.T) (first *roundTrip) {
	t.Helper()
	before := len(r.underWay())
	for range mux.MaxPipelines {
		r.do(slices.Repeat([]redis.Cmder{set("k", "bulk")}, 100)...)
	}
	require.Len(t, r.underWay(), before+mux.MaxPipelines)
	return r.underWay()[before]
}

// roundTrip makes one round trip that ends with a.
func (r *rig) roundTrip(t *testing.T, a answer) {
	t.Helper()
	c := r.get(r.ctx, "k")
	sent := r.underWay()
	require.NotEmpty(t, sent, "nothing was sent")
	sent[len(sent)-1].answer(a)
	<-c.done
}

// openBreaker opens the breaker of a touchy Mux.
func (r *rig) openBreaker(t *testing.T) {
	t.Helper()
	for range touchy.Failures {
		r.roundTrip(t, failing(errConn))
	}
	r.requireOpen(t)
}

// requireOpen checks that the breaker refuses Get and Do.
func (r *rig) requireOpen(t *testing.T) {
	t.Helper()
	before := r.count()
	r.get(r.ctx, "k").requireErr(t, mux.ErrOpen)
	require.ErrorIs(t, r.Do(r.ctx, set("k", "1")), mux.ErrOpen)
	require.Equal(t, before, r.count(), "nothing is sent")
}

// requireClosed checks the breaker with round trips that end well.
func (r *rig) requireClosed(t *testing.T) {
	t.Helper()
	require.Empty(t, r.underWay())
	r.requireBothSlotsFree(t)
}

// requireBothSlotsFree checks that two Gets are sent at once, and answers them.
func (r *rig) requireBothSlotsFree(t *testing.T) {
	t.Helper()
	before := len(r.underWay())
	a, b := r.get(r.ctx, "a"), r.get(r.ctx, "b")
	sent := r.underWay()
	require.Len(t, sent, before+2, "both are sent at once")
	sent[before].answer(served)
	sent[before+1].answer(served)
	a.requireValue(t, "a")
	b.requireValue(t, "b")
}

// caller is somebody who waits for the Mux.
type caller struct {
	done  chan struct{}
	value string // of a Get
	err   error
	took  time.Duration
}

// start runs call on a goroutine, and returns when that waits or has ended.
func start(call func(*caller)) *caller {
	c := &caller{done: make(chan struct{})}
	began := time.Now()
	go func() { // ends with the call, which the wire or the timeout ends
		defer close(c.done)
		call(c)
		c.took = time.Since(began)
	}()
	synctest.Wait()
	return c
}

// returned reports whether the call has returned, once nobody in the bubble can go on.
func (c *caller) returned() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// requireValue waits for the caller of a Get, who must have got the value of key.
func (c *caller) requireValue(t *testing.T, key string) {
	t.Helper()
	<-c.done
	require.NoError(t, c.err)
	require.Equal(t, valueOf(key), c.value)
}

// requireErr waits for the caller, who must have got the error.
func (c *caller) requireErr(t *testing.T, want error) {
	t.Helper()
	<-c.done
	require.ErrorIs(t, c.err, want)
	require.Empty(t, c.value)
}

// requireTimeout waits for the caller, who must have been released after the timeout and, since the
// sweep comes only now and then, little more.
func (c *caller) requireTimeout(t *testing.T) {
	t.Helper()
	c.requireErr(t, mux.ErrTimeout)
	require.GreaterOrEqual(t, c.took, timeout)
	require.LessOrEqual(t, c.took, timeout+timeout/10)
}

// wire is a client's hook that stands for the network and Redis: a round trip ends when and as the
// test says. Since nothing leaves the process, the tests run in synctest bubbles, where
// synctest.Wait returns when everybody has come as far as he can, and where timeouts are exact and
// take no time.
type wire struct {
	mu      sync.Mutex
	reply   answer // to every round trip, at once; nil: they are held
	held    []*roundTrip
	sent    int   // round trips so far
	refusal error // of pipelines, if not nil
}

// roundTrip is one that the test has not answered yet.
type roundTrip struct {
	wire *wire
	ctx  context.Context
	cmds []redis.Cmder
	end  chan answer
}

// client returns a client on the wire.
func (w *wire) client() *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	client.AddHook(w)
	return client
}

func (w *wire) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) {
		panic("the wire carries everything itself")
	}
}

func (w *wire) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return w.carry(ctx, []redis.Cmder{cmd}) }
}

func (w *wire) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		w.mu.Lock()
		refusal := w.refusal
		w.mu.Unlock()
		if refusal != nil {
			return refusal
		}
		return w.carry(ctx, cmds)
	}
}

// carry makes a round trip of cmds: it waits for the answer and gives it to each of them.
func (w *wire) carry(ctx context.Context, cmds []redis.Cmder) error {
	rt := &roundTrip{wire: w, ctx: ctx, cmds: cmds, end: make(chan answer, 1)}
	w.mu.Lock()
	w.sent++
	reply := w.reply
	if reply == nil {
		w.held = append(w.held, rt)
	}
	w.mu.Unlock()
	if reply == nil {
		reply = <-rt.end
	}
	var err error
	for _, cmd := range cmds {
		if reply(cmd); err == nil {
			err = cmd.Err()
		}
	}
	return err
}

// underWay returns the round trips that are held, in the order in which they were sent.
func (w *wire) underWay() []*roundTrip {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.held)
}

// asked is underWay in words, "get a" for instance.
func (w *wire) asked() [][]string {
	var all [][]string
	for _, rt := range w.underWay() {
		all = append(all, rt.asks())
	}
	return all
}

// count returns how many round trips have been sent.
func (w *wire) count() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

// answerAtOnce answers what is sent from now on without holding it; nil holds it again.
func (w *wire) answerAtOnce(a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reply = a
}

// refusePipelines has pipelines fail with err from now on, without any of their commands' doing.
func (w *wire) refusePipelines(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusal = err
}

// drain answers what is held and whatever comes.
func (w *wire) drain() {
	w.answerAtOnce(served)
	for _, rt := range w.underWay() {
		rt.answer(served)
	}
}

// takeHeld returns what is held at the moment, and holds it no longer: for tests outside a bubble.
func (w *wire) takeHeld() []*roundTrip {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := w.held
	w.held = nil
	return held
}

// answer ends the round trip, and returns when everybody has done what follows from it.
func (rt *roundTrip) answer(a answer) {
	rt.wire.mu.Lock()
	rt.wire.held = slices.DeleteFunc(rt.wire.held, func(other *roundTrip) bool { return other == rt })
	rt.wire.mu.Unlock()
	rt.end <- a
	synctest.Wait()
}

// asks returns the commands in words.
func (rt *roundTrip) asks() []string {
	asks := make([]string, len(rt.cmds))
	for i, cmd := range rt.cmds {
		asks[i] = strings.TrimSpace(fmt.Sprintln(cmd.Args()...))
	}
	return asks
}

// answer sets the result of a command.
type answer func(redis.Cmder)

// served is the answer of a healthy Redis that has every key.
func served(cmd redis.Cmder) {
	set, ok := cmd.(interface{ SetVal(string) })
	switch {
	case ok && cmd.Name() == "get":
		set.SetVal(valueOf(cmd.Args()[1].(string)))
	case ok:
		set.SetVal("OK")
	}
	cmd.SetErr(nil) // as go-redis does when it has read a reply
}

func valueOf(key string) string { return "value of " + key }

// failing returns the answer with an error.
func failing(err error) answer { return func(cmd redis.Cmder) { cmd.SetErr(err) } }

// reply is an error that Redis has answered with.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

// slowToBuild is a client whose next pipeline can be held while it is made, before the Mux has put
// anything in.
type slowToBuild struct {
	redis.UniversalClient
	slow  atomic.Bool
	begun chan struct{}
	goOn  chan struct{}
}

func (c *slowToBuild) Pipeline() redis.Pipeliner {
	if c.slow.CompareAndSwap(true, false) {
		close(c.begun)
		<-c.goOn
	}
	return c.UniversalClient.Pipeline()
}

// obeysDeadline has callers whose context cannot end send in person.
func obeysDeadline(client redis.UniversalClient) redis.UniversalClient {
	client.(*redis.Client).Options().ContextTimeoutEnabled = true
	return client
}

func get(key string) *redis.StringCmd { return redis.NewStringCmd(context.Background(), "get", key) }

func set(key string, value any) *redis.StatusCmd {
	return redis.NewStatusCmd(context.Background(), "set", key, value)
}
