package pgxoutbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
	"github.com/readthrough-go/readthrough/outbox"
	"github.com/readthrough-go/readthrough/outbox/internal/dbtest"
)

const (
	soon = 20 * time.Second // what happens at once, on a busy machine
	tick = 5 * time.Millisecond
	rare = time.Hour // a poll interval that no test lives to see

	childEntry = "pgxoutbox writer"
	childEnv   = "READTHROUGH_TEST_DATABASE"
)

func TestMain(m *testing.M) {
	redistest.Register(childEntry, runWriter)
	redistest.RunIfChild()
	redistest.Parallel(8)
	code := m.Run()
	if postgres.stop != nil {
		postgres.stop()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// postgres is started by the first test.
var postgres struct {
	once   sync.Once
	server *dbtest.Server
	stop   func()
	made   atomic.Int64
}

// database makes a database with the tables for one test, and returns its URL.
func database(t *testing.T) string {
	t.Helper()
	postgres.once.Do(func() { postgres.server, postgres.stop = dbtest.StartPostgres(t) })
	if postgres.server == nil {
		t.Skip("PostgreSQL is not installed, as another test has said")
	}
	name := fmt.Sprintf("test%d", postgres.made.Add(1))
	execOn(t, postgres.server.PostgresURL("postgres"), "CREATE DATABASE "+name)
	url := postgres.server.PostgresURL(name)
	execOn(t, url, Schema(outbox.DefaultTable))
	execOn(t, url, Schema(outbox.DefaultTable)) // a second time changes nothing
	execOn(t, url, "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL); INSERT INTO users VALUES (42, 'old')")
	return url
}

// execOn executes statements on a connection of their own.
func execOn(t *testing.T, url, statements string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the statements have been executed
	_, err = conn.Exec(t.Context(), statements)
	require.NoError(t, err)
}

func openPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// cacheFunc is a cache that does what a test wants.
type cacheFunc func(ctx context.Context, keys ...string) error

func (f cacheFunc) Delete(ctx context.Context, keys ...string) error { return f(ctx, keys...) }

// deaf is a cache that is content with everything.
var deaf = cacheFunc(func(context.Context, ...string) error { return nil })

// relay starts a relay that ends with the test, and waits until it listens.
func relay(t *testing.T, pool *pgxpool.Pool, cache outbox.Cache, opts ...outbox.Option) *Relay {
	t.Helper()
	r, err := NewRelay(pool, cache, opts...)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }() // ends by the Cleanup
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	awaitListener(t, pool, 0)
	return r
}

// awaitListener waits for a connection that listens and is not the process other, and returns its process.
func awaitListener(t *testing.T, pool *pgxpool.Pool, other int) (pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := pool.QueryRow(t.Context(),
			"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> $1", other).Scan(&pid)
		return err == nil
	}, soon, tick)
	return pid
}

// rename is a transaction of the kind that Add is for.
func rename(ctx context.Context, pool *pgxpool.Pool, keys ...string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE users SET name = 'new' WHERE id = 42")
		return errors.Join(err, Add(ctx, tx, keys...))
	})
}

func TestRelay_IsWokenByCommit(t *testing.T) {
	t.Parallel()
	url := database(t)
	pool := openPool(t, url)
	r := relay(t, pool, deaf, outbox.WithPollInterval(rare))

	for n := range int64(20) {
		require.NoError(t, rename(t.Context(), pool, "a", "b"))
		require.Eventually(t, func() bool { return r.Stats().Relayed == 2*(n+1) }, soon, time.Millisecond)
	}
	assert.Zero(t, r.Stats().Errors)
	t.Logf("lag of the last batch: %s", r.Stats().Lag)
}

func TestRelay_IsWokenByDatabaseSQLToo(t *testing.T) {
	t.Parallel()
	pool := openPool(t, database(t))
	r := relay(t, pool, deaf, outbox.WithPollInterval(rare))
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, outbox.Add(t.Context(), tx, "k"))
	require.NoError(t, tx.Commit())

	require.Eventually(t, func() bool { return r.Stats().Relayed == 1 }, soon, tick)
}

func TestRelay_IsNotWokenBeforeCommit(t *testing.T) {
	t.Parallel()
	pool := openPool(t, database(t))
	r := relay(t, pool, deaf, outbox.WithPollInterval(rare))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, Add(t.Context(), tx, "early"))

	require.NoError(t, rename(t.Context(), pool, "late")) // with a higher id
	require.Eventually(t, func() bool { return r.Stats().Relayed == 1 }, soon, tick)
	require.NoError(t, tx.Commit(t.Context()))

	require.Eventually(t, func() bool { return r.Stats().Relayed == 2 }, soon, tick)
}

