package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCatalogueListsAtLeast100Books(t *testing.T) {
	books, err := Catalogue()

	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(books), 100)
}

// The tour, and whoever asks for the first hundred books, count on this.
func TestCatalogueIDsCountFromOne(t *testing.T) {
	books, err := Catalogue()

	require.NoError(t, err)
	for i, b := range books {
		assert.EqualValues(t, i+1, b.ID)
	}
}

func TestCatalogueIsSortedByYearAndNamesEachBookOnce(t *testing.T) {
	books, err := Catalogue()

	require.NoError(t, err)
	assert.True(t, slices.IsSortedFunc(books, func(a, b Book) int { return a.Year - b.Year }))
	seen := make(map[string]bool)
	for _, b := range books {
		assert.False(t, seen[b.Title], "%s is there twice", b.Title)
		seen[b.Title] = true
		assert.Less(t, b.Year, 1930, "%s is too young to be in the public domain everywhere", b.Title)
	}
}

func TestCatalogueHasTheBooksOfTheTour(t *testing.T) {
	books, err := Catalogue()

	require.NoError(t, err)
	assert.Equal(t, "Moby-Dick", books[mobyDick-1].Title)
	assert.Equal(t, "Dracula", books[dracula-1].Title)
	assert.Less(t, len(books), noBook)
}

func TestParseBooksSaysWhichLineIsWrong(t *testing.T) {
	for name, row := range map[string]string{
		"id is no number":    "one,Title,Author,1900",
		"id is zero":         "0,Title,Author,1900",
		"year is no number":  "1,Title,Author,MCM",
		"title is empty":     "1,,Author,1900",
		"author is blank":    "1,Title,  ,1900",
		"too few fields":     "1,Title,Author",
		"unfinished quoting": `1,"Title,Author,1900`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseBooks(strings.NewReader("id,title,author,year\n" + row + "\n"))

			assert.ErrorContains(t, err, "line")
			assert.ErrorContains(t, err, "2")
		})
	}
}

func TestParseBooksOfNothingIsAnError(t *testing.T) {
	_, err := parseBooks(strings.NewReader(""))

	assert.ErrorContains(t, err, "header")
}
