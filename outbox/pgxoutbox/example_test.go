package pgxoutbox_test

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/outbox"
	"github.com/readthrough-go/readthrough/outbox/pgxoutbox"
)

var (
	pool  *pgxpool.Pool
	cache *readthrough.Cache
)

func renameUser(ctx context.Context, id int64, name, key string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE users SET name = $1 WHERE id = $2", name, id); err != nil {
			return err
		}
		return pgxoutbox.Add(ctx, tx, key)
	})
}

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	// Once, or in a migration:
	if _, err := pool.Exec(ctx, pgxoutbox.Schema(outbox.DefaultTable)); err != nil {
		log.Fatal(err)
	}
	go func() { log.Print(pgxoutbox.Run(ctx, pool, cache)) }()
	if err := renameUser(ctx, 42, "Ada", "user:42"); err != nil { // the key is what RedisKey returned
		log.Fatal(err)
	}
}
