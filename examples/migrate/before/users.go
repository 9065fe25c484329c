// Package users is a service on go-redis/cache, before the move.
package users

import (
	"context"
	"fmt"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/examples/migrate/store"
)

// Users reads users through the cache.
type Users struct {
	repo *store.Repo
	old  *cache.Cache
}

// New returns the users of repo, cached in the Redis of client.
func New(repo *store.Repo, client redis.UniversalClient) (*Users, error) {
	return &Users{repo: repo, old: cache.New(&cache.Options{Redis: client})}, nil
}

func oldKey(id int64) string { return fmt.Sprintf("user:%d", id) }

// Find returns a user.
func (u *Users) Find(ctx context.Context, id int64) (store.User, error) {
	var user store.User
	err := u.old.Once(&cache.Item{
		Ctx: ctx, Key: oldKey(id), Value: &user, TTL: time.Hour,
		Do: func(*cache.Item) (any, error) { return u.repo.FindUser(ctx, id) },
	})
	return user, err
}

// Save writes a user.
func (u *Users) Save(ctx context.Context, user store.User) error {
	if err := u.repo.SaveUser(ctx, user); err != nil {
		return err
	}
	return u.old.Delete(ctx, oldKey(user.ID))
}
