package test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
	"github.com/readthrough-go/readthrough/outbox"
	"github.com/readthrough-go/readthrough/outbox/internal/dbtest"
)

const (
	soon = 20 * time.Second     // what happens at once, on a busy machine
	tick = 5 * time.Millisecond // between two looks
	rare = time.Hour            // a poll interval that no test lives to see
	user = int64(42)            // the row of table users that the tests are about
	old  = "old name"
	now  = "new name"
)

func TestMain(m *testing.M) {
	redistest.RunIfChild()
	redistest.Parallel(8)
	code := m.Run()
	postgres.stop()
	mariadb.stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server is a database server that is started when the first test needs it, and stopped after all.
type server struct {
	driver string
	start  func(testing.TB) (*dbtest.Server, func())
	url    func(s *dbtest.Server, database string) string
	first  string // the database that is there at first

	once   sync.Once
	server *dbtest.Server
	end    func()
	made   atomic.Int64
}

var (
	postgres = server{driver: "pgx", start: dbtest.StartPostgres, url: (*dbtest.Server).PostgresURL, first: "postgres"}
	mariadb  = server{driver: "mysql", start: dbtest.StartMariaDB, url: (*dbtest.Server).MariaDBDSN, first: ""}
)

func (s *server) stop() {
	if s.end != nil {
		s.end()
	}
}

// database makes a database for one test, and returns its data source name.
func (s *server) database(t *testing.T) string {
	t.Helper()
	s.once.Do(func() { s.server, s.end = s.start(t) })
	if s.server == nil {
		t.Skip("the server is not installed, as another test has said")
	}
	admin, err := sql.Open(s.driver, s.url(s.server, s.first))
	require.NoError(t, err)
	defer admin.Close()
	name := fmt.Sprintf("test%d", s.made.Add(1))
	_, err = admin.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return s.url(s.server, name)
}

// base is a database for one test.
type base struct {
	Driver, DSN string
	Dialect     outbox.Dialect
}

// open returns a pool of connections, which ends with the test.
func (b base) open(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open(b.Driver, b.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// onEach runs f as a subtest on an empty database of each dialect, with the tables that the tests use.
func onEach(t *testing.T, f func(t *testing.T, b base)) {
	t.Parallel()
	for dialect, make := range map[outbox.Dialect]func(t *testing.T) base{
		outbox.SQLite: func(t *testing.T) base {
			file := filepath.Join(t.TempDir(), "test.sqlite")
			return base{Driver: "sqlite", DSN: "file:" + file + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"}
		},
		outbox.PostgreSQL: func(t *testing.T) base { return base{Driver: postgres.driver, DSN: postgres.database(t)} },
		outbox.MySQL:      func(t *testing.T) base { return base{Driver: mariadb.driver, DSN: mariadb.database(t)} },
	} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			b := make(t)
			b.Dialect = dialect
			db := b.open(t)
			for _, statement := range []string{
				outbox.Schema(dialect),
				"CREATE TABLE users (id BIGINT PRIMARY KEY, name VARCHAR(100) NOT NULL)",
				fmt.Sprintf("INSERT INTO users VALUES (%d, '%s')", user, old),
			} {
				mustExec(t, db, statement)
			}
			f(t, b)
		})
	}
}

func mustExec(t testing.TB, db outbox.Execer, statement string) {
	t.Helper()
	_, err := db.ExecContext(context.Background(), statement)
	require.NoError(t, err, statement)
}

// rename writes the new name and records the invalidation, in a transaction that is left open.
func rename(ctx context.Context, db *sql.DB, key string) (*sql.Tx, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE users SET name = '%s' WHERE id = %d", now, user)); err != nil {
		return nil, err
	}
	return tx, outbox.Add(ctx, tx, key)
}

// scene is a cached table of users.
type scene struct {
	t     *testing.T
	db    *sql.DB
	redis *miniredis.Miniredis
	cache *readthrough.Cache
	users *readthrough.ReadThrough[int64, string]
	key   string // of the user
}

func newScene(t *testing.T, b base) *scene {
	t.Helper()
	s := &scene{t: t, db: b.open(t), redis: miniredis.RunT(t)}
	client := redis.NewClient(&redis.Options{Addr: s.redis.Addr(), MaxRetries: -1, DialerRetries: 1})
	s.cache = readthrough.Must(readthrough.NewCache(client, readthrough.WithRedisTimeout(soon))) // a busy machine is no outage
	t.Cleanup(func() { _ = s.cache.Close(); _ = client.Close() })
	load := func(ctx context.Context, id int64) (name string, err error) {
		err = s.db.QueryRowContext(ctx, fmt.Sprintf("SELECT name FROM users WHERE id = %d", id)).Scan(&name)
		return name, err
	}
	s.users = readthrough.Must(readthrough.New(s.cache, "user", load, readthrough.Int))
	s.key = readthrough.Must(s.users.RedisKey(user))
	return s
}

// requireName requires that a read of the user returns name.
func (s *scene) requireName(name string) {
	s.t.Helper()
	got, err := s.users.Get(s.t.Context(), user)
	require.NoError(s.t, err)
	require.Equal(s.t, name, got)
}

// rows returns how many invalidations are recorded.
func (s *scene) rows() int { return countRows(s.t, s.db) }

func countRows(t testing.TB, db *sql.DB) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(context.Background(), "SELECT count(*) FROM readthrough_outbox").Scan(&n))
	return n
}

// relay starts a relay that ends with the test, or with the function that it returns.
func relay(t *testing.T, db *sql.DB, cache outbox.Cache, opts ...outbox.Option) (*outbox.Relay, func()) {
	t.Helper()
	r, err := outbox.NewRelay(db, cache, opts...)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }() // ends by stop
	stop := sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	t.Cleanup(stop)
	return r, stop
}

// add records keys in a transaction of their own.
func add(t testing.TB, db *sql.DB, keys ...string) {
	t.Helper()
	tx, err := db.BeginTx(context.Background(), nil)
	require.NoError(t, err)
	require.NoError(t, outbox.Add(context.Background(), tx, keys...))
	require.NoError(t, tx.Commit())
}

// eventually requires that holds does within a while.
func eventually(t testing.TB, holds func() bool, what ...any) {
	t.Helper()
	require.Eventually(t, holds, soon, tick, what...)
}

// cacheFunc is a cache that does what a test wants.
type cacheFunc func(ctx context.Context, keys ...string) error

func (f cacheFunc) Delete(ctx context.Context, keys ...string) error { return f(ctx, keys...) }
