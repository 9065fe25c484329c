// Package users is a service on readthrough, which begins with what go-redis/cache has stored.
package users

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/examples/migrate/store"
	"github.com/readthrough-go/readthrough/migrate/goredis"
)

// Users reads users through the cache.
type Users struct {
	repo  *store.Repo
	old   *cache.Cache
	users *readthrough.ReadThrough[int64, store.User]
}

// New returns the users of repo, cached in the Redis of client.
func New(repo *store.Repo, client redis.UniversalClient, c *readthrough.Cache) (*Users, error) {
	find := goredis.Warm(client, goredis.Codec, oldKey, repo.FindUser)
	users, err := readthrough.New(c, "user.v2", find, readthrough.Int, readthrough.WithTTL(time.Hour))
	return &Users{repo: repo, old: cache.New(&cache.Options{Redis: client}), users: users}, err
}

func oldKey(id int64) string { return fmt.Sprintf("user:%d", id) }

// Find returns a user.
func (u *Users) Find(ctx context.Context, id int64) (store.User, error) {
	return u.users.Get(ctx, id)
}

// Save writes a user.
func (u *Users) Save(ctx context.Context, user store.User) error {
	err := u.repo.SaveUser(ctx, user)
	ctx = context.WithoutCancel(ctx) // the row may have changed, even if the caller has gone
	return errors.Join(err, u.old.Delete(ctx, oldKey(user.ID)), u.users.Invalidate(ctx, user.ID))
}
