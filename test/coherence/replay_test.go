//go:build linux

package coherence

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// TestAcquire_SentTwiceBringsNoLostLeaseBack has a client send an acquire again, since its connection broke. The first
// copy comes to Redis only after an Invalidate has deleted the lease that the second one got. The load which that
// lease was for is older than the Invalidate, and must not be stored.
func TestAcquire_SentTwiceBringsNoLostLeaseBack(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*readthrough.ReadThrough[int, int64], context.Context, int) (int64, error){
		"Get":     (*readthrough.ReadThrough[int, int64]).Get,
		"Refresh": (*readthrough.ReadThrough[int, int64]).Refresh, // steals
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			direct := server.Client()
			db := newGate(1)
			wrap := func(client *redis.Client) *readthrough.ReadThrough[int, int64] {
				return db.wrapClient(t, client, readthrough.WithLeaseTTL(time.Minute), readthrough.WithLeaseWait(time.Millisecond))
			}
			reader := wrap(server.Client(func(o *redis.Options) { o.Addr, o.MaxRetries = proxy.Addr(), 3 }))
			writer := wrap(direct)

			first := proxy.HoldNext(redistest.Requests, redistest.Saying("set", ":lease"))
			got := make(chan answer, 1)
			go func() { // ends with its read
				v, err := read(reader, t.Context(), 1)
				got <- answer{value: stressValue{Version: v}, err: err}
			}()
			first.Wait()
			require.Positive(t, proxy.Cut())
			<-db.reading
			db.version.Store(2)
			require.NoError(t, writer.Invalidate(t.Context(), 1))
			first.Release()
			<-first.Answered()
			require.EqualValues(t, 1, direct.Exists(t.Context(), "{row:1}:lease").Val(), "the first copy has come to nothing")
			close(db.goOn)

			older := <-got
			require.NoError(t, older.err)
			require.EqualValues(t, 1, older.value.Version, "it began before the Invalidate")
			require.EqualValues(t, 1, reader.Stats().RefusedFills)
			db.want(t, writer, 2)
			db.want(t, reader, 2)
		})
	}
}
