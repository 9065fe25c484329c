package readthrough_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestLoadLimit_IsNeverExceeded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const limit, callers = 3, 20
		db := &database{version: 1, takes: time.Second}
		rt := b.process(t, db, readthrough.WithLoadLimit(limit))
		var answers []<-chan answer
		for k := range callers / 2 {
			answers = append(answers, asking(t.Context(), rt, k))
		}
		var many []int
		for k := callers / 2; k < callers; k++ {
			many = append(many, k)
		}
		results, err := rt.GetMany(t.Context(), many)
		require.NoError(t, err)
		for _, result := range results {
			require.Equal(t, readthrough.Result[int]{Value: 1}, result)
		}
		for _, each := range answers {
			got := <-each
			require.NoError(t, got.err)
		}
		began := db.loads()
		require.Len(t, began, callers)
		require.Equal(t, limit, db.most)
		require.Equal(t, (callers-1)/limit*time.Second, began[callers-1].Sub(began[0]), "no turn is lost")
	})
}

func TestLoadLimit_HoldsForLoaderThatIgnoresTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: 10 * time.Second, deaf: true}
		rt := b.process(t, db, readthrough.WithLoadLimit(1), readthrough.WithLoadTimeout(time.Second))
		got := ask(t.Context(), rt, 1)
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.Equal(t, time.Second, got.took)

		db.change(func(d *database) { d.takes = 0 })
		got = ask(t.Context(), rt, 2)
		require.NoError(t, got.err)
		require.Equal(t, 9*time.Second, got.took, "the turn ends with the loader")
		require.Equal(t, 1, db.most)
	})
}

func TestLoadLimit_LetsWaitersLeave(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: 10 * time.Second}
		rt := b.process(t, db, readthrough.WithLoadLimit(1))
		first := asking(t.Context(), rt, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := ask(ctx, rt, 2)
		require.ErrorIs(t, got.err, context.DeadlineExceeded)
		require.Equal(t, time.Second, got.took)
		require.NoError(t, (<-first).err)
		require.Len(t, db.loads(), 1, "who has left takes no turn")
		require.Zero(t, rt.Stats().LoadErrors)
		require.False(t, b.redis.Exists("{row:2}:lease"), "given back")
	})
}

func TestLoadLimit_DelaysNoStaleHit(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1}
		rt := b.process(t, db, readthrough.WithLoadLimit(1), readthrough.WithPatience(time.Second))
		require.Equal(t, 1, ask(t.Context(), rt, 1).value)
		pass(ttl)
		db.change(func(d *database) { d.version, d.takes = 2, 10*time.Second })
		first := asking(t.Context(), rt, 2)
		requireValue(t, rt, 1, readthrough.SourceStale)
		require.Equal(t, 10*time.Second, (<-first).took)
		pass(10 * time.Second)
		require.Len(t, db.loads(), 3, "its refresh has waited")
		requireValue(t, rt, 2, readthrough.SourceHit)
	})
}

// A caller who waits for a slot holds no lease: so no other process waits behind this one's queue.
func TestLoadLimit_TakesLeaseWhenTurnHasCome(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: 3 * time.Second}
		busy, idle := b.process(t, db, readthrough.WithLoadLimit(1)), b.process(t, db)
		first := asking(t.Context(), busy, 1)
		second := asking(t.Context(), busy, 2)
		require.True(t, b.redis.Exists("{row:1}:lease"))
		require.False(t, b.redis.Exists("{row:2}:lease"))
		other := ask(t.Context(), idle, 2)
		require.NoError(t, other.err)
		require.Equal(t, readthrough.SourceLoaded, other.info.Source)
		require.Equal(t, 3*time.Second, other.took, "it does not wait for the other process's queue")
		require.NoError(t, (<-first).err)
		got := <-second
		require.NoError(t, got.err)
		require.Equal(t, readthrough.SourceShared, got.info.Source)
		require.Len(t, db.loads(), 2)
	})
}