func TestRelay_ListensAgainAfterItsConnectionBroke(t *testing.T) {
	t.Parallel()
	pool := openPool(t, database(t))
	r := relay(t, pool, deaf, outbox.WithPollInterval(rare), outbox.WithBackoff(50*time.Millisecond, time.Second))
	pid := awaitListener(t, pool, 0)

	_, err := pool.Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid)
	require.NoError(t, err)
	require.NoError(t, rename(t.Context(), pool, "while nobody listened"))

	require.Eventually(t, func() bool { return r.Stats().Relayed == 1 }, soon, tick)
	assert.Equal(t, int64(1), r.Stats().Errors)
	awaitListener(t, pool, pid)
	require.NoError(t, rename(t.Context(), pool, "after"))
	require.Eventually(t, func() bool { return r.Stats().Relayed == 2 }, soon, tick)
}

func TestRelay_NeedsOneConnectionOfPool(t *testing.T) {
	t.Parallel()
	pool := openPool(t, database(t)+"&pool_max_conns=1")
	r := relay(t, pool, deaf, outbox.WithPollInterval(rare))
	for n := range int64(5) {
		require.NoError(t, rename(t.Context(), pool, "k"))
		require.Eventually(t, func() bool { return r.Stats().Relayed == n+1 }, soon, tick)
	}
}

func TestTable_MayHaveAnotherName(t *testing.T) {
	t.Parallel()
	const table outbox.Table = "shop.invalidations"
	url := database(t)
	execOn(t, url, "CREATE SCHEMA shop;"+Schema(table))
	pool := openPool(t, url)
	r := relay(t, pool, deaf, outbox.WithPollInterval(rare), outbox.WithTable(table))
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return table.Add(t.Context(), Execer(tx), "k")
	}))
	require.Eventually(t, func() bool { return r.Stats().Relayed == 1 }, soon, tick)
}

func TestNewRelay_RefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	_, err := NewRelay(nil, deaf)
	require.Error(t, err)
	pool := openPool(t, "postgres://nobody@127.0.0.1:1/none")
	_, err = NewRelay(pool, deaf, outbox.WithBatchSize(0))
	require.ErrorContains(t, err, "WithBatchSize")
	require.Error(t, Run(t.Context(), pool, nil))
	require.Panics(t, func() { Schema("a b") })
}

// runWriter is a process that commits and then waits to be killed, before it could invalidate.
func runWriter() int {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv(childEnv))
	if err == nil {
		err = rename(ctx, pool, "user:42")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("committed")
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with the process
	return 1
}

// TestRelay_InvalidatesForWriterKilledAfterCommit does so by a relay that ran at the time, and by one that
// is started afterwards.
func TestRelay_InvalidatesForWriterKilledAfterCommit(t *testing.T) {
	for name, running := range map[string]bool{"relay runs": true, "relay restarts": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := database(t)
			pool := openPool(t, url)
			server := miniredis.RunT(t)
			client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1})
			cache := readthrough.Must(readthrough.NewCache(client, readthrough.WithRedisTimeout(soon)))
			t.Cleanup(func() { _ = cache.Close(); _ = client.Close() })
			users := readthrough.Must(readthrough.New(cache, "user", func(ctx context.Context, id int64) (name string, err error) {
				err = pool.QueryRow(ctx, "SELECT name FROM users WHERE id = $1", id).Scan(&name)
				return name, err
			}, readthrough.Int))
			got, err := users.Get(t.Context(), 42)
			require.NoError(t, err)
			require.Equal(t, "old", got)
			require.True(t, server.Exists("user:42"))
			if running {
				relay(t, pool, cache, outbox.WithPollInterval(rare))
			}

			p := redistest.Process(t, childEntry, childEnv+"="+url)
			line, err := p.ReadLine(soon)
			require.NoError(t, err)
			require.Equal(t, "committed", line)
			p.Kill()
			if !running {
				require.True(t, server.Exists("user:42"))
				relay(t, pool, cache, outbox.WithPollInterval(rare))
			}

			require.Eventually(t, func() bool { return !server.Exists("user:42") }, soon, tick)
			got, err = users.Get(t.Context(), 42)
			require.NoError(t, err)
			assert.Equal(t, "new", got)
		})
	}
}
