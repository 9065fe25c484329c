package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// claimLease is how long a batch of a relay on SQLite is kept from other relays. It is longer than a
// batch takes, so that only a relay that died holds rows up, and for no longer.
const claimLease = 15 * time.Second

// never is longer than any wait.
const never = time.Duration(math.MaxInt64)

// row is one recorded invalidation.
type row struct {
	id       int64
	key      string // as it is stored, if bad
	bad      error  // why it is no key
	attempts int    // that failed
	age      time.Duration
}

// verdict says what becomes of the rows of a batch.
type verdict struct {
	done   []int64       // these are removed
	failed []int64       // these are due again after wait
	wait   time.Duration // at least 0
}

// judge says what becomes of the rows of a batch, after the cache was told of them.
type judge func(ctx context.Context, rows []row) verdict

// store is the table of a relay.
type store interface {
	// next returns how long it is until a row is due: 0 if one is, or never. It locks nothing.
	next(ctx context.Context) (time.Duration, error)
	// batch claims up to limit rows that are due, has decide judge them, and does
	// what it says. No other relay has the rows meanwhile. It returns how many rows there were.
	batch(ctx context.Context, limit int, decide judge) (int, error)
	// pending counts the rows and returns the age of the oldest.
	pending(ctx context.Context) (int64, time.Duration, error)
}

// sqlStore is a table of a database.
type sqlStore struct {
	db    *sql.DB
	table Table

	mu    sync.Mutex
	known Dialect // zero until the database has been asked
}

// dialect returns the database's dialect. It asks until it has learned it once.
func (s *sqlStore) dialect(ctx context.Context) (Dialect, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.known == 0 {
		s.known, err = detect(ctx, s.db)
	}
	return s.known, err
}

func (s *sqlStore) next(ctx context.Context) (time.Duration, error) {
	d, err := s.dialect(ctx)
	if err != nil {
		return 0, err
	}
	var ms sql.NullInt64
	if err := s.db.QueryRowContext(ctx, s.nextQuery(d)).Scan(&ms); err != nil || !ms.Valid {
		return never, err
	}
	return milliseconds(ms.Int64), nil
}

func (s *sqlStore) pending(ctx context.Context) (n int64, oldest time.Duration, err error) {
	d, err := s.dialect(ctx)
	if err != nil {
		return 0, 0, err
	}
	var ms int64
	err = s.db.QueryRowContext(ctx, s.pendingQuery(d)).Scan(&n, &ms)
	return n, milliseconds(ms), err
}

func (s *sqlStore) nextQuery(d Dialect) string {
	return fmt.Sprintf("SELECT min(due_at) - %s FROM %s WHERE kind = %d", d.now(), s.table, kindKey)
}

func (s *sqlStore) pendingQuery(d Dialect) string {
	return fmt.Sprintf("SELECT count(*), COALESCE(%s - min(created_at), 0) FROM %s WHERE kind = %d",
		d.now(), s.table, kindKey)
}

func (s *sqlStore) batch(ctx context.Context, limit int, decide judge) (int, error) {
	d, err := s.dialect(ctx)
	if err != nil {
		return 0, err
	}
	if d == SQLite {
		return s.batchByClaim(ctx, limit, decide)
	}
	return s.batchByLock(ctx, d, limit, decide)
}

// batchByLock has the rows locked while they are judged. The lock of a relay that dies ends with its
// connection.
func (s *sqlStore) batchByLock(ctx context.Context, d Dialect, limit int, decide judge) (int, error) {
	// READ COMMITTED, or InnoDB would lock the gap behind the last row too, and with it every Add.
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	rows, err := readRows(tx.QueryContext(ctx, s.lockQuery(d, limit)))
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	if err := s.settle(ctx, tx, d, decide(ctx, rows)); err != nil {
		return 0, err
	}
	return len(rows), tx.Commit()
}

