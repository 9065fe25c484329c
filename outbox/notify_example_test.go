package outbox_test

import (
	"context"
	"log"

	"github.com/readthrough-go/readthrough/outbox"
)

// A writer that need not see its own write at once leaves the invalidation to the relay of its process.
func ExampleRelay_Notify() {
	relay, err := outbox.NewRelay(db, cache)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	go func() { log.Print(relay.Run(ctx)) }()

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	// ... write with tx, and:
	if err := outbox.Add(ctx, tx, "user:42"); err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		log.Fatal(err)
	}
	relay.Notify()
}
