package main

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/readthrough-go/readthrough"
)

// handler answers the requests. Each of its methods for a route returns an
// error instead of writing it, and respondError is the one place that does.
type handler struct {
	store *BookStore
	log   *slog.Logger
}

func newHandler(store *BookStore, log *slog.Logger) http.Handler {
	h := &handler{store: store, log: log}
	mux := http.NewServeMux()
	mux.Handle("GET /books", h.route(h.listBooks))
	mux.Handle("GET /books/{id}", h.route(h.getBook))
	mux.Handle("PUT /books/{id}", h.route(h.putBook))
	mux.Handle("DELETE /books/{id}", h.route(h.deleteBook))
	mux.Handle("GET /stats", h.route(h.stats))
	// Patterns without a method catch the rest, to answer that in JSON too.
	mux.Handle("/books/{id}", h.route(notAllowed("GET, HEAD, PUT, DELETE")))
	mux.Handle("/books", h.route(notAllowed("GET, HEAD")))
	mux.Handle("/stats", h.route(notAllowed("GET, HEAD")))
	mux.Handle("/", h.route(notThere))
	return mux
}

func (h *handler) route(answer func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		if err := answer(w, r.WithContext(ctx)); err != nil {
			h.respondError(w, r, err)
		}
	})
}

func (h *handler) getBook(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	b, info, err := h.store.FindInfo(r.Context(), id)
	w.Header().Set("Cache-Status", info.CacheStatus("bookstore"))
	if err != nil {
		return err
	}
	w.Header().Set("Age", strconv.FormatInt(int64(info.Age/time.Second), 10))
	return respond(w, http.StatusOK, b)
}

func (h *handler) listBooks(w http.ResponseWriter, r *http.Request) error {
	books, err := h.store.List(r.Context())
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, books)
}

func (h *handler) putBook(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	b, err := readBook(w, r, id)
	if err != nil {
		return err
	}
	created, err := h.store.Save(r.Context(), b)
	if err != nil {
		return err
	}
	if created {
		return respond(w, http.StatusCreated, b)
	}
	return respond(w, http.StatusOK, b)
}

func (h *handler) deleteBook(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if err := h.store.Delete(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serviceStats is the body of GET /stats.
type serviceStats struct {
	Queries int64             `json:"queries"`
	Cache   readthrough.Stats `json:"cache"`
}

func (h *handler) stats(w http.ResponseWriter, _ *http.Request) error {
	return respond(w, http.StatusOK, serviceStats{Queries: h.store.Queries(), Cache: h.store.Stats()})
}

func notAllowed(allow string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allow)
		return fail(http.StatusMethodNotAllowed, "%s is not allowed here, only %s", r.Method, allow)
	}
}

func notThere(http.ResponseWriter, *http.Request) error {
	return fail(http.StatusNotFound, "nothing here: try /books, /books/1 or /stats")
}

// pathID reads the {id} of a path.
func pathID(r *http.Request) (int64, error) {
	raw := r.PathValue("id")
	id, err := strconv.ParseUint(raw, 10, 63) // 63 bits: it fits an int64, and takes no sign
	if err != nil || id == 0 {
		return 0, fail(http.StatusBadRequest, "book id %q is not a whole number of at least 1", raw)
	}
	return int64(id), nil
}
