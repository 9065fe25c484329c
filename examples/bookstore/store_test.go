package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/readthrough-go/readthrough"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// openTestStore is one process's view of the SQLite file at path.
func openTestStore(t testing.TB, path string, mini *miniredis.Miniredis) *BookStore {
	t.Helper()
	repo := openTestRepo(t, path)
	client, err := readthrough.Open("redis://" + mini.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	store, err := NewBookStore(repo, client)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, store.Close()) })
	return store
}

func newTestStore(t testing.TB) (*BookStore, *miniredis.Miniredis) {
	t.Helper()
	mini := miniredis.RunT(t)
	return openTestStore(t, filepath.Join(t.TempDir(), "books.sqlite"), mini), mini
}

func TestFindAsksTheDatabaseOnce(t *testing.T) {
	store, _ := newTestStore(t)

	for range 3 {
		b, err := store.Find(t.Context(), mobyDick)
		require.NoError(t, err)
		assert.Equal(t, "Moby-Dick", b.Title)
	}

	assert.EqualValues(t, 1, store.Queries())
}

func TestListIsTwoQueriesColdAndNoneWarm(t *testing.T) {
	store, _ := newTestStore(t)
	cold, err := store.List(t.Context())
	require.NoError(t, err)
	require.Len(t, cold, listLength)
	require.EqualValues(t, 2, store.Queries())

	warm, err := store.List(t.Context())

	require.NoError(t, err)
	assert.Equal(t, cold, warm)
	assert.EqualValues(t, 2, store.Queries())
}

func TestListShowsWhatWasSavedAndDeleted(t *testing.T) {
	store, _ := newTestStore(t)
	before, err := store.List(t.Context())
	require.NoError(t, err)
	saved := Book{ID: noBook, Title: "!", Author: "Nobody", Year: 1900} // sorts before all others
	_, err = store.Save(t.Context(), saved)
	require.NoError(t, err)
	require.NoError(t, store.Delete(t.Context(), before[0].ID))

	after, err := store.List(t.Context())

	require.NoError(t, err)
	assert.Equal(t, saved, after[0])
	assert.Equal(t, before[1], after[1])
}

func TestNotFoundIsRememberedUntilTheBookIsSaved(t *testing.T) {
	store, _ := newTestStore(t)
	for range 2 {
		_, err := store.Find(t.Context(), noBook)
		require.ErrorIs(t, err, ErrNoBook)
	}
	require.EqualValues(t, 1, store.Queries())
	want := Book{ID: noBook, Title: "Erewhon", Author: "Samuel Butler", Year: 1872}

	created, err := store.Save(t.Context(), want)

	require.NoError(t, err)
	assert.True(t, created)
	got, err := store.Find(t.Context(), noBook)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestDeletedBookIsNotFound(t *testing.T) {
	store, _ := newTestStore(t)
	_, err := store.Find(t.Context(), mobyDick)
	require.NoError(t, err)

	require.NoError(t, store.Delete(t.Context(), mobyDick))

	_, err = store.Find(t.Context(), mobyDick)
	assert.ErrorIs(t, err, ErrNoBook)
}

// A writer's client that hangs up must not leave the old book in the cache.
func TestInvalidateWorksForCallerWhoHasGone(t *testing.T) {
	store, _ := newTestStore(t)
	_, err := store.Find(t.Context(), mobyDick)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	require.NoError(t, store.Invalidate(ctx, mobyDick))

	_, err = store.Find(t.Context(), mobyDick)
	require.NoError(t, err)
	assert.EqualValues(t, 2, store.Queries())
}

func TestSaveWithoutRedisIsSavedAndSaysSo(t *testing.T) {
	store, mini := newTestStore(t)
	mini.Close()
	b := Book{ID: mobyDick, Title: fullTitle, Author: "Herman Melville", Year: 1851}

	_, err := store.Save(t.Context(), b)

	assert.ErrorIs(t, err, ErrNotInvalidated)
	got, err := store.Find(t.Context(), mobyDick)
	require.NoError(t, err, "without Redis a read asks the database")
	assert.Equal(t, b, got)
	restartRedis(t, store, mini)
}

// restartRedis brings Redis back, and waits until it knows of what was written
// while it was down: a store closed before has something to complain of.
func restartRedis(t testing.TB, store *BookStore, mini *miniredis.Miniredis) {
	t.Helper()
	require.NoError(t, mini.Restart())
	told := func() bool { return store.Stats().PendingInvalidations == 0 }
	require.Eventually(t, told, 30*time.Second, 10*time.Millisecond)
}

// Two stores of one file and one Redis are two processes: what one saves, the
// other reads at once, however many readers fill the cache meanwhile.
func TestUpdateIsSeenAtOnceByTheOtherProcess(t *testing.T) {
	mini := miniredis.RunT(t)
	path := filepath.Join(t.TempDir(), "books.sqlite")
	writer, reader := openTestStore(t, path, mini), openTestStore(t, path, mini)
	ctx, cancel := context.WithCancel(t.Context())
	var crowd sync.WaitGroup // ended by cancel
	for range 4 {
		crowd.Go(func() {
			for ctx.Err() == nil {
				_, _ = reader.Find(ctx, mobyDick)
			}
		})
	}

	for i := range 100 {
		want := Book{ID: mobyDick, Title: fmt.Sprintf("Moby-Dick, draft %d", i), Author: "Herman Melville", Year: 1851}
		_, err := writer.Save(t.Context(), want)
		require.NoError(t, err)
		got, err := reader.Find(t.Context(), mobyDick)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}

	cancel()
	crowd.Wait()
}

func TestStoresOfTwoFilesShareNothing(t *testing.T) {
	mini := miniredis.RunT(t)
	one := openTestStore(t, filepath.Join(t.TempDir(), "one.sqlite"), mini)
	two := openTestStore(t, filepath.Join(t.TempDir(), "two.sqlite"), mini)
	changed := Book{ID: mobyDick, Title: fullTitle, Author: "Herman Melville", Year: 1851}
	_, err := one.Save(t.Context(), changed)
	require.NoError(t, err)
	_, err = one.Find(t.Context(), mobyDick)
	require.NoError(t, err)

	got, err := two.Find(t.Context(), mobyDick)

	require.NoError(t, err)
	assert.Equal(t, "Moby-Dick", got.Title)
}
