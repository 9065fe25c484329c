// Package outbox records invalidations in the same SQL transaction as the write that makes them
// necessary, so that a process that dies between its commit and its Invalidate leaves nothing
// stale. A relay hands what is recorded to the cache, at least once, and removes it.
//
// It is the pattern Transactional Outbox with a Polling Publisher (Chris Richardson, Microservices
// Patterns, Manning 2018, section 3.3.7; https://microservices.io/patterns/data/transactional-outbox.html).
//
// The writer:
//
//	tx, err := db.BeginTx(ctx, nil)
//	// ... write with tx ...
//	err = outbox.Add(ctx, tx, key) // key is what RedisKey of the wrapper returned
//	err = tx.Commit()
//	err = users.Invalidate(ctx, id) // from here on no Get returns the old value
//
// And once in each process, or in some:
//
//	go outbox.Run(ctx, db, cache)
//
// Between the commit and the relay's next look, a second at most with a healthy database and Redis,
// a read may still return the old value, unless the writer calls Invalidate itself. Then the record
// is its safety net, and costs one more miss of the key at most.
//
// The package needs database/sql and one of SQLite 3.35, MySQL 8.0.13, MariaDB 10.6 and PostgreSQL 14,
// or later versions of them, with any driver. For pgx without database/sql, and for a relay that
// PostgreSQL wakes, see the module outbox/pgxoutbox.
package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Table is the name of a table of recorded invalidations, with or without its schema. It is made of
// ASCII letters, digits and underscores, and needs no quotes in SQL.
type Table string

// DefaultTable is the table of the functions Add, Schema and Run.
const DefaultTable Table = "readthrough_outbox"

// Execer is what Add needs of a transaction. A *sql.Tx is one; so is a *sql.Conn, for those who
// begin their transactions by hand. A *sql.DB is one by its type, but is no transaction.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

const (
	// kindKey is the kind of a row whose name is a Redis key. A relay leaves rows of other kinds to
	// relays that know them.
	kindKey = 0
	// maxKey is the length in bytes of the longest key. Escaped it fits into a TEXT of MySQL, which
	// would cut it without strict mode.
	maxKey = 16 << 10
	// maxInsert is the length in bytes at which a statement of many rows ends. Servers limit
	// it (max_allowed_packet of MySQL: 4 MiB and more; SQLITE_MAX_SQL_LENGTH: 1 MB).
	maxInsert = 256 << 10
)

var errEmptyKey = errors.New("the key is empty")

// Add records in tx that the entries at keys are to be deleted from the cache. The keys are Redis
// keys as RedisKey returns them, of 1 byte to 16 KiB. If tx commits, a relay deletes the
// entries; if not, nothing has happened. After an error tx must be rolled back.
func Add(ctx context.Context, tx Execer, keys ...string) error {
	return DefaultTable.Add(ctx, tx, keys...)
}

// Add is the function Add for another table.
func (t Table) Add(ctx context.Context, tx Execer, keys ...string) error {
	if err := t.check(); err != nil {
		return fmt.Errorf("outbox: add: %w", err)
	}
	for _, key := range keys {
		switch {
		case key == "":
			return fmt.Errorf("outbox: add: %w", errEmptyKey)
		case len(key) > maxKey:
			return fmt.Errorf("outbox: add: a key has %d bytes, more than %d", len(key), maxKey)
		}
	}
	for len(keys) > 0 {
		var statement string
		statement, keys = t.insert(keys)
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("outbox: add: %w", err)
		}
	}
	return nil
}

// insert returns a statement that inserts as many of keys as it may, and the others. It has no
// parameters, so that it is the same for every database and driver, and one round trip with each.
func (t Table) insert(keys []string) (statement string, rest []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s (kind, name) VALUES ", t)
	for i, key := range keys {
		if b.Len() > maxInsert {
			return b.String(), keys[i:]
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "(%d, '%s')", kindKey, escape(key))
	}
	return b.String(), nil
}

// escape returns key as it is stored. Letters, digits and -_.~$&+=:@ stay, every other byte is
// percent-encoded: so nothing in it can end a literal of any SQL, whatever the server's modes, and
// keys need be neither UTF-8 nor free of NUL.
func escape(key string) string { return url.PathEscape(key) }

// unescape is the reverse of escape.
func unescape(name string) (string, error) {
	key, err := url.PathUnescape(name)
	if err == nil && key == "" {
		err = errEmptyKey
	}
	return key, err
}

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$`)

func (t Table) check() error {
	if !tableName.MatchString(string(t)) {
		return fmt.Errorf("the table name %q is not made of letters, digits and underscores", string(t))
	}
	return nil
}
