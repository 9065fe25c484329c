package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	requestTimeout  = 5 * time.Second // for a handler's work
	shutdownTimeout = 10 * time.Second
)

// serve answers HTTP on ln until ctx is done, then lets open requests finish.
// It closes ln.
func serve(ctx context.Context, ln net.Listener, store *BookStore, stdout io.Writer) error {
	log := slog.New(slog.NewTextHandler(stdout, nil))
	srv := &http.Server{
		Handler:           newHandler(store, log),
		ReadHeaderTimeout: 2 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      requestTimeout + 5*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ended by Shutdown or Close below
	log.Info("serving until interrupted", "url", localURL(ln.Addr()))

	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("interrupted, finishing open requests")
	// ctx is done already: what is left gets a time of its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("shut down: %w", err), srv.Close())
	}
	<-served //nolint:errcheck // ErrServerClosed: Shutdown has said what is to be said
	log.Info("stopped")
	return err
}

// localURL is where a browser on this machine finds a listener on addr.
func localURL(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
