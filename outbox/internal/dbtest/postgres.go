package dbtest

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

var postgres = kind{
	binary:  "postgres",
	folders: []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"},
	require: "READTHROUGH_REQUIRE_POSTGRES",
	users:   []string{"postgres", "nobody"},
	init: func(s *Server) *exec.Cmd {
		initdb := filepath.Join(filepath.Dir(s.binary), "initdb")
		return exec.Command(initdb, "-D", filepath.Join(s.dir, "data"), "-U", "postgres", "-A", "trust",
			"-E", "UTF8", "--no-locale", "--no-sync")
	},
	serve: func(s *Server) *exec.Cmd {
		return exec.Command(s.binary, "-D", filepath.Join(s.dir, "data"), "-p", strconv.Itoa(s.port),
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
			"-c", "max_connections=200")
	},
	ready: "database system is ready to accept connections",
}

// StartPostgres starts a PostgreSQL server, and returns the function that stops it.
func StartPostgres(tb testing.TB) (*Server, func()) {
	tb.Helper()
	return start(tb, postgres)
}

// PostgresURL is the URL of a database of the server. There is one named postgres.
func (s *Server) PostgresURL(database string) string {
	return "postgres://postgres@" + s.Addr() + "/" + database + "?sslmode=disable"
}
