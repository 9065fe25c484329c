package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mobyDickPath = "/books/49"

func newTestHandler(t testing.TB) (http.Handler, *BookStore) {
	t.Helper()
	store, _ := newTestStore(t)
	return newHandler(store, slog.New(slog.NewTextHandler(t.Output(), nil))), store
}

func request(t testing.TB, h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	return w
}

// assertError checks that the answer is JSON with an error that says text.
func assertError(t testing.TB, w *httptest.ResponseRecorder, status int, text string) {
	t.Helper()
	assert.Equal(t, status, w.Code)
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var body struct{ Error string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body)
	assert.Contains(t, body.Error, text)
}

func TestGetAnswersTheBook(t *testing.T) {
	h, _ := newTestHandler(t)

	w := request(t, h, "GET", mobyDickPath, "")

	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	assert.JSONEq(t, `{"id": 49, "title": "Moby-Dick", "author": "Herman Melville", "year": 1851}`, w.Body.String())
}

func TestGetSaysWhereTheBookCameFrom(t *testing.T) {
	h, _ := newTestHandler(t)

	cold := request(t, h, "GET", mobyDickPath, "")
	warm := request(t, h, "GET", mobyDickPath, "")
	none := request(t, h, "GET", "/books/4242", "")

	assert.Regexp(t, `^bookstore; fwd=miss; ttl=\d+; stored$`, cold.Header().Get("Cache-Status"))
	assert.Regexp(t, `^bookstore; hit; ttl=\d+$`, warm.Header().Get("Cache-Status"))
	assert.Equal(t, "0", warm.Header().Get("Age"))
	assert.Equal(t, http.StatusNotFound, none.Code)
	assert.Regexp(t, `^bookstore; fwd=miss; ttl=\d+; stored$`, none.Header().Get("Cache-Status"), "a not-found is stored too")
}

func TestListAnswersBooksByTitle(t *testing.T) {
	h, store := newTestHandler(t)

	w := request(t, h, "GET", "/books", "")

	assert.Equal(t, http.StatusOK, w.Code)
	var books []Book
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &books))
	assert.Len(t, books, listLength)
	assert.True(t, slices.IsSortedFunc(books, func(a, b Book) int { return strings.Compare(a.Title, b.Title) }))
	assert.EqualValues(t, 2, store.Queries())
}

func TestGetAfterPutAnswersTheNewBook(t *testing.T) {
	h, _ := newTestHandler(t)
	request(t, h, "GET", mobyDickPath, "") // the old book is in the cache
	const book = `{"id": 49, "title": "Moby-Dick; or, The Whale", "author": "Herman Melville", "year": 1851}`

	put := request(t, h, "PUT", mobyDickPath, book)

	assert.Equal(t, http.StatusOK, put.Code)
	assert.JSONEq(t, book, put.Body.String())
	assert.JSONEq(t, book, request(t, h, "GET", mobyDickPath, "").Body.String())
}

func TestGetAfterPutIsFreshAmongManyReaders(t *testing.T) {
	h, _ := newTestHandler(t)
	ctx, cancel := context.WithCancel(t.Context())
	var crowd sync.WaitGroup // ended by cancel
	for range 4 {
		crowd.Go(func() {
			for ctx.Err() == nil {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", mobyDickPath, nil))
			}
		})
	}

	for year := 1851; year < 1951; year++ {
		book := fmt.Sprintf(`{"id": 49, "title": "Moby-Dick", "author": "Herman Melville", "year": %d}`, year)
		require.Equal(t, http.StatusOK, request(t, h, "PUT", mobyDickPath, book).Code)
		require.JSONEq(t, book, request(t, h, "GET", mobyDickPath, "").Body.String())
	}

	cancel()
	crowd.Wait()
}

func TestPutOfNewIDCreates(t *testing.T) {
	h, _ := newTestHandler(t)
	require.Equal(t, http.StatusNotFound, request(t, h, "GET", "/books/4242", "").Code)

	w := request(t, h, "PUT", "/books/4242", `{"title": "Erewhon", "author": "Samuel Butler", "year": 1872}`)

	assert.Equal(t, http.StatusCreated, w.Code)
	assert.Equal(t, http.StatusOK, request(t, h, "GET", "/books/4242", "").Code)
}

func TestDeleteRemovesTheBook(t *testing.T) {
	h, _ := newTestHandler(t)
	request(t, h, "GET", mobyDickPath, "") // the book is in the cache

	w := request(t, h, "DELETE", mobyDickPath, "")

	assert.Equal(t, http.StatusNoContent, w.Code)
	assert.Empty(t, w.Body)
	assertError(t, request(t, h, "GET", mobyDickPath, ""), http.StatusNotFound, "no such book")
	assertError(t, request(t, h, "DELETE", mobyDickPath, ""), http.StatusNotFound, "no such book")
}

func TestNotFoundIsAskedOfTheDatabaseOnce(t *testing.T) {
	h, store := newTestHandler(t)

	for range 2 {
		assertError(t, request(t, h, "GET", "/books/4242", ""), http.StatusNotFound, "no such book")
	}

	assert.EqualValues(t, 1, store.Queries())
}

