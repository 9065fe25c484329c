// Package pgxoutbox is the outbox for pgx: Add takes a pgx transaction, and the relay learns of
// commits by LISTEN and NOTIFY of PostgreSQL, so that it need not poll for them.
//
// A trigger of the table sends the notification, which PostgreSQL delivers when the transaction
// commits, and once for all of its rows. So whoever inserts wakes the relays: a pgx transaction, one
// of database/sql, or a migration by hand.
package pgxoutbox

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/readthrough-go/readthrough/outbox"
)

const (
	// channel is where the triggers of all tables notify: a wake-up for another table costs one query.
	channel = "readthrough_outbox"
	// pollInterval is the default of this package. What it finds is what a notification did not tell:
	// rows of a relay that died, or a connection that broke without a sign.
	pollInterval = 30 * time.Second
)

// Schema returns the SQL that creates table, its index and its trigger, if there are none. For
// most, table is outbox.DefaultTable. It panics for a name that is none. A role that inserts
// needs no rights beyond those on the table.
//
// PostgreSQL makes transactions that notify wait for each other at their commit. Where that is too
// slow, at many thousands of writes a second, use outbox.Schema instead, which has no trigger,
// with a short outbox.WithPollInterval.
func Schema(table outbox.Table) string {
	const trigger = `
CREATE OR REPLACE FUNCTION %[1]s_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('%[2]s', '');
	RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER readthrough_notify AFTER INSERT ON %[1]s
	FOR EACH STATEMENT EXECUTE FUNCTION %[1]s_notify();`
	return table.Schema(outbox.PostgreSQL) + fmt.Sprintf(trigger, table, channel)
}

// Tx is what Add needs of a transaction: a pgx.Tx is one.
type Tx interface {
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
}

// Add is outbox.Add in a transaction of pgx.
func Add(ctx context.Context, tx Tx, keys ...string) error {
	return outbox.Add(ctx, Execer(tx), keys...)
}

// Execer returns tx as outbox.Table takes it: outbox.Table("t").Add(ctx, pgxoutbox.Execer(tx), key).
func Execer(tx Tx) outbox.Execer { return execer{tx} }

type execer struct{ tx Tx }

func (e execer) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	tag, err := e.tx.Exec(ctx, query, args...)
	return driver.RowsAffected(tag.RowsAffected()), err
}

// Relay is an outbox.Relay on a pool. Its Run is called once.
type Relay struct {
	*outbox.Relay
	db *sql.DB
}

// NewRelay returns a relay like outbox.NewRelay on the connections of pool, which stays the
// caller's to close, after Run has returned. It is woken by notifications, and polls each 30 s
// unless outbox.WithPollInterval is given. Run takes up to one connection of the pool at a time, and
// has one besides the pool for LISTEN, which must reach PostgreSQL itself or a proxy that pools
// sessions, not transactions.
func NewRelay(pool *pgxpool.Pool, cache outbox.Cache, opts ...outbox.Option) (*Relay, error) {
	if pool == nil {
		return nil, errors.New("pgxoutbox: NewRelay: the pool is nil")
	}
	all := append([]outbox.Option{
		outbox.WithDialect(outbox.PostgreSQL),
		outbox.WithPollInterval(pollInterval),
		outbox.WithWakeUps(func(ctx context.Context, wake func()) error { return listen(ctx, pool, wake) }),
	}, opts...)
	db := stdlib.OpenDBFromPool(pool)
	r, err := outbox.NewRelay(db, cache, all...)
	if err != nil {
		_ = db.Close() // it has opened nothing
		return nil, err
	}
	return &Relay{r, db}, nil
}

// Run relays until ctx ends, as that of outbox.Relay does. After it Pending fails.
func (r *Relay) Run(ctx context.Context) error {
	defer r.db.Close() //nolint:errcheck // its connections are the pool's
	return r.Relay.Run(ctx)
}

// Run is NewRelay and its Run in one.
func Run(ctx context.Context, pool *pgxpool.Pool, cache outbox.Cache, opts ...outbox.Option) error {
	r, err := NewRelay(pool, cache, opts...)
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// listen calls wake for each notification until ctx ends or the connection fails.
func listen(ctx context.Context, pool *pgxpool.Pool, wake func()) error {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack() // it has the pool's settings, and is no longer one of those the pool may have
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(bounded) // nothing is left to be done with it
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	for {
		wake() // at first for what was committed before
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}
