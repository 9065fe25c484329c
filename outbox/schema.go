package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Dialect is the SQL of a database.
type Dialect uint8

// The dialects.
const (
	_          Dialect = iota
	SQLite             // SQLite 3.35 or later
	MySQL              // MySQL 8.0.13, MariaDB 10.6, or later
	PostgreSQL         // PostgreSQL 14 or later
	dialects
)

// String returns the name of the database.
func (d Dialect) String() string {
	if d == 0 || d >= dialects {
		return "unknown"
	}
	return [dialects]string{SQLite: "SQLite", MySQL: "MySQL", PostgreSQL: "PostgreSQL"}[d]
}

// now is the database's clock in milliseconds since 1970. Only that clock is used for what is
// compared across processes.
func (d Dialect) now() string {
	switch d {
	case SQLite:
		return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
	case MySQL: // in UTC, so that no summer time can repeat an hour
		return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)"
	default: // now() would be the time at which the transaction began, and clock_timestamp() keep indexes from being used
		return "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
	}
}

// Schema returns the SQL that creates DefaultTable, and its index, if there are none. For another table
// use the method. It panics for an unknown dialect.
func Schema(d Dialect) string { return DefaultTable.Schema(d) }

// Schema returns the SQL that creates the table, and its index, if there are none: one statement for
// MySQL, two for the others. It panics for an unknown
// dialect, and for a name that is none.
//
// The columns kind and name say what is to be invalidated, kind 0 the entry at a Redis key, which is
// percent-encoded; attempts is how often that has failed, due_at when it is tried next, or 0, and
// created_at when it was recorded, in milliseconds since 1970. An id is never used twice.
func (t Table) Schema(d Dialect) string {
	if err := t.check(); err != nil {
		panic("outbox: schema: " + err.Error())
	}
	name := string(t[strings.IndexByte(string(t), '.')+1:]) // without its schema
	switch d {
	case SQLite:
		return fmt.Sprintf(schemaSQLite, t, d.now(), t, name)
	case MySQL:
		return fmt.Sprintf(schemaMySQL, t, d.now())
	case PostgreSQL:
		return fmt.Sprintf(schemaPostgreSQL, t, d.now(), name, t)
	}
	panic(fmt.Sprintf("outbox: schema: there is no dialect %d", d))
}

const (
	schemaSQLite = `CREATE TABLE IF NOT EXISTS %s (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	kind       INTEGER NOT NULL DEFAULT 0,
	name       TEXT    NOT NULL,
	attempts   INTEGER NOT NULL DEFAULT 0,
	due_at     INTEGER NOT NULL DEFAULT 0,
	created_at INTEGER NOT NULL DEFAULT (%s)
);
CREATE INDEX IF NOT EXISTS %s_due ON %s (kind, due_at, id);`

	schemaMySQL = `CREATE TABLE IF NOT EXISTS %s (
	id         BIGINT   NOT NULL AUTO_INCREMENT PRIMARY KEY,
	kind       SMALLINT NOT NULL DEFAULT 0,
	name       TEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	attempts   INT      NOT NULL DEFAULT 0,
	due_at     BIGINT   NOT NULL DEFAULT 0,
	created_at BIGINT   NOT NULL DEFAULT (%s),
	KEY due (kind, due_at, id)
) ENGINE = InnoDB;`

	schemaPostgreSQL = `CREATE TABLE IF NOT EXISTS %s (
	id         bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	kind       smallint NOT NULL DEFAULT 0,
	name       text     NOT NULL,
	attempts   integer  NOT NULL DEFAULT 0,
	due_at     bigint   NOT NULL DEFAULT 0,
	created_at bigint   NOT NULL DEFAULT (%s)
);
CREATE INDEX IF NOT EXISTS %s_due ON %s (kind, due_at, id);`
)

// detect asks a database for its dialect. It does not go by the driver's name, which wrappers
// change. SQLite has no version(), and is asked last because the others log what they do not know.
func detect(ctx context.Context, db *sql.DB) (Dialect, error) {
	var version string
	err := db.QueryRowContext(ctx, "SELECT version()").Scan(&version)
	switch {
	case err == nil && strings.HasPrefix(version, "PostgreSQL"):
		return PostgreSQL, nil
	case err == nil && version != "" && '0' <= version[0] && version[0] <= '9':
		return MySQL, nil
	case err == nil:
		return 0, fmt.Errorf("the database %q is unknown: use WithDialect", version)
	}
	if errSQLite := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); errSQLite != nil {
		return 0, errors.Join(err, errSQLite)
	}
	return SQLite, nil
}
