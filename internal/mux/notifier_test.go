package mux_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/mux"
)

// A listener may take its time, or call the Mux: a round trip must not be handed to the worker that
// is calling it.
func TestBreaker_IsNotHeldUpByASlowOnState(t *testing.T) {
	var goOn chan struct{}
	cfg := touchy
	cfg.OnState = func(open bool) { <-goOn }
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		goOn = make(chan struct{}) // of the bubble
		defer close(goOn)
		for range touchy.Failures {
			r.roundTrip(t, failing(errConn))
		}
		c := r.force(set("k", "1"))
		require.Equal(t, [][]string{{"set k 1"}}, r.asked())
		r.underWay()[0].answer(served)
		c.requireErr(t, nil)
	})
}

func TestBreaker_CallsOnStateForEachChange(t *testing.T) {
	var told []bool
	cfg := touchy
	cfg.OnState = func(open bool) { told = append(told, open) }
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		r.requireClosed(t)
		require.Empty(t, told)
		r.openBreaker(t)
		require.Equal(t, []bool{true}, told)

		time.Sleep(openFor + 1)
		r.roundTrip(t, failing(errConn)) // a probe that fails changes nothing
		require.Equal(t, []bool{true}, told)

		time.Sleep(openFor + 1)
		r.roundTrip(t, served)
		require.Equal(t, []bool{true, false}, told)
		r.openBreaker(t)
		require.Equal(t, []bool{true, false, true}, told)
	})
}

func TestBreaker_CallsOnStateOneAtATime(t *testing.T) {
	var goOn chan struct{}
	var told []bool
	cfg := touchy
	cfg.OnState = func(open bool) {
		told = append(told, open)
		<-goOn
	}
	inBubble(t, cfg, func(t *testing.T, r *rig) {
		goOn = make(chan struct{}) // of the bubble
		r.openBreaker(t)
		time.Sleep(openFor + 1)
		r.roundTrip(t, served) // closes it, while the listener still hears that it has opened
		r.requireClosed(t)
		require.Equal(t, []bool{true}, told)
		close(goOn)
		synctest.Wait()
		require.Equal(t, []bool{true, false}, told)
	})
}

// A lock that is held while OnState is called shows as a deadlock, which a bubble would not notice:
// here the clock is real.
func TestBreaker_LetsOnStateCallTheMux(t *testing.T) {
	for name, row := range map[string]struct {
		timeout time.Duration
		reply   answer // nil: Redis hangs
	}{
		"after a failed round trip": {time.Minute, failing(errConn)},
		"after a timeout":           {10 * time.Millisecond, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m *mux.Mux
			// There is room for the changes that a busy machine may add by timing out more often.
			back, closed := make(chan struct{}, 1000), make(chan struct{}, 1000)
			wire := &wire{reply: row.reply}
			client := wire.client()
			cfg := mux.Config{Timeout: row.timeout, Failures: 1, OpenFor: 10 * time.Millisecond}
			cfg.OnState = func(open bool) {
				if !open {
					closed <- struct{}{}
					return
				}
				wire.answerAtOnce(served)
				for until := time.Now().Add(soon); time.Now().Before(until); time.Sleep(time.Millisecond) {
					// The first that is sent is the probe: it changes the state again.
					if _, err := m.Get(context.Background(), "k", nil); err == nil {
						back <- struct{}{}
						return
					}
				}
			}
			m = mux.New(client, cfg)

			go func() { _, _ = m.Get(t.Context(), "k", nil) }() // fails, and opens the breaker
			for what, told := range map[string]chan struct{}{"hits are back": back, "closed": closed} {
				select {
				case <-told:
				case <-time.After(soon):
					t.Fatalf("%s: not so; OnState is called with a lock held, or not at all", what)
				}
			}
			for _, rt := range wire.takeHeld() {
				rt.end <- served
			}
			require.NoError(t, m.Close(t.Context()))
			require.NoError(t, client.Close())
		})
	}
}
