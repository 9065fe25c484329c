package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/readthrough-go/readthrough"
	"github.com/redis/go-redis/v9"
)

const (
	bookTTL   = 5 * time.Minute
	noBookTTL = time.Minute

	// redisTimeout is more than the library's default: the embedded Redis
	// shares two CPUs, perhaps, with a thousand readers, and that it is slow
	// then does not mean that it is down.
	redisTimeout = time.Second

	// invalidateTimeout bounds what a writer waits for a Redis that is down.
	invalidateTimeout = 3 * time.Second
)

// ErrNotInvalidated is returned, wrapped, by a write after which the cache
// could not be told at once. The library goes on trying, but until it succeeds
// (or the write is done again, or bookTTL is over) readers may see the old book.
var ErrNotInvalidated = errors.New("the cache could not be told of the write")

// BookStore is a BookRepo whose reads go through the cache.
type BookStore struct {
	repo  *BookRepo
	cache *readthrough.Cache
	books *readthrough.ReadThrough[int64, Book]
	lists *readthrough.ReadThrough[int, []int64] // the ids of the first so many books
}

// listLength is how many books a list has.
const listLength = 100

// NewBookStore wraps repo. It owns neither repo nor client: the caller closes
// both, after the store.
func NewBookStore(repo *BookRepo, client redis.UniversalClient) (*BookStore, error) {
	cache, err := readthrough.NewCache(client,
		// The store's id is part of every key: processes that serve the same
		// SQLite file share entries, those that serve another one never do,
		// whatever else is in this Redis.
		readthrough.WithPrefix("bookstore-"+repo.ID()),
		readthrough.WithRedisTimeout(redisTimeout),
	)
	if err != nil {
		return nil, err
	}
	books, err := readthrough.New(cache, "book", repo.FindBook, readthrough.Int,
		readthrough.WithTTL(bookTTL),
		readthrough.WithNotFound(noBookTTL, ErrNoBook),
		readthrough.WithBatchLoader(repo.FindBooks),
	)
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	lists, err := readthrough.New(cache, "list", repo.ListIDs, readthrough.Int, readthrough.WithTTL(bookTTL))
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	return &BookStore{repo: repo, cache: cache, books: books, lists: lists}, nil
}

// Find returns the book with this id, or an error that is ErrNoBook.
func (s *BookStore) Find(ctx context.Context, id int64) (Book, error) {
	return s.books.Get(ctx, id)
}

// FindInfo is Find that also tells where the book came from.
func (s *BookStore) FindInfo(ctx context.Context, id int64) (Book, readthrough.Info, error) {
	return s.books.GetInfo(ctx, id)
}

// List returns the first 100 books in the order of their titles: one query for
// their ids and one for all the books that are not cached.
func (s *BookStore) List(ctx context.Context) ([]Book, error) {
	ids, err := s.lists.Get(ctx, listLength)
	if err != nil {
		return nil, err
	}
	results, err := s.books.GetMany(ctx, ids)
	if err != nil {
		return nil, err
	}
	books := make([]Book, 0, len(results))
	for _, r := range results {
		switch {
		case errors.Is(r.Err, ErrNoBook): // deleted since the ids were read
		case r.Err != nil:
			return nil, r.Err
		default:
			books = append(books, r.Value)
		}
	}
	return books, nil
}

// Save writes b and reports whether it is new. Every Find that starts after
// Save has returned sees it.
func (s *BookStore) Save(ctx context.Context, b Book) (created bool, err error) {
	created, err = s.repo.SaveBook(ctx, b)
	return created, s.written(ctx, b.ID, err)
}

// Delete removes the book with this id, or returns an error that is ErrNoBook.
func (s *BookStore) Delete(ctx context.Context, id int64) error {
	err := s.repo.DeleteBook(ctx, id)
	return s.written(ctx, id, err)
}

// written invalidates the entry of a book after a write that ended with
// writeErr. It does so after a failed write too: a commit whose answer was
// lost, say to a deadline, may have happened.
func (s *BookStore) written(ctx context.Context, id int64, writeErr error) error {
	if err := s.Invalidate(ctx, id); err != nil {
		return errors.Join(writeErr, fmt.Errorf("%w: %w", ErrNotInvalidated, err))
	}
	return writeErr
}

// Invalidate makes the next Find of these ids, and the next List, ask the database.
func (s *BookStore) Invalidate(ctx context.Context, ids ...int64) error {
	// A writer that hangs up between the write and this line must not leave
	// the old book in the cache, so its context does not cancel the command.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), invalidateTimeout)
	defer cancel()
	return errors.Join(s.books.Invalidate(ctx, ids...), s.lists.Invalidate(ctx, listLength))
}

// RedisKey is where the cache keeps the book with this id.
func (s *BookStore) RedisKey(id int64) (string, error) { return s.books.RedisKey(id) }

// Stats counts what the cache did since the process began: that of the Cache, as
// it also tells of invalidations that are still to reach Redis.
func (s *BookStore) Stats() readthrough.Stats { return s.cache.Stats() }

// Queries is how many times a read has asked the database.
func (s *BookStore) Queries() int64 { return s.repo.Queries() }

// Close waits for the background work of the cache. Its error names the keys of
// books that were written, but that Redis could not be told of.
func (s *BookStore) Close() error {
	if err := s.cache.Close(); err != nil {
		return fmt.Errorf("close the cache: %w", err)
	}
	return nil
}
