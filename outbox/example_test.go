package outbox_test

import (
	"context"
	"database/sql"
	"log"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/outbox"
)

type User struct {
	ID   int64
	Name string
}

var (
	db    *sql.DB
	cache *readthrough.Cache
	users *readthrough.ReadThrough[int64, User]
)

func renameUser(ctx context.Context, id int64, name string) error {
	key, err := users.RedisKey(id)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "UPDATE users SET name = ? WHERE id = ?", name, id); err != nil {
		return err
	}
	if err := outbox.Add(ctx, tx, key); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err // whether or not it took effect, the same is true of the record
	}
	// No Get returns the old name from here on. If this fails, the relay does it.
	return users.Invalidate(context.WithoutCancel(ctx), id)
}

func relayInvalidations(ctx context.Context) {
	err := outbox.Run(ctx, db, cache, outbox.WithOnEvent(func(e outbox.Event) {
		if e.Err != nil {
			log.Printf("outbox: %s: %d rows, again in %s: %v", e.Kind, e.Rows, e.Wait, e.Err)
		}
	}))
	log.Print(err) // that of ctx
}

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	// Once, or in a migration:
	if _, err := db.ExecContext(ctx, outbox.Schema(outbox.MySQL)); err != nil {
		log.Fatal(err)
	}
	go relayInvalidations(ctx)
	if err := renameUser(ctx, 42, "Ada"); err != nil {
		log.Fatal(err)
	}
}
