package dbtest

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

var mariadb = kind{
	binary:  "mariadbd",
	folders: []string{"/usr/sbin", "/usr/local/sbin", "/usr/libexec"},
	require: "READTHROUGH_REQUIRE_MARIADB",
	users:   []string{"mysql", "nobody"},
	init:    func(s *Server) *exec.Cmd { return exec.Command("mkdir", filepath.Join(s.dir, "data")) },
	serve: func(s *Server) *exec.Cmd {
		// Without grant tables, which only mariadb-install-db could make, everybody may do everything.
		return exec.Command(s.binary, "--no-defaults", "--datadir="+filepath.Join(s.dir, "data"),
			"--skip-grant-tables", "--port="+strconv.Itoa(s.port), "--bind-address=127.0.0.1",
			"--skip-name-resolve", "--socket="+filepath.Join(s.dir, "sock"), "--tmpdir="+s.dir,
			"--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M")
	},
	ready: "ready for connections",
}

// StartMariaDB starts a MariaDB server, and returns the function that stops it.
func StartMariaDB(tb testing.TB) (*Server, func()) {
	tb.Helper()
	return start(tb, mariadb)
}

// MariaDBDSN is the data source name of a database of the server, for go-sql-driver; of
// none if the name is empty.
func (s *Server) MariaDBDSN(database string) string { return "root@tcp(" + s.Addr() + ")/" + database }
