package test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/outbox"
)

func TestRelay_InvalidatesWhatWasCommitted(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		s := newScene(t, b)
		s.requireName(old)
		tx, err := rename(t.Context(), s.db, s.key)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		s.requireName(old) // nobody has invalidated it yet

		r, _ := relay(t, s.db, s.cache)

		eventually(t, func() bool { return s.rows() == 0 })
		s.requireName(now)
		eventually(t, func() bool { return r.Stats().Relayed == 1 })
		assert.Zero(t, r.Stats().Failed+r.Stats().Errors)
	})
}

func TestRelay_DoesNothingForWhatWasRolledBack(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		s := newScene(t, b)
		s.requireName(old)
		tx, err := rename(t.Context(), s.db, s.key)
		require.NoError(t, err)
		require.NoError(t, tx.Rollback())
		r, _ := relay(t, s.db, s.cache)

		add(t, s.db, "another") // is relayed after what came before it
		r.Notify()

		eventually(t, func() bool { return r.Stats().Relayed == 1 })
		assert.True(t, s.redis.Exists(s.key))
	})
}

func TestNotify_HasRelayLookAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		s := newScene(t, b)
		r, _ := relay(t, s.db, s.cache, outbox.WithPollInterval(rare))
		for n := range 3 {
			add(t, s.db, "k")
			r.Notify()
			eventually(t, func() bool { return r.Stats().Relayed == int64(n)+1 })
		}
	})
}

func TestRelay_TakesLowerIDThatIsCommittedLater(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		if b.Dialect == outbox.SQLite {
			t.Skip("SQLite has one writer at a time: ids are committed in their order")
		}
		db := b.open(t)
		var seen []string
		r, _ := relay(t, db, cacheFunc(func(_ context.Context, keys ...string) error {
			seen = append(seen, keys...)
			return nil
		}), outbox.WithPollInterval(rare))
		early, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, outbox.Add(t.Context(), early, "early"))

		add(t, db, "late")
		r.Notify()
		eventually(t, func() bool { return r.Stats().Relayed == 1 })
		require.NoError(t, early.Commit())
		r.Notify()

		eventually(t, func() bool { return r.Stats().Relayed == 2 })
		assert.Equal(t, []string{"late", "early"}, seen)
		assert.Zero(t, countRows(t, db))
	})
}

// TestRelays_ShareTable has relays of several processes, as it were, relay each row once.
func TestRelays_ShareTable(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		const rows, relays = 1000, 4
		db := b.open(t)
		var mu sync.Mutex
		seen := make(map[string]int)
		cache := cacheFunc(func(_ context.Context, keys ...string) error {
			mu.Lock()
			defer mu.Unlock()
			for _, key := range keys {
				seen[key]++
			}
			return nil
		})
		for range relays {
			relay(t, b.open(t), cache, outbox.WithBatchSize(7), outbox.WithPollInterval(2*tick))
		}
		var writers sync.WaitGroup
		for w := range 2 {
			writers.Go(func() {
				for i := 0; i < rows/2; i += 50 {
					keys := make([]string, 50)
					for j := range keys {
						keys[j] = fmt.Sprintf("%d:%d", w, i+j)
					}
					add(t, db, keys...)
				}
			})
		}
		writers.Wait()

		eventually(t, func() bool { return countRows(t, db) == 0 })
		mu.Lock()
		defer mu.Unlock()
		assert.Len(t, seen, rows)
		assert.Equal(t, 1, slices.Max(slices.Collect(maps.Values(seen))), "rows were relayed twice")
	})
}

// TestAdd_DoesNotWaitForRelay holds that a cache that is slow keeps no writer waiting.
func TestAdd_DoesNotWaitForRelay(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		db := b.open(t)
		add(t, db, "k1")
		begun, goOn := make(chan struct{}, 1), make(chan struct{})
		free := sync.OnceFunc(func() { close(goOn) })
		r, _ := relay(t, b.open(t), cacheFunc(func(context.Context, ...string) error {
			select {
			case begun <- struct{}{}:
			default:
			}
			<-goOn
			return nil
		}), outbox.WithPollInterval(tick))
		t.Cleanup(free)
		<-begun

		start := time.Now()
		add(t, db, "k2")
		took := time.Since(start)

		assert.Less(t, took, 3*time.Second) // the relay would wait for its cache for 5 s
		free()
		eventually(t, func() bool { return r.Stats().Relayed == 2 })
	})
}

func TestRelay_OutlastsOutageOfRedis(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		s := newScene(t, b)
		s.requireName(old)
		s.redis.SetError("LOADING not yet")
		tx, err := rename(t.Context(), s.db, s.key)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		r, _ := relay(t, s.db, s.cache, outbox.WithBackoff(10*time.Millisecond, 50*time.Millisecond))
		eventually(t, func() bool { return r.Stats().Failed >= 3 })
		n, age, err := r.Pending(t.Context())
		require.NoError(t, err)
		assert.Equal(t, int64(1), n)
		assert.Positive(t, age)

		s.redis.SetError("")

		eventually(t, func() bool { return r.Stats().Relayed == 1 })
		s.requireName(now)
		assert.Positive(t, r.Stats().Lag)
	})
}