func TestLease_OfSlowLoadIsWaitedForByDefault(t *testing.T) {
	for name, row := range map[string]struct {
		opts  []readthrough.CacheOption
		takes time.Duration
	}{
		"default":             {nil, 29 * time.Second},
		"longer load timeout": {[]readthrough.CacheOption{readthrough.WithLoadTimeout(5 * time.Minute)}, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				db := &database{version: 1, takes: row.takes}
				var answers []<-chan answer
				for range 4 {
					answers = append(answers, asking(t.Context(), wrapper(t, b.cache(t, row.opts...), db.load), 1))
				}
				for _, each := range answers {
					got := <-each
					require.NoError(t, got.err)
					require.Equal(t, 1, got.value)
				}
				require.Len(t, db.loads(), 1, "one in the fleet")
			})
		})
	}
}

// The wait for another process's load begins with that wait, not in the queue before it.
func TestLeaseWait_DoesNotBeginInQueueForSlot(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: 20 * time.Second}
		busy := b.process(t, db, readthrough.WithLoadLimit(1))
		other := b.process(t, db)
		first := asking(t.Context(), busy, 1)
		queued := asking(t.Context(), busy, 2)
		pass(15 * time.Second)
		elsewhere := asking(t.Context(), other, 2) // ends 15 s after the first, 35 s after the queued one began
		require.NoError(t, (<-first).err)
		require.NoError(t, (<-elsewhere).err)
		require.NoError(t, (<-queued).err)
		require.Len(t, db.loads(), 2)
	})
}

// TestGet_DoesNotWaitForQueueOfManyKeys has the last of 640 keys asked for while a Warm loads the
// first ones: the queue takes 12 s, and a load 300 ms.
func TestGet_DoesNotWaitForQueueOfManyKeys(t *testing.T) {
	const keys, takes = 640, 300 * time.Millisecond
	batch := func(db *database) readthrough.Option {
		return readthrough.WithBatchLoader(func(ctx context.Context, ids []int) (map[int]int, error) {
			v, err := db.load(ctx, ids[0])
			values := make(map[int]int)
			for _, id := range ids {
				values[id] = v
			}
			return values, err
		})
	}
	ten := readthrough.WithBatchSize(10)
	for name, row := range map[string]struct {
		opts  func(*database) []readthrough.Option
		takes time.Duration // the whole queue
		own   bool          // a Get in the same process waits for a slot: that is what a limit is for
	}{
		"16 at a time":        {func(*database) []readthrough.Option { return nil }, keys / 16 * takes, false},
		"4 batches at a time": {func(db *database) []readthrough.Option { return []readthrough.Option{ten, batch(db)} }, keys / 40 * takes, false},
		"a limit of 4": {func(*database) []readthrough.Option {
			return []readthrough.Option{readthrough.WithLoadLimit(4)}
		}, keys / 4 * takes, true},
		"a limit of 1 batch": {func(db *database) []readthrough.Option {
			return []readthrough.Option{ten, batch(db), readthrough.WithLoadLimit(1)}
		}, keys / 10 * takes, true},
	} {
		for many, fill := range map[string]func(*rows) error{
			"Warm": func(rt *rows) error {
				_, err := rt.Warm(context.Background(), slices.Values(upTo(1, keys+1)))
				return err
			},
			"GetMany": func(rt *rows) error { _, err := rt.GetMany(context.Background(), upTo(1, keys+1)); return err },
		} {
			t.Run(many+", "+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					db := &database{version: 1, takes: takes}
					process := func() *rows {
						return wrapper(t, b.cache(t, readthrough.WithTTL(time.Hour)), db.load, row.opts(db)...)
					}
					busy, other := process(), process()
					began := time.Now()
					filled := going(func() error { return fill(busy) })
					requireQuick := func(rt *rows, id int) {
						t.Helper()
						got := ask(t.Context(), rt, id)
						require.NoError(t, got.err)
						require.LessOrEqual(t, got.took, takes+10*time.Millisecond)
					}
					requireQuick(other, keys)
					require.LessOrEqual(t, len(leasesIn(b.redis)), 40, "only what is being loaded has a lease")
					if !row.own {
						requireQuick(busy, keys-1)
						requireQuick(busy, keys/2)
					}
					require.NoError(t, <-filled)
					require.InDelta(t, row.takes, time.Since(began), float64(time.Second))
				})
			})
		}
	}
}
