package peers_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer))
}

// thing has what the codecs must bring back.
type thing struct {
	Name string
	At   time.Time
	Tags []string
	Left map[string]int
}

func open(t *testing.T, make peers.Open[thing], addr string, load peers.Loader[thing]) peers.Peer[thing] {
	t.Helper()
	peer, err := make(addr, load)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, peer.Close()) })
	return peer
}

func TestPeerServesFromRedisUntilInvalidated(t *testing.T) {
	server := redistest.Start(t)
	for name, make := range peers.All[thing]() {
		t.Run(name, func(t *testing.T) {
			var loads atomic.Int64
			row := thing{"old", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), []string{"a", "b"}, map[string]int{"x": 1}}
			load := func(_ context.Context, key string) (thing, error) {
				loads.Add(1)
				if key != "thing of "+name {
					return thing{}, errors.New("not asked for")
				}
				return row, nil
			}
			key := "thing of " + name
			one, other := open(t, make, server.Addr(), load), open(t, make, server.Addr(), load)
			for i, peer := range []peers.Peer[thing]{one, one, other} {
				v, err := peer.Get(t.Context(), key)
				require.NoError(t, err)
				assert.True(t, row.At.Equal(v.At))
				v.At = row.At
				assert.Equal(t, row, v, "read %d", i)
			}
			assert.EqualValues(t, 1, loads.Load(), "the others were hits")

			row.Name = "new"
			require.NoError(t, other.Invalidate(t.Context(), key))
			assert.Eventually(t, func() bool { // rockscache's weak mode serves the old value once more
				v, err := one.Get(t.Context(), key)
				return err == nil && v.Name == "new"
			}, 5*time.Second, time.Millisecond)
			assert.EqualValues(t, 2, loads.Load())
		})
	}
}

func TestPeerReturnsTheLoadersError(t *testing.T) {
	server := redistest.Start(t)
	broken := errors.New("broken")
	for name, make := range peers.All[thing]() {
		t.Run(name, func(t *testing.T) {
			peer := open(t, make, server.Addr(), func(context.Context, string) (thing, error) { return thing{}, broken })
			_, err := peer.Get(t.Context(), strings.ReplaceAll(name, " ", "-"))
			require.ErrorIs(t, err, broken)
		})
	}
}

func TestPeerAsksTheLoaderWhenRedisIsDown(t *testing.T) {
	for name, make := range peers.All[thing]() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			peer := open(t, make, server.Addr(), func(context.Context, string) (thing, error) { return thing{Name: "loaded"}, nil })
			_, err := peer.Get(t.Context(), "k")
			require.NoError(t, err)
			server.Kill()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // rueidis tries until then
			defer cancel()
			v, err := peer.Get(ctx, "k2")
			require.NoError(t, err)
			require.Equal(t, "loaded", v.Name)
		})
	}
}