func TestRelay_OutlastsTroubleWithDatabase(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		db := b.open(t)
		mustExec(t, db, "ALTER TABLE readthrough_outbox RENAME TO elsewhere")
		var mu sync.Mutex
		var failure error
		r, _ := relay(t, db, cacheFunc(func(context.Context, ...string) error { return nil }),
			outbox.WithBackoff(time.Millisecond, 10*time.Millisecond),
			outbox.WithOnEvent(func(e outbox.Event) {
				mu.Lock()
				defer mu.Unlock()
				failure = errors.Join(failure, e.Err)
			}))
		eventually(t, func() bool { return r.Stats().Errors >= 3 })

		mustExec(t, db, "ALTER TABLE elsewhere RENAME TO readthrough_outbox")
		add(t, db, "k")

		eventually(t, func() bool { return r.Stats().Relayed == 1 })
		mu.Lock()
		defer mu.Unlock()
		assert.ErrorContains(t, failure, "readthrough_outbox")
	})
}

// TestRelay_HoldsUpNobodyForKeysThatFail has more failing rows than a batch has before one that
// would not fail, and has them due again whenever the relay looks.
func TestRelay_HoldsUpNobodyForKeysThatFail(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		db := b.open(t)
		add(t, db, "bad1", "bad2", "bad3", "good1")
		cache := cacheFunc(func(_ context.Context, keys ...string) error {
			bad := slices.DeleteFunc(keys, func(key string) bool { return strings.HasPrefix(key, "good") })
			if len(bad) == 0 {
				return nil
			}
			return &readthrough.WriteError{Op: "delete", Keys: bad, Err: errors.New("shard down")}
		})
		r, _ := relay(t, db, cache, outbox.WithBatchSize(2), outbox.WithPollInterval(rare),
			outbox.WithBackoff(time.Millisecond, time.Millisecond))

		eventually(t, func() bool { return r.Stats().Relayed == 1 })
		eventually(t, func() bool { return r.Stats().Failed >= 9 }) // they are tried again, without a poll
		assert.Equal(t, 3, countRows(t, db))
	})
}

func TestRelay_LeavesWhatItDoesNotKnow(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		db := b.open(t)
		mustExec(t, db, "INSERT INTO readthrough_outbox (kind, name) VALUES (7, 'of a later version')")
		mustExec(t, db, "INSERT INTO readthrough_outbox (name) VALUES ('%zz')")
		mustExec(t, db, "INSERT INTO readthrough_outbox (name) VALUES ('')")
		add(t, db, "k")
		var mu sync.Mutex
		var bad []string
		r, _ := relay(t, db, cacheFunc(func(_ context.Context, keys ...string) error { return nil }),
			outbox.WithPollInterval(tick),
			outbox.WithOnEvent(func(e outbox.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == outbox.EventFailed && bad == nil {
					bad = e.Keys
				}
			}))

		eventually(t, func() bool { return r.Stats().Relayed == 1 && r.Stats().Failed >= 2 })
		assert.Equal(t, 3, countRows(t, db))
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, []string{"", "%zz"}, bad)
	})
}

func TestAdd_KeepsAnyBytes(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		db := b.open(t)
		want := []string{
			"user:42", `'; DROP TABLE users; --`, `\'`, "\x00\xff\xfe", "a\nb", "%27", "é?$1:x@y", "  ", strings.Repeat("\x80", 16<<10),
		}
		for i := range 256 {
			want = append(want, "byte "+string([]byte{byte(i)}))
		}
		var got []string
		r, _ := relay(t, db, cacheFunc(func(_ context.Context, keys ...string) error {
			got = append(got, keys...)
			return nil
		}))

		add(t, db, want...)

		eventually(t, func() bool { return r.Stats().Relayed == int64(len(want)) })
		assert.ElementsMatch(t, want, got)
	})
}

func TestAdd_TakesMoreKeysThanFitIntoStatement(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		db := b.open(t)
		keys := make([]string, 20_000)
		for i := range keys {
			keys[i] = fmt.Sprintf("some:prefix:or:other:%d", i)
		}

		add(t, db, keys...)

		assert.Equal(t, len(keys), countRows(t, db))
		r, _ := relay(t, db, cacheFunc(func(context.Context, ...string) error { return nil }),
			outbox.WithBatchSize(1000), outbox.WithPollInterval(rare)) // the largest batches there are
		eventually(t, func() bool { return r.Stats().Relayed == int64(len(keys)) })
	})
}

func TestTable_MayHaveAnotherName(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		const table outbox.Table = "invalidations_2"
		db := b.open(t)
		mustExec(t, db, table.Schema(b.Dialect))
		mustExec(t, db, table.Schema(b.Dialect)) // a second time changes nothing
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, table.Add(t.Context(), tx, "k"))
		require.NoError(t, tx.Commit())

		r, _ := relay(t, db, cacheFunc(func(context.Context, ...string) error { return nil }),
			outbox.WithTable(table), outbox.WithDialect(b.Dialect))

		eventually(t, func() bool { return r.Stats().Relayed == 1 })
	})
}