// whereDue selects up to limit rows that a relay of this version takes. New ones come first, by id.
// Those that failed come by the time they are due, or many of them would be in the way of all others.
func whereDue(d Dialect, limit int) string {
	return fmt.Sprintf("kind = %d AND due_at <= %s ORDER BY due_at, id LIMIT %d", kindKey, d.now(), limit)
}

func (s *sqlStore) lockQuery(d Dialect, limit int) string {
	return fmt.Sprintf("SELECT id, name, attempts, %s - created_at FROM %s WHERE %s FOR UPDATE SKIP LOCKED",
		d.now(), s.table, whereDue(d, limit))
}

// batchByClaim has the rows not due while they are judged: SQLite locks no rows, and a
// transaction that waited for the cache would keep out every writer.
func (s *sqlStore) batchByClaim(ctx context.Context, limit int, decide judge) (int, error) {
	rows, err := readRows(s.db.QueryContext(ctx, s.claimQuery(limit)))
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.id, b.id) }) // RETURNING has no order
	v := decide(ctx, rows)
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	if err := s.settle(ctx, tx, SQLite, v); err != nil {
		return 0, err
	}
	return len(rows), tx.Commit()
}

func (s *sqlStore) claimQuery(limit int) string {
	now := SQLite.now()
	return fmt.Sprintf("UPDATE %s SET due_at = %s + %d WHERE id IN (SELECT id FROM %s WHERE %s)"+
		" RETURNING id, name, attempts, %s - created_at",
		s.table, now, claimLease.Milliseconds(), s.table, whereDue(SQLite, limit), now)
}

// settle removes and postpones rows. It names their ids one by one: a transaction that began earlier
// may commit a lower id later, so that "all up to the last one" would be rows that nobody has read.
func (s *sqlStore) settle(ctx context.Context, tx Execer, d Dialect, v verdict) error {
	if len(v.done) > 0 {
		if _, err := tx.ExecContext(ctx, s.removal(d, v.done)); err != nil {
			return err
		}
	}
	if len(v.failed) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, s.postponement(d, v.failed, v.wait))
	return err
}

func (s *sqlStore) removal(d Dialect, ids []int64) string {
	if d == MySQL {
		return fmt.Sprintf("DELETE o FROM %s", s.joined(ids))
	}
	return fmt.Sprintf("DELETE FROM %s WHERE id IN (%s)", s.table, list(ids, ", "))
}

func (s *sqlStore) postponement(d Dialect, ids []int64, wait time.Duration) string {
	set := fmt.Sprintf("SET attempts = attempts + 1, due_at = %s + %d", d.now(), wait.Milliseconds())
	if d == MySQL {
		return fmt.Sprintf("UPDATE %s %s", s.joined(ids), set)
	}
	return fmt.Sprintf("UPDATE %s %s WHERE id IN (%s)", s.table, set, list(ids, ", "))
}

// joined has MySQL look the rows o up one by one. With IN it may read a small table as a whole, and
// lock what other relays wait for.
func (s *sqlStore) joined(ids []int64) string {
	return fmt.Sprintf("(SELECT %s AS id) i STRAIGHT_JOIN %s o FORCE INDEX (PRIMARY) ON o.id = i.id",
		list(ids, " AS id UNION ALL SELECT "), s.table)
}

// list returns ids with separator between them.
func list(ids []int64, separator string) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.FormatInt(id, 10)
	}
	return strings.Join(texts, separator)
}

// readRows reads what a query returned.
func readRows(result *sql.Rows, err error) ([]row, error) {
	if err != nil {
		return nil, err
	}
	defer result.Close()
	var rows []row
	for result.Next() {
		var r row
		var ms int64
		var name string
		if err := result.Scan(&r.id, &name, &r.attempts, &ms); err != nil {
			return nil, err
		}
		r.age = milliseconds(ms)
		if r.key, r.bad = unescape(name); r.bad != nil {
			r.key = name
		}
		rows = append(rows, r)
	}
	return rows, result.Err()
}

// milliseconds is ms as a Duration, and 0 for what is past, or an age by a clock that was set back.
func milliseconds(ms int64) time.Duration { return time.Duration(max(ms, 0)) * time.Millisecond }
