//go:build linux

package coherence

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

const (
	// updaterEntry is the name of the child program that makes one Update, and is killed in it.
	updaterEntry = "updater"
	updatedRow   = "table:1" // in the database
)

func init() { redistest.Register(updaterEntry, runUpdater) }

// runUpdater makes one Update of row 1, and stops where UPDATE_STOP says.
func runUpdater() int {
	database := memberClient("DATABASE")
	stop := func(at string) {
		if os.Getenv("UPDATE_STOP") == at {
			fmt.Println("stopped")
			select {}
		}
	}
	cache, err := readthrough.NewCache(memberClient("CACHE"), readthrough.WithRedisTimeout(patientRedis))
	if err == nil {
		rows := readthrough.Must(readthrough.New(cache, "row", func(context.Context, int) (int64, error) { return 0, nil }, readthrough.Int))
		err = rows.Update(context.Background(), 1, func(ctx context.Context) error {
			stop("before the write")
			if err := database.Incr(ctx, updatedRow).Err(); err != nil {
				return err
			}
			stop("after the write")
			return nil
		})
	}
	fmt.Println("updated", err)
	return 0
}

// TestUpdate_ThatIsKilledLeavesNothingStale kills the process at each step of an Update: -9. What another process
// loads at that time is stored by nobody, even if that load ends when the write lease is over.
func TestUpdate_ThatIsKilledLeavesNothingStale(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		holds []string // the proxy catches the packet that says this
		left  int64    // the version in the database
	}{
		"before the write lease": {holds: []string{"eval", ":writing"}, left: 1},
		"before the write":       {left: 1},
		"after the write":        {left: 2},
		"before the end":         {holds: []string{"zrem\r\n"}, left: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			server := redistest.Start(t)
			database, direct := redistest.Start(t), server.Client()
			table := database.Client()
			require.NoError(t, table.Set(ctx, updatedRow, 1, 0).Err())
			proxy := redistest.StartProxy(t, server.Addr())
			load := func(ctx context.Context, _ int) (int64, error) { return table.Get(ctx, updatedRow).Int64() }
			wrap := func(load readthrough.Loader[int, int64]) *readthrough.ReadThrough[int, int64] {
				cache, err := readthrough.NewCache(server.Client(), readthrough.WithRedisTimeout(patientRedis), readthrough.WithLeaseTTL(time.Hour))
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, cache.Close()) })
				return readthrough.Must(readthrough.New(cache, "row", load, readthrough.Int))
			}
			reader := wrap(load)
			want := func(v int64) {
				t.Helper()
				got, err := reader.Get(ctx, 1)
				require.NoError(t, err)
				require.Equal(t, v, got)
			}
			want(1) // is stored

			stuck, goOn, loaded := make(chan struct{}), make(chan struct{}), make(chan int64, 1)
			slow := wrap(func(ctx context.Context, k int) (int64, error) {
				v, err := load(ctx, k)
				close(stuck)
				<-goOn
				return v, err
			})
			slowly := func() {
				go func() { v, _ := slow.Get(context.Background(), 1); loaded <- v }() // ends with its load
				<-stuck
			}
			if name == "after the write" { // whose lease the Update takes away
				require.NoError(t, reader.Invalidate(ctx, 1))
				slowly()
			}

			var held *redistest.Held
			if row.holds != nil {
				held = proxy.HoldNext(redistest.Requests, redistest.Saying(row.holds...))
			}
			updater := redistest.Process(t, updaterEntry, "CACHE="+proxy.Addr(), "DATABASE="+database.Addr(), "UPDATE_STOP="+name)
			if held != nil {
				held.Wait()
			} else {
				_, err := updater.ReadLine(time.Minute)
				require.NoError(t, err)
			}
			if name == "before the write" { // which gets a lease, and knows of the Update
				slowly()
			}
			updater.Kill()
			if held != nil {
				held.Drop()
			}
			want(row.left)
			if name == "before the write" { // the database commits what it had been sent
				require.NoError(t, table.Incr(ctx, updatedRow).Err())
				row.left++
				want(row.left)
				ttl := direct.PTTL(ctx, "{row:1}:writing").Val()
				require.InDelta(t, 15*time.Second, ttl, float64(5*time.Second))
			}
			if name == "before the write" || name == "after the write" {
				require.NoError(t, direct.Del(ctx, "{row:1}:writing").Err()) // its time is over
				close(goOn)
				require.EqualValues(t, 1, <-loaded)
			}
			want(row.left)
			raw, err := direct.Get(ctx, "row:1").Result()
			if err != nil {
				require.ErrorIs(t, err, redis.Nil)
				require.NotEqual(t, "before the write lease", name)
			}
			if name == "before the end" {
				require.Empty(t, raw, "nothing is stored while the write lease lasts")
				require.NoError(t, direct.Del(ctx, "{row:1}:writing").Err())
				want(2)
				require.EqualValues(t, 1, direct.Exists(ctx, "row:1").Val())
			}
		})
	}
}
