package main

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func openTestRepo(t testing.TB, path string) *BookRepo {
	t.Helper()
	repo, err := OpenBookRepo(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, repo.Close()) })
	return repo
}

func newTestRepo(t testing.TB) *BookRepo {
	t.Helper()
	return openTestRepo(t, filepath.Join(t.TempDir(), "books.sqlite"))
}

func TestNewFileHoldsTheCatalogue(t *testing.T) {
	repo := newTestRepo(t)
	books, err := Catalogue()
	require.NoError(t, err)

	n, err := repo.CountBooks(t.Context())

	require.NoError(t, err)
	assert.Equal(t, len(books), n)
	for _, want := range books {
		got, err := repo.FindBook(t.Context(), want.ID)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestFindBookCountsQueries(t *testing.T) {
	repo := newTestRepo(t)

	_, err := repo.FindBook(t.Context(), 1)
	require.NoError(t, err)
	_, err = repo.FindBook(t.Context(), noBook)
	require.ErrorIs(t, err, ErrNoBook)

	assert.EqualValues(t, 2, repo.Queries())
}

func TestSaveBookTellsNewFromOld(t *testing.T) {
	repo := newTestRepo(t)
	b := Book{ID: noBook, Title: "Erewhon", Author: "Samuel Butler", Year: 1872}

	created, err := repo.SaveBook(t.Context(), b)
	require.NoError(t, err)
	assert.True(t, created)
	b.Title = "Erewhon; or, Over the Range"
	created, err = repo.SaveBook(t.Context(), b)
	require.NoError(t, err)
	assert.False(t, created)

	got, err := repo.FindBook(t.Context(), noBook)
	require.NoError(t, err)
	assert.Equal(t, b, got)
}

func TestDeleteBookRemovesItOnce(t *testing.T) {
	repo := newTestRepo(t)

	require.NoError(t, repo.DeleteBook(t.Context(), 1))

	assert.ErrorIs(t, repo.DeleteBook(t.Context(), 1), ErrNoBook)
	_, err := repo.FindBook(t.Context(), 1)
	assert.ErrorIs(t, err, ErrNoBook)
}

func TestKeptFileKeepsItsBooksAndItsID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "books.sqlite")
	first := openTestRepo(t, path)
	require.NoError(t, first.DeleteBook(t.Context(), 1))

	again := openTestRepo(t, path)

	assert.Equal(t, first.ID(), again.ID())
	_, err := again.FindBook(t.Context(), 1)
	assert.ErrorIs(t, err, ErrNoBook, "the catalogue was filled in again")
}

func TestTwoFilesHaveTwoIDs(t *testing.T) {
	assert.NotEqual(t, newTestRepo(t).ID(), newTestRepo(t).ID())
}

func TestNewFileOpenedTwiceAtOnceIsFilledOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "books.sqlite")
	var repos [4]*BookRepo
	var group sync.WaitGroup
	for i := range repos {
		group.Go(func() {
			repo, err := OpenBookRepo(t.Context(), path)
			if assert.NoError(t, err) {
				repos[i] = repo
				t.Cleanup(func() { assert.NoError(t, repo.Close()) })
			}
		})
	}
	group.Wait()
	require.False(t, t.Failed())

	for _, repo := range repos {
		assert.Equal(t, repos[0].ID(), repo.ID())
	}
}

func TestCancelledContextEndsQueries(t *testing.T) {
	repo := newTestRepo(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, findErr := repo.FindBook(ctx, 1)
	_, saveErr := repo.SaveBook(ctx, Book{ID: 1, Title: "t", Author: "a"})

	assert.ErrorIs(t, findErr, context.Canceled)
	assert.ErrorIs(t, saveErr, context.Canceled)
	got, err := repo.FindBook(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, "Utopia", got.Title)
}
