package main

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// header is that of a book loaded in 7 ms at Unix millisecond 1000, fresh
// until 2000.
const header = "\x92\xc7\x19\x52\x03" + "\x00\x00\x00\x00\x03\xe8" + "\x00\x00\x00\x00\x07\xd0" + "sum?" + "\x00\x07" + "\x00\x00" + "code"

func TestDecodeEntryReadsHeaderAndValue(t *testing.T) {
	got, err := decodeEntry([]byte(header + "\x81\xa2id\x31"))

	require.NoError(t, err)
	assert.Equal(t, storedEntry{
		Format:     3,
		LoadedAt:   time.UnixMilli(1000),
		FreshUntil: time.UnixMilli(2000),
		LoadTime:   7 * time.Millisecond,
		Value:      map[string]any{"id": int8(0x31)},
	}, got)
}

func TestDecodeEntryReadsNeverStale(t *testing.T) {
	got, err := decodeEntry([]byte(header[:11] + "\xff\xff\xff\xff\xff\xff" + header[17:] + "\xc0"))

	require.NoError(t, err)
	assert.Zero(t, got.FreshUntil)
	assert.Nil(t, got.Value)
}

func TestDecodeEntryRefusesOtherBytes(t *testing.T) {
	for name, stored := range map[string]string{
		"nothing":          "",
		"no array":         "\xa5hello",
		"array of three":   "\x93" + header[1:] + "\xc0\xc0",
		"other extension":  "\x92\xc7\x19\x51" + header[4:] + "\xc0",
		"short header":     header[:10],
		"no value":         header,
		"unfinished value": header + "\x81\xa2id",
		"two values":       header + "\xc0\xc0",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeEntry([]byte(stored))

			assert.Error(t, err)
		})
	}
}

// The format as the library stores it, read without the library.
func TestDecodeEntryReadsWhatTheStoreWrote(t *testing.T) {
	store, mini := newTestStore(t)
	before := time.Now().Truncate(time.Millisecond)
	_, err := store.Find(t.Context(), mobyDick)
	require.NoError(t, err)
	_, err = store.Find(t.Context(), noBook)
	require.ErrorIs(t, err, ErrNoBook)

	book, none := storedUnder(t, store, mini, mobyDick), storedUnder(t, store, mini, noBook)

	assert.EqualValues(t, 3, book.Format)
	assert.Zero(t, book.Flags)
	assert.WithinRange(t, book.LoadedAt, before, time.Now())
	assert.WithinRange(t, book.FreshUntil, before.Add(bookTTL*8/10), time.Now().Add(bookTTL))
	assert.Equal(t, "Moby-Dick", book.Value.(map[string]any)["title"])
	assert.EqualValues(t, 1, none.Flags&1, "not marked as a not-found")
	assert.Nil(t, none.Value)
	assert.WithinRange(t, none.FreshUntil, before.Add(noBookTTL*8/10), time.Now().Add(noBookTTL))
}

func storedUnder(t testing.TB, store *BookStore, mini *miniredis.Miniredis, id int64) storedEntry {
	t.Helper()
	key, err := store.RedisKey(id)
	require.NoError(t, err)
	stored, err := mini.Get(key)
	require.NoError(t, err)
	e, err := decodeEntry([]byte(stored))
	require.NoError(t, err)
	return e
}