func TestStatsCountQueriesAndCache(t *testing.T) {
	h, _ := newTestHandler(t)
	request(t, h, "GET", mobyDickPath, "")
	request(t, h, "GET", mobyDickPath, "")

	w := request(t, h, "GET", "/stats", "")

	assert.Equal(t, http.StatusOK, w.Code)
	var body struct {
		Queries int64
		Cache   map[string]any
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	assert.EqualValues(t, 1, body.Queries)
	assert.NotEmpty(t, body.Cache)
}

func TestBadRequestsAreRefusedInJSON(t *testing.T) {
	const good = `{"title": "T", "author": "A", "year": 1900}`
	long := strings.Repeat("x", maxTextBytes+1)
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		text                     string
	}{
		{"id is a word", "GET", "/books/moby", "", 400, `"moby" is not a whole number`},
		{"id is zero", "GET", "/books/0", "", 400, "at least 1"},
		{"id is negative", "DELETE", "/books/-1", "", 400, "at least 1"},
		{"id is signed", "GET", "/books/+1", "", 400, "whole number"},
		{"id is a fraction", "GET", "/books/1.5", "", 400, "whole number"},
		{"id is too large", "PUT", "/books/9223372036854775808", good, 400, "whole number"},
		{"body is empty", "PUT", "/books/1", "", 400, "no book in JSON"},
		{"body is no JSON", "PUT", "/books/1", "{title", 400, "no book in JSON"},
		{"body is an array", "PUT", "/books/1", "[]", 400, "no book in JSON"},
		{"body is cut short", "PUT", "/books/1", `{"title": "T"`, 400, "no book in JSON"},
		{"body is two values", "PUT", "/books/1", good + good, 400, "more than one JSON value"},
		{"body goes on", "PUT", "/books/1", good + "}", 400, "no book in JSON"},
		{"unknown field", "PUT", "/books/1", `{"title": "T", "author": "A", "year": 1900, "isbn": "1"}`, 400, "isbn"},
		{"year is a string", "PUT", "/books/1", `{"title": "T", "author": "A", "year": "1900"}`, 400, "year"},
		{"year is missing", "PUT", "/books/1", `{"title": "T", "author": "A"}`, 400, "needs a title, an author and a year"},
		{"body is null", "PUT", "/books/1", "null", 400, "needs a title"},
		{"year is far off", "PUT", "/books/1", `{"title": "T", "author": "A", "year": 10000}`, 400, "year must be"},
		{"title is blank", "PUT", "/books/1", `{"title": " ", "author": "A", "year": 1900}`, 400, "title must not be empty"},
		{"author is too long", "PUT", "/books/1", `{"title": "T", "author": "` + long + `", "year": 1900}`, 400, "author must not be longer"},
		{"ids differ", "PUT", "/books/1", `{"id": 2, "title": "T", "author": "A", "year": 1900}`, 400, "id 2 in the body is not id 1 in the path"},
		{"body is too large", "PUT", "/books/1", `{"title": "` + strings.Repeat("x", maxBodyBytes) + `"}`, 413, "larger than 16384 bytes"},
		{"spaces are too large", "PUT", "/books/1", good + strings.Repeat(" ", maxBodyBytes), 413, "larger than 16384 bytes"},
		{"method", "POST", "/books/1", good, 405, "POST is not allowed"},
		{"method of stats", "PUT", "/stats", "", 405, "PUT is not allowed"},
		{"no such path", "GET", "/authors/1", "", 404, "nothing here"},
		{"no id", "GET", "/books/", "", 404, "nothing here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, store := newTestHandler(t)

			w := request(t, h, tt.method, tt.path, tt.body)

			assertError(t, w, tt.status, tt.text)
			assert.Equal(t, tt.status == 405, w.Header().Get("Allow") != "")
			b, err := store.repo.FindBook(t.Context(), 1)
			require.NoError(t, err)
			assert.Equal(t, "Utopia", b.Title, "a refused request changed a book")
		})
	}
}

func TestWriteWithoutRedisAsksToBeRepeated(t *testing.T) {
	store, mini := newTestStore(t)
	h := newHandler(store, slog.New(slog.DiscardHandler))
	mini.Close()

	w := request(t, h, "PUT", "/books/1", `{"title": "T", "author": "A", "year": 1900}`)

	assertError(t, w, http.StatusServiceUnavailable, "send it again")
	restartRedis(t, store, mini)
}

func TestFailureOfTheDatabaseIsNotShown(t *testing.T) {
	h, store := newTestHandler(t)
	require.NoError(t, store.repo.Close())

	assertError(t, request(t, h, "GET", mobyDickPath, ""), http.StatusInternalServerError, "internal error")
}

func TestRequestThatRunsOutOfTimeIsATimeout(t *testing.T) {
	h, _ := newTestHandler(t)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	w := httptest.NewRecorder()

	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", mobyDickPath, nil))

	assertError(t, w, http.StatusGatewayTimeout, "in time")
}

func TestServeFinishesOpenRequestsWhenInterrupted(t *testing.T) {
	store, _ := newTestStore(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, ln, store, t.Output()) }() // ended by cancel
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	// The server answers "100 Continue" when the handler is reading the body:
	// from then on the request is open.
	const head = "PUT /books/49 HTTP/1.1\r\nHost: test\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
	const body = `{"title": "Moby-Dick; or, The Whale", "author": "Herman Melville", "year": 1851}`
	_, err = fmt.Fprintf(conn, head, len(body))
	require.NoError(t, err)
	goOn := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	_, err = io.ReadFull(conn, goOn)
	require.NoError(t, err)
	require.Contains(t, string(goOn), "100 Continue")

	cancel()
	_, err = io.WriteString(conn, body)
	require.NoError(t, err)

	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Contains(t, string(answer), "HTTP/1.1 200 OK")
	assert.Contains(t, string(answer), "The Whale")
	assert.NoError(t, <-served)
	_, err = net.Dial("tcp", ln.Addr().String())
	assert.Error(t, err, "the port is still open")
}

func TestLocalURLNamesThisMachine(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:80": "http://127.0.0.1:80",
		"0.0.0.0:8080": "http://localhost:8080",
		"[::]:8080":    "http://localhost:8080",
		"[::1]:8080":   "http://[::1]:8080",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		require.NoError(t, err)

		assert.Equal(t, want, localURL(tcp))
	}
}
