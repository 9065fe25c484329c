package mux_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

// wire is a client's hook that stands for the network and Redis: a round trip ends when and as the test says. Since
// nothing leaves the process, the tests run in synctest bubbles, where synctest.Wait tells that everybody has come as
// far as he can, and where timeouts are exact and take no time.
type wire struct {
	mu   sync.Mutex
	flow answer // what round trips are answered at once; nil: they are held
	held []*roundTrip
	sent int // round trips so far
}

// roundTrip is one that the test has not answered yet.
type roundTrip struct {
	wire *wire
	ctx  context.Context
	cmds []redis.Cmder
	end  chan answer
}

// answer sets the result of a command.
type answer func(redis.Cmder)

// served is the answer of a healthy Redis that has every key.
func served(cmd redis.Cmder) {
	switch cmd := cmd.(type) {
	case *redis.StringCmd:
		cmd.SetVal(valueOf(cmd.Args()[1].(string)))
	case *redis.StatusCmd:
		cmd.SetVal("OK")
	}
}

func valueOf(key string) string { return "value of " + key }

// failing is the answer with an error.
func failing(err error) answer { return func(cmd redis.Cmder) { cmd.SetErr(err) } }

var errConn = errors.New("connection reset by peer")

func (w *wire) carry(ctx context.Context, cmds []redis.Cmder) error {
	trip := &roundTrip{wire: w, ctx: ctx, cmds: cmds, end: make(chan answer, 1)}
	w.mu.Lock()
	w.sent++
	reply := w.flow
	if reply == nil {
		w.held = append(w.held, trip)
	}
	w.mu.Unlock()
	if reply == nil {
		reply = <-trip.end
	}
	var err error
	for _, cmd := range cmds {
		if reply(cmd); err == nil {
			err = cmd.Err()
		}
	}
	return err
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
	return w.carry
}

// underWay are the round trips that are held, in the order of their sending.
func (w *wire) underWay() []*roundTrip {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.held)
}

// asked is underWay in words, "get a" for instance.
func (w *wire) asked() [][]string {
	var all [][]string
	for _, trip := range w.underWay() {
		all = append(all, trip.asks())
	}
	return all
}

// count is how many round trips have been sent.
func (w *wire) count() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

// let answers what is sent from now on at once; nil holds it.
func (w *wire) let(a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flow = a
}

// drain answers what is held and whatever comes.
func (w *wire) drain() {
	w.let(served)
	for _, trip := range w.underWay() {
		trip.answer(served)
	}
}

// answer ends the round trip, and returns when everybody has done what follows from it.
func (rt *roundTrip) answer(a answer) {
	rt.wire.mu.Lock()
	rt.wire.held = slices.DeleteFunc(rt.wire.held, func(other *roundTrip) bool { return other == rt })
	rt.wire.mu.Unlock()
	rt.end <- a
	synctest.Wait()
}

func (rt *roundTrip) asks() []string {
	asks := make([]string, len(rt.cmds))
	for i, cmd := range rt.cmds {
		asks[i] = strings.TrimSpace(fmt.Sprintln(cmd.Args()...))
	}
	return asks
}

// rig is a Mux on a wire, in a bubble.
type rig struct {
	*mux.Mux
	*wire
	ctx context.Context
}

const timeout = 100 * time.Millisecond

// patient is a Mux that neither times out nor opens its breaker in the course of a test.
var patient = mux.Config{Timeout: time.Hour, Failures: 1000, OpenFor: time.Hour}

// hasty is one that times out, and does not open its breaker.
var hasty = mux.Config{Timeout: timeout, Failures: 1000, OpenFor: time.Hour}

// inBubble runs a test on a rig, whose wire holds what is sent. The Mux must end in order: what is left behind by a
// goroutine makes synctest fail the test.
func inBubble(t *testing.T, cfg mux.Config, test func(*testing.T, *rig), wraps ...func(redis.UniversalClient) redis.UniversalClient) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		plain := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
		plain.AddHook(w)
		var client redis.UniversalClient = plain
		for _, wrap := range wraps {
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

// caller is somebody who waits for the Mux.
type caller struct {
	done  chan struct{}
	value string // of a Get
	err   error
	took  time.Duration
}

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

// get starts a Get, and returns when it waits or has returned.
func (r *rig) get(ctx context.Context, key string) *caller {
	return start(func(c *caller) {
		value, err := r.Get(ctx, key)
		c.value, c.err = string(value), err
	})
}

func (r *rig) do(cmds ...redis.Cmder) *caller {
	return start(func(c *caller) { c.err = r.Do(r.ctx, cmds...) })
}

func (r *rig) force(cmds ...redis.Cmder) *caller {
	return start(func(c *caller) { c.err = r.Force(r.ctx, cmds...) })
}

// fill keeps both pipelines busy: who comes now has to queue.
func (r *rig) fill(t *testing.T) (first, second *roundTrip) {
	t.Helper()
	r.get(r.ctx, "first")
	r.get(r.ctx, "second")
	trips := r.underWay()
	require.Len(t, trips, 2)
	return trips[0], trips[1]
}

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

func get(key string) *redis.StringCmd { return redis.NewStringCmd(context.Background(), "get", key) }

func set(key string, value any) *redis.StatusCmd {
	return redis.NewStatusCmd(context.Background(), "set", key, value)
}
