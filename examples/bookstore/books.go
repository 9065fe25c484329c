package main

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Book is one row of the store. The tags name its fields once for JSON over
// HTTP and once for msgpack in the cache.
type Book struct {
	ID     int64  `json:"id" msgpack:"id"`
	Title  string `json:"title" msgpack:"title"`
	Author string `json:"author" msgpack:"author"`
	Year   int    `json:"year" msgpack:"year"`
}

// String is how the tour prints a book.
func (b Book) String() string {
	return fmt.Sprintf("%s (%s, %d)", b.Title, b.Author, b.Year)
}

const (
	maxTextBytes = 512
	minYear      = -3000 // the Instructions of Shuruppak is about as old as books get
	maxYear      = 9999
)

// Validate says what is wrong with b, in words for whoever sent it.
func (b Book) Validate() error {
	switch {
	case b.ID < 1:
		return errors.New("id must be a whole number of at least 1")
	case b.Year < minYear || b.Year > maxYear:
		return fmt.Errorf("year must be from %d to %d", minYear, maxYear)
	}
	if err := validateText("title", b.Title); err != nil {
		return err
	}
	return validateText("author", b.Author)
}

func validateText(field, s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return fmt.Errorf("%s must not be empty", field)
	case len(s) > maxTextBytes:
		return fmt.Errorf("%s must not be longer than %d bytes", field, maxTextBytes)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s must be valid UTF-8", field)
	}
	return nil
}

// booksCSV lists books in the public domain: their authors died before 1955.
// The year is that of the first edition as a book, in the original language.
//
//go:embed books.csv
var booksCSV []byte

// Catalogue returns the books that a new store is filled with, ordered by id.
func Catalogue() ([]Book, error) {
	books, err := parseBooks(bytes.NewReader(booksCSV))
	if err != nil {
		return nil, fmt.Errorf("books.csv: %w", err)
	}
	return books, nil
}

// parseBooks reads CSV with the header id,title,author,year.
func parseBooks(r io.Reader) ([]Book, error) {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = 4
	if _, err := rows.Read(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	var books []Book
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return books, nil
		}
		if err != nil {
			return nil, err
		}
		b, err := parseBook(row)
		if err != nil {
			line, _ := rows.FieldPos(0)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		books = append(books, b)
	}
}

func parseBook(row []string) (Book, error) {
	id, err := strconv.ParseInt(row[0], 10, 64)
	if err != nil {
		return Book{}, fmt.Errorf("id: %w", err)
	}
	year, err := strconv.Atoi(row[3])
	if err != nil {
		return Book{}, fmt.Errorf("year: %w", err)
	}
	b := Book{ID: id, Title: row[1], Author: row[2], Year: year}
	return b, b.Validate()
}
