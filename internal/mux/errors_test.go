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

// The replies are read from a connection, so that their errors are those that go-redis makes of them.
func TestBreaker_CountsOnlyRepliesOfANodeThatServesNobody(t *testing.T) {
	type row struct {
		down        bool // a failure for the breaker
		unavailable bool // the caller is told that Redis cannot serve
	}
	down, busy, answer := row{true, true}, row{false, true}, row{}
	for reply, want := range map[string]row{
		"LOADING Redis is loading the dataset in memory":                                   down,
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": down,
		"CLUSTERDOWN The cluster is down":                                                  down,
		"READONLY You can't write against a read only replica.":                            down,
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL":               down,
		"UNBLOCKED force unblock from blocking operation, instance state changed":          down,
		"NOAUTH Authentication required.":                                                  down,
		"WRONGPASS invalid username-password pair or user is disabled.":                    down,
		"ERR max number of clients reached":                                                down,
		"NOPERM User app has no permissions to run the 'get' command":                      down,
		"NOPERM this user has no permissions to run the 'select' command":                  down,

		"CLUSTERDOWN Hash slot not served":                        busy,
		"TRYAGAIN Multiple keys request during rehashing of slot": busy,
		"ASK 3999 127.0.0.1:6381":                                 busy,
		"MOVED 3999 127.0.0.1:6381":                               busy,
		"MISCONF Redis is configured to save RDB snapshots":       busy,
		"NOREPLICAS Not enough good replicas to write.":           busy,

		"WRONGTYPE Operation against a key holding the wrong kind of value": answer,
		"ERR user_script:1: Script attempted to access nonexistent global":  answer,
		"NOSCRIPT No matching script. Please use EVAL.":                     answer,
		"OOM command not allowed when used memory > 'maxmemory'.":           answer,
		"NOPERM this user has no permissions to access one of the keys":     answer,
		"NOPERM User app has no permissions to run the 'evalsha' command":   answer,
		"LOADINGS is no word of Redis":                                      answer,
		"ERR LOADING is what the key is called":                             answer,
	} {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			server := miniredis.RunT(t)
			client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1})
			m := mux.New(client, mux.Config{Timeout: time.Minute, Failures: 1, OpenFor: time.Hour})
			require.NoError(t, m.Do(t.Context(), set("k", "1"))) // and connects
			server.SetError(reply)

			_, err := m.Get(t.Context(), "k", nil)
			require.EqualError(t, err, reply)
			require.Equal(t, want.unavailable, mux.Unavailable(err))
			server.SetError("")
			_, err = m.Get(t.Context(), "k", nil)
			if want.down {
				require.ErrorIs(t, err, mux.ErrOpen)
			} else {
				require.NoError(t, err)
			}
			require.NoError(t, m.Close(t.Context()))
			require.NoError(t, client.Close())
		})
	}
}

// What Redis says to a command is the error of that command only.
func TestMux_DoReturnsOnlyTheErrorOfTheRoundTrip(t *testing.T) {
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

func TestMux_GivesTheErrorOfAHookToEachCallerOfThePipeline(t *testing.T) {
	inBubble(t, patient, func(t *testing.T, r *rig) {
		first, _ := r.fillSlots(t)
		a, b := r.get(r.ctx, "a"), r.do(set("b", "1"))
		r.refusePipelines(errConn)
		first.answer(served)
		a.requireErr(t, errConn)
		b.requireErr(t, errConn)
	})
}
