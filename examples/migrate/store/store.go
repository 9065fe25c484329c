// Package store is the database of the service that is moved: users in memory.
package store

import (
	"context"
	"database/sql"
	"sync"
)

// User is a row.
type User struct {
	ID   int64
	Name string
}

// Repo reads and writes users. It is safe for concurrent use.
type Repo struct {
	mu    sync.Mutex
	users map[int64]User
	finds int
}

// FindUser returns a user, or sql.ErrNoRows.
func (r *Repo) FindUser(_ context.Context, id int64) (User, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finds++
	user, ok := r.users[id]
	if !ok {
		return User{}, sql.ErrNoRows
	}
	return user, nil
}

// SaveUser writes a user.
func (r *Repo) SaveUser(_ context.Context, user User) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == nil {
		r.users = make(map[int64]User)
	}
	r.users[user.ID] = user
	return nil
}

// Finds returns how often FindUser was called.
func (r *Repo) Finds() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.finds
}
