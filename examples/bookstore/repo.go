package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync/atomic"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// ErrNoBook is returned, wrapped, for an id that no book has.
var ErrNoBook = errors.New("no such book")

// BookRepo keeps books in a SQLite file. It knows nothing of any cache.
type BookRepo struct {
	db      *sql.DB
	id      string
	queries atomic.Int64
}

// OpenBookRepo opens the SQLite file at path. A file that is not there yet, or
// is empty, is first filled with the Catalogue.
func OpenBookRepo(ctx context.Context, path string) (*BookRepo, error) {
	dsn, err := sqliteDSN(path)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	r := &BookRepo{db: db}
	if err := r.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return r, nil
}

// sqliteDSN is a URI, so that no character of path is taken for an option.
func sqliteDSN(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("database path: %w", err)
	}
	abs = filepath.ToSlash(abs)
	if abs[0] != '/' {
		abs = "/" + abs // a Windows drive: file:///C:/...
	}
	options := url.Values{
		// In milliseconds: wait for another writer, do not fail at once. That holds for all that is done here;
		// a change to the journal mode WAL is the one thing for which SQLite does not wait.
		"_busy_timeout": {"5000"},
		"_txlock":       {"immediate"},
	}
	uri := url.URL{Scheme: "file", Path: abs, RawQuery: options.Encode()}
	return uri.String(), nil
}

// prepare creates and fills the tables of a new file, and reads the file's id.
// It is one transaction that holds the write lock from its beginning, so of
// two processes that open a new file at once, one fills it and the other finds
// it filled.
func (r *BookRepo) prepare(ctx context.Context) error {
	return r.inTx(ctx, func(tx *sql.Tx) error {
		const tables = `
			CREATE TABLE IF NOT EXISTS books (
				id     INTEGER PRIMARY KEY,
				title  TEXT    NOT NULL,
				author TEXT    NOT NULL,
				year   INTEGER NOT NULL
			);
			CREATE TABLE IF NOT EXISTS store (id TEXT NOT NULL);`
		if _, err := tx.ExecContext(ctx, tables); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
		err := tx.QueryRowContext(ctx, `SELECT id FROM store`).Scan(&r.id)
		if errors.Is(err, sql.ErrNoRows) {
			return r.fill(ctx, tx)
		}
		return err
	})
}

func (r *BookRepo) fill(ctx context.Context, tx *sql.Tx) error {
	books, err := Catalogue()
	if err != nil {
		return err
	}
	for _, b := range books {
		const insert = `INSERT INTO books (id, title, author, year) VALUES (?, ?, ?, ?)`
		if _, err := tx.ExecContext(ctx, insert, b.ID, b.Title, b.Author, b.Year); err != nil {
			return fmt.Errorf("insert book %d: %w", b.ID, err)
		}
	}
	r.id = rand.Text()[:10] // 50 random bits: enough to tell stores apart, short enough to print
	_, err = tx.ExecContext(ctx, `INSERT INTO store (id) VALUES (?)`, r.id)
	return err
}

// ID is random, made with the SQLite file and kept in it: every process that
// opens this file sees the same one, and no other file has it.
func (r *BookRepo) ID() string { return r.id }

// Queries is how many times a read of books has asked the database.
func (r *BookRepo) Queries() int64 { return r.queries.Load() }

// FindBook returns the book with this id, or an error that is ErrNoBook.
func (r *BookRepo) FindBook(ctx context.Context, id int64) (Book, error) {
	r.queries.Add(1)
	b := Book{ID: id}
	const query = `SELECT title, author, year FROM books WHERE id = ?`
	err := r.db.QueryRowContext(ctx, query, id).Scan(&b.Title, &b.Author, &b.Year)
	if errors.Is(err, sql.ErrNoRows) {
		return Book{}, fmt.Errorf("find book %d: %w", id, ErrNoBook)
	}
	if err != nil {
		return Book{}, fmt.Errorf("find book %d: %w", id, err)
	}
	return b, nil
}

// FindBooks returns those of ids that there are, by one query.
func (r *BookRepo) FindBooks(ctx context.Context, ids []int64) (map[int64]Book, error) {
	r.queries.Add(1)
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, fmt.Errorf("find %d books: %w", len(ids), err)
	}
	const query = `SELECT id, title, author, year FROM books WHERE id IN (SELECT value FROM json_each(?))`
	books := make(map[int64]Book, len(ids))
	err = r.each(ctx, func(rows *sql.Rows) error {
		var b Book
		if err := rows.Scan(&b.ID, &b.Title, &b.Author, &b.Year); err != nil {
			return err
		}
		books[b.ID] = b
		return nil
	}, query, string(list))
	if err != nil {
		return nil, fmt.Errorf("find %d books: %w", len(ids), err)
	}
	return books, nil
}

// ListIDs returns the ids of the first n books, in the order of their titles.
func (r *BookRepo) ListIDs(ctx context.Context, n int) (ids []int64, err error) {
	r.queries.Add(1)
	err = r.each(ctx, func(rows *sql.Rows) error {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	}, `SELECT id FROM books ORDER BY title, id LIMIT ?`, n)
	if err != nil {
		return nil, fmt.Errorf("list %d books: %w", n, err)
	}
	return ids, nil
}

// each calls scan for every row of a query.
func (r *BookRepo) each(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// CountBooks returns how many books there are.
func (r *BookRepo) CountBooks(ctx context.Context) (n int, err error) {
	if err := r.db.QueryRowContext(ctx, `SELECT count(*) FROM books`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count books: %w", err)
	}
	return n, nil
}

// SaveBook writes b, whether or not its id was there before, and reports
// whether it is new.
func (r *BookRepo) SaveBook(ctx context.Context, b Book) (created bool, err error) {
	err = r.inTx(ctx, func(tx *sql.Tx) error {
		const update = `UPDATE books SET title = ?, author = ?, year = ? WHERE id = ?`
		found, err := affected(tx.ExecContext(ctx, update, b.Title, b.Author, b.Year, b.ID))
		if err != nil || found {
			return err
		}
		const insert = `INSERT INTO books (id, title, author, year) VALUES (?, ?, ?, ?)`
		created, err = affected(tx.ExecContext(ctx, insert, b.ID, b.Title, b.Author, b.Year))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("save book %d: %w", b.ID, err)
	}
	return created, nil
}

// DeleteBook removes the book with this id, or returns an error that is
// ErrNoBook.
func (r *BookRepo) DeleteBook(ctx context.Context, id int64) error {
	found, err := affected(r.db.ExecContext(ctx, `DELETE FROM books WHERE id = ?`, id))
	if err == nil && !found {
		err = ErrNoBook
	}
	if err != nil {
		return fmt.Errorf("delete book %d: %w", id, err)
	}
	return nil
}

// Close closes the SQLite file.
func (r *BookRepo) Close() error { return r.db.Close() }

// inTx runs write in a transaction, and commits it unless write fails.
func (r *BookRepo) inTx(ctx context.Context, write func(*sql.Tx) error) error {
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := write(tx); err != nil {
		_ = tx.Rollback() // err is the cause; Rollback only adds that ctx or the connection has ended
		return err
	}
	return tx.Commit()
}

// affected reports whether a statement changed any row.
func affected(res sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}
