package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

const maxBodyBytes = 16 << 10 // of a PUT; the longest valid book is a tenth of it

// bookBody is the body of a PUT. Pointers tell a field that is not there from
// a zero.
type bookBody struct {
	ID     *int64  `json:"id"` // optional: the path has it
	Title  *string `json:"title"`
	Author *string `json:"author"`
	Year   *int    `json:"year"`
}

// readBook reads the body of a PUT of the book with this id.
func readBook(w http.ResponseWriter, r *http.Request, id int64) (Book, error) {
	var body bookBody
	if err := decodeBody(http.MaxBytesReader(w, r.Body, maxBodyBytes), &body); err != nil {
		return Book{}, err
	}
	switch {
	case body.Title == nil || body.Author == nil || body.Year == nil:
		return Book{}, fail(http.StatusBadRequest, "a book needs a title, an author and a year")
	case body.ID != nil && *body.ID != id:
		return Book{}, fail(http.StatusBadRequest, "id %d in the body is not id %d in the path", *body.ID, id)
	}
	b := Book{ID: id, Title: *body.Title, Author: *body.Author, Year: *body.Year}
	if err := b.Validate(); err != nil {
		return Book{}, fail(http.StatusBadRequest, "%w", err)
	}
	return b, nil
}

// decodeBody reads exactly one JSON value into v.
func decodeBody(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("more than one JSON value")
		}
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fail(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	return fail(http.StatusBadRequest, "the body is no book in JSON: %w", err)
}

// statusError is an error that the client made, or that it may see.
type statusError struct {
	status int
	err    error
}

func fail(status int, format string, args ...any) error {
	return &statusError{status, fmt.Errorf(format, args...)}
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// respond writes body as JSON.
func respond(w http.ResponseWriter, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // fails only when the client has gone
	return nil
}

// respondError writes err as JSON: {"error": "..."}.
func (h *handler) respondError(w http.ResponseWriter, r *http.Request, err error) {
	known := asStatus(err)
	if known.status >= http.StatusInternalServerError {
		h.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	body := map[string]string{"error": known.Error()}
	if err := respond(w, known.status, body); err != nil {
		h.log.Error("respond", "err", err)
	}
}

// asStatus says what a client may know of err.
func asStatus(err error) *statusError {
	known, ok := errors.AsType[*statusError](err)
	switch {
	case ok:
		return known
	case errors.Is(err, ErrNotInvalidated): // first: it may be joined with one of those below
		const text = "the book may be written, but readers may still see the old one: send it again"
		return &statusError{http.StatusServiceUnavailable, errors.New(text)}
	case errors.Is(err, ErrNoBook):
		return &statusError{http.StatusNotFound, ErrNoBook}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &statusError{http.StatusGatewayTimeout, errors.New("the books did not answer in time")}
	default:
		return &statusError{http.StatusInternalServerError, errors.New("internal error")}
	}
}
