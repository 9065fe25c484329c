package faults

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// step recognizes a step of the protocol by what is sent.
type step func(cmds []redis.Cmder) bool

func command(name string) step {
	return func(cmds []redis.Cmder) bool { return cmds[0].Name() == name }
}

// script recognizes a script, known to the server or not, by how many keys and arguments it takes.
func script(keys, args int) step {
	return func(cmds []redis.Cmder) bool {
		sent := cmds[0].Args()
		return strings.HasPrefix(cmds[0].Name(), "eval") && sent[2] == keys && len(sent) == 3+keys+args
	}
}

// outage is when and how Redis goes: strike is what the test does to the server at the given step.
type outage struct {
	strike func(*redistest.Server)
	// sent: the step is carried out, and only its answer is lost.
	sent bool
}

// hook stops at the first round trip of the step, says so, and goes on when the server was struck.
func (o outage) hook(at step, reached chan<- struct{}, struck <-chan struct{}) tripHook {
	var first sync.Once
	return func(cmds []redis.Cmder, send func() error) error {
		if !at(cmds) {
			return send()
		}
		if o.sent {
			if err := send(); redis.HasErrorPrefix(err, "NOSCRIPT") {
				return err // not carried out: it is sent again, with the script
			}
		}
		first.Do(func() { close(reached); <-struck })
		if o.sent {
			return fail(cmds, io.ErrUnexpectedEOF)
		}
		return send()
	}
}

func TestGet_AnswersAtWhicheverStepRedisGoes(t *testing.T) {
	t.Parallel()
	tooLarge := readthrough.WithMaxEntryBytes(1)
	for stepName, row := range map[string]struct {
		at   step
		slow bool // the load lasts until Redis has gone
		opts []readthrough.Option
	}{
		"get":     {at: command("get")},
		"acquire": {at: command("set")},
		"renew":   {at: script(1, 2), slow: true, opts: []readthrough.Option{readthrough.WithLeaseTTL(300 * time.Millisecond)}},
		"fill":    {at: script(2, 3)},
		"release": {at: script(1, 1), opts: []readthrough.Option{tooLarge}},
	} {
		for how, gone := range map[string]outage{
			"killed":      {strike: (*redistest.Server).Kill},
			"hung":        {strike: (*redistest.Server).Pause},
			"answer lost": {strike: (*redistest.Server).Kill, sent: true},
		} {
			t.Run(stepName+", "+how, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				client := server.Client(once)
				reached, struck := make(chan struct{}), make(chan struct{})
				client.AddHook(gone.hook(row.at, reached, struck))
				cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(time.Second))[0]
				var loads atomic.Int64
				rows := wrapper(t, cache, func(context.Context, int) (string, error) {
					if row.slow {
						<-struck
					}
					loads.Add(1)
					return "loaded", nil
				}, row.opts...)

				got := make(chan string, 1)
				go func() { // ends with its Get
					v, err := rows.Get(context.Background(), 1)
					if err != nil {
						v = err.Error()
					}
					got <- v
				}()
				receive(t, reached)
				gone.strike(server)
				close(struck)

				require.Equal(t, "loaded", receive(t, got))
				require.EqualValues(t, 1, loads.Load())
				// The fill goes on for a while behind a caller who has waited for the lease.
				require.Eventually(t, func() bool { return rows.Stats().RedisErrors == 1 }, soon, time.Millisecond, "the caller waits for Redis once")
				if how == "hung" {
					server.Resume() // else Close waits for it
				}
			})
		}
	}
}
