package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/redis/go-redis/v9"
)

// shop is everything that the tour and the server need, opened, and what it
// takes to close it again.
type shop struct {
	store  *BookStore
	client redis.UniversalClient
	closes []func() error // in the order of opening
}

// openShop opens the SQLite file at dbPath (empty: a new one in a temporary
// folder, removed at the end), and the Redis at redisURL (empty: embedded).
func openShop(ctx context.Context, dbPath, redisURL string) (_ *shop, err error) {
	s := &shop{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if dbPath == "" {
		dir, err := os.MkdirTemp("", "bookstore-")
		if err != nil {
			return nil, fmt.Errorf("temporary folder: %w", err)
		}
		s.onClose(func() error { return os.RemoveAll(dir) })
		dbPath = filepath.Join(dir, "books.sqlite")
	}
	repo, err := OpenBookRepo(ctx, dbPath)
	if err != nil {
		return nil, err
	}
	s.onClose(repo.Close)
	client, closeRedis, err := openRedis(ctx, redisURL)
	if err != nil {
		return nil, err
	}
	s.onClose(closeRedis)
	s.client = client
	store, err := NewBookStore(repo, client)
	if err != nil {
		return nil, err
	}
	s.onClose(store.Close)
	s.store = store
	return s, nil
}

func (s *shop) onClose(f func() error) { s.closes = append(s.closes, f) }

// Close closes what was opened, the last thing first.
func (s *shop) Close() error {
	var errs []error
	for i := len(s.closes) - 1; i >= 0; i-- {
		errs = append(errs, s.closes[i]())
	}
	s.closes = nil
	return errors.Join(errs...)
}
