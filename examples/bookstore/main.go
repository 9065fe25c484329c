// Command bookstore reads books from SQLite through a cache in Redis.
//
// Without flags it tells its story in about twenty lines and ends. With -serve
// it answers GET, PUT and DELETE of /books/{id}, and GET of /stats, until it is
// interrupted. The Redis is the one that $REDIS_URL names, or else one embedded
// in the process. It exits with 0 when all went well, 1 after a failure and 2
// for flags that it does not know.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for a clean end. From then on signals are not
	// caught, so that a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Getenv("REDIS_URL"), os.Stdout, os.Stderr))
}

// settings is what the command line says.
type settings struct {
	dbPath string // empty: a temporary file
	serve  string // empty: the tour
}

// run is main without the process around it. It returns the exit code.
func run(ctx context.Context, args []string, redisURL string, stdout, stderr io.Writer) int {
	set, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // parseFlags has said why
	}
	if err := start(ctx, set, redisURL, stdout); err != nil {
		fmt.Fprintf(stderr, "bookstore: %v\n", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, stderr io.Writer) (settings, error) {
	var set settings
	flags := flag.NewFlagSet("bookstore", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&set.dbPath, "db", "", "keep the books in the SQLite `file` (default: a temporary one)")
	flags.StringVar(&set.serve, "serve", "", "serve HTTP on `address`, such as :8080 (default: tell the story and end)")
	if err := flags.Parse(args); err != nil {
		return set, err
	}
	if flags.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q", flags.Arg(0))
		fmt.Fprintln(stderr, err)
		flags.Usage()
		return set, err
	}
	return set, nil
}

func start(ctx context.Context, set settings, redisURL string, stdout io.Writer) (err error) {
	var ln net.Listener
	if set.serve != "" {
		// Before anything is opened: a busy port is the likeliest mistake.
		if ln, err = net.Listen("tcp", set.serve); err != nil {
			return fmt.Errorf("serve on %s: %w", set.serve, err)
		}
		defer ln.Close() // serve has closed it, unless it was never reached
	}
	s, err := openShop(ctx, set.dbPath, redisURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	if ln != nil {
		return serve(ctx, ln, s.store, stdout)
	}
	return tour(ctx, s, redisURL != "", stdout)
}
