package mux_test

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

func TestOnStateIsToldEachChange(t *testing.T) {
	var told []bool
	cfg := touchy
	cfg.OnState = func(open bool) { told = append(told, open) }
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		r.requireClosed(t)
		require.Empty(t, told)
		r.trip(t)
		require.Equal(t, []bool{true}, told)

		time.Sleep(openFor + 1)
		r.meet(t, failing(errConn)) // a probe that fails changes nothing
		require.Equal(t, []bool{true}, told)

		time.Sleep(openFor + 1)
		r.meet(t, served)
		require.Equal(t, []bool{true, false}, told)
		r.trip(t)
		require.Equal(t, []bool{true, false, true}, told)
	})
}

// A lock that is held while OnState is told shows as a deadlock, which a bubble would not notice: here the clock is real.
func TestOnStateMayAskTheMux(t *testing.T) {
	for name, row := range map[string]struct {
		timeout time.Duration
		flow    answer // nil: Redis hangs
	}{
		"after a failed round trip": {time.Minute, failing(errConn)},
		"after a timeout":           {10 * time.Millisecond, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var m *mux.Mux
			// Room for what a busy machine may make of the timeout.
			back, closed := make(chan struct{}, 1000), make(chan struct{}, 1000)
			wire, client := &wire{flow: row.flow}, redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
			client.AddHook(wire)
			m = mux.New(client, mux.Config{Timeout: row.timeout, Failures: 1, OpenFor: 10 * time.Millisecond, OnState: func(open bool) {
				if !open {
					closed <- struct{}{}
					return
				}
				wire.let(served)
				for until := time.Now().Add(soon); time.Now().Before(until); time.Sleep(time.Millisecond) {
					if _, err := m.Get(context.Background(), "k"); err == nil { // the probe: it changes the state again
						back <- struct{}{}
						return
					}
				}
			}})

			go func() { _, _ = m.Get(t.Context(), "k") }() // fails, and opens the breaker
			for what, told := range map[string]chan struct{}{"hits are back": back, "closed": closed} {
				select {
				case <-told:
				case <-time.After(soon):
					t.Fatalf("%s: not so; OnState is called with a lock held, or not at all", what)
				}
			}
			for _, trip := range wire.heldNow() {
				trip.end <- served
			}
			require.NoError(t, m.Close(t.Context()))
			require.NoError(t, client.Close())
		})
	}
}

// What Redis answers is read from a connection, so that the errors are those that go-redis makes of it.
func TestWhichAnswersAreFailures(t *testing.T) {
	for reply, failure := range map[string]bool{
		"LOADING Redis is loading the dataset in memory":                                   true,
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": true,
		"CLUSTERDOWN The cluster is down":                                                  true,
		"READONLY You can't write against a read only replica.":                            true,
		"NOAUTH Authentication required.":                                                  true,
		"TRYAGAIN Multiple keys request during rehashing of slot":                          true,

		"WRONGTYPE Operation against a key holding the wrong kind of value": false,
		"ERR user_script:1: Script attempted to access nonexistent global":  false,
		"NOSCRIPT No matching script. Please use EVAL.":                     false,
		"OOM command not allowed when used memory > 'maxmemory'.":           false,
		"NOPERM this user has no permissions to access one of the keys":     false,
		"LOADINGS is no word of Redis":                                      false,
		"ERR LOADING is what the key is called":                             false,
	} {
		t.Run(reply, func(t *testing.T) {
			server := miniredis.RunT(t)
			client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
			m := mux.New(client, mux.Config{Timeout: time.Minute, Failures: 1, OpenFor: time.Hour})
			require.NoError(t, m.Do(t.Context(), set("k", "1"))) // and connects
			server.SetError(reply)

			_, err := m.Get(t.Context(), "k")
			require.EqualError(t, err, reply)
			server.SetError("")
			_, err = m.Get(t.Context(), "k")
			if failure {
				require.ErrorIs(t, err, mux.ErrOpen)
			} else {
				require.NoError(t, err)
			}
			require.NoError(t, m.Close(t.Context()))
			require.NoError(t, client.Close())
		})
	}
}

// The error of a call is one of the round trip, or none: what Redis says to a command is the command's.
func TestTheErrorOfDoIsThatOfTheRoundTrip(t *testing.T) {
	for name, row := range map[string]struct {
		err     error
		failure bool
	}{
		"none":               {nil, false},
		"no such key":        {redis.Nil, false},
		"wrong type":         {reply("WRONGTYPE Operation against a key holding the wrong kind of value"), false},
		"cluster down":       {reply("CLUSTERDOWN The cluster is down"), true},
		"connection":         {errConn, true},
		"deadline of client": {context.DeadlineExceeded, true},
		"pool":               {redis.ErrPoolTimeout, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := touchy
			cfg.Failures = 1
			inBubble(t, cfg, func(t *testing.T, r *rig) {
				cmd := set("k", "1")
				c := r.do(cmd)
				r.underWay()[0].answer(failing(row.err))
				<-c.done
				require.Equal(t, row.err, cmd.Err())
				if row.failure {
					require.ErrorIs(t, c.err, row.err)
					r.requireOpen(t)
				} else {
					require.NoError(t, c.err)
					r.requireClosed(t)
				}
			})
		})
	}
}

// heldNow is what is held at the moment, for tests outside a bubble.
func (w *wire) heldNow() []*roundTrip {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := w.held
	w.held = nil
	return held
}
