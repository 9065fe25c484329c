package readthrough_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/readthrough-go/readthrough"
)

// account is a row of the repository.
type account struct {
	ID   int64
	Name string
}

// accountRepo stands for a database. It knows nothing of the cache.
type accountRepo struct{ rows map[int64]account }

func (r *accountRepo) FindAccount(_ context.Context, id int64) (account, error) {
	fmt.Println("the database is asked for account", id)
	if a, ok := r.rows[id]; ok {
		return a, nil
	}
	return account{}, sql.ErrNoRows
}

func (r *accountRepo) SaveAccount(_ context.Context, a account) error {
	r.rows[a.ID] = a
	return nil
}

// A repository function is wrapped once, and called through the wrapper from then on.
func Example() {
	server, err := miniredis.Run() // in place of a Redis
	if err != nil {
		panic(err)
	}
	defer server.Close()

	// The limits of the client and of the Cache are lax here, for busy test machines.
	client, err := readthrough.Open("redis://" + server.Addr() + "?read_timeout=5s")
	if err != nil {
		panic(err)
	}
	defer client.Close()
	cache, err := readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second))
	if err != nil {
		panic(err)
	}
	defer cache.Close()

	repo := &accountRepo{rows: map[int64]account{42: {ID: 42, Name: "Ada"}}}
	accounts, err := readthrough.New(cache, "account", repo.FindAccount, readthrough.Int,
		readthrough.WithTTL(time.Minute),
		readthrough.WithNotFound(time.Minute, sql.ErrNoRows))
	if err != nil {
		panic(err)
	}

	ctx := context.Background()
	a, err := accounts.Get(ctx, 42) // a miss: loaded, and stored in Redis
	fmt.Println(a.Name, err)
	a, err = accounts.Get(ctx, 42) // a hit
	fmt.Println(a.Name, err)

	// A write goes to the database first, and then the cache is told.
	err = repo.SaveAccount(ctx, account{ID: 42, Name: "Ada Lovelace"})
	fmt.Println(errors.Join(err, accounts.Invalidate(context.WithoutCancel(ctx), 42)))
	a, err = accounts.Get(ctx, 42)
	fmt.Println(a.Name, err)

	// Output:
	// the database is asked for account 42
	// Ada <nil>
	// Ada <nil>
	// <nil>
	// the database is asked for account 42
	// Ada Lovelace <nil>
}
