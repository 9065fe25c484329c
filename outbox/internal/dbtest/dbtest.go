// Package dbtest gives tests real database servers: PostgreSQL and MariaDB. Each listens on a free
// port of the loopback interface, keeps its data in a folder of its own, runs as an ordinary user
// even where the tests run as root, and ends with the test binary: in the function that Start
// returned, or, on Linux, by the kernel when the process dies before.
//
// A server that is not installed is skipped, unless READTHROUGH_REQUIRE_POSTGRES=1 or
// READTHROUGH_REQUIRE_MARIADB=1, as in CI, say that it must not be.
package dbtest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 60 * time.Second // generous, for a machine busy with other tests
	stopLimit  = 20 * time.Second
	attempts   = 5 // to find a port that nobody else binds meanwhile
)

// kind is what there is to know of a server.
type kind struct {
	binary  string   // the server's
	folders []string // where it is if not on PATH, as patterns
	require string   // the variable that says that it must be there
	users   []string // whom to run it as if this is root
	init    func(s *Server) *exec.Cmd
	serve   func(s *Server) *exec.Cmd
	ready   string // what it prints when it can be used; it has its port then
}

// Server is a database server. Its zero value is not started.
type Server struct {
	kind   kind
	binary string
	dir    string
	port   int
	cred   *syscall.Credential
	proc   *os.Process
	exited chan struct{}
}

// Addr is the server's host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// find returns the path of a program of the server, or skips or fails the test.
func (k *kind) find(tb testing.TB) string {
	path, err := exec.LookPath(k.binary)
	if err == nil {
		path, err = filepath.EvalSymlinks(path) // the other programs are beside the real one
	}
	if err == nil {
		return path
	}
	for _, pattern := range k.folders {
		if found, _ := filepath.Glob(filepath.Join(pattern, k.binary)); len(found) > 0 {
			return slices.Max(found)
		}
	}
	if os.Getenv(k.require) == "1" {
		tb.Fatalf("dbtest: %s=1, but: %v", k.require, err)
	}
	tb.Skipf("dbtest: %v", err)
	return ""
}

// start makes a database in a folder of its own and serves it. The function that it returns stops the
// server and removes the folder.
func start(tb testing.TB, k kind) (*Server, func()) {
	tb.Helper()
	s := &Server{kind: k, binary: k.find(tb)}
	if err := s.start(); err != nil {
		s.stop()
		tb.Fatalf("dbtest: start %s: %v", s.binary, err)
	}
	return s, s.stop
}

func (s *Server) start() (err error) {
	// Not tb.TempDir, which only its owner may enter, and which ends with one test.
	if s.dir, err = os.MkdirTemp("", "dbtest"); err != nil {
		return err
	}
	if s.cred, err = ordinaryUser(s.kind.users); err != nil {
		return err
	}
	if s.cred != nil {
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return err
		}
	}
	setup := s.kind.init(s)
	s.prepare(setup)
	if out, err := setup.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", setup.Path, err, out)
	}
	for range attempts {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.serve(); err == nil {
			return nil
		}
	}
	return err
}

// ordinaryUser returns whom to run a server as: nil for the user of this process, unless that is
// root, whom the servers refuse.
func ordinaryUser(names []string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range names {
		if cred, err := credential(name); err == nil {
			return cred, nil
		}
	}
	return nil, fmt.Errorf("this is root, and there is none of the users %q", names)
}

// prepare has cmd run as the ordinary user in the server's folder.
func (s *Server) prepare(cmd *exec.Cmd) {
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	dieWithParent(cmd)
}

// serve starts the server on its port and returns when it can be used.
func (s *Server) serve() error {
	logPath := filepath.Join(s.dir, "server.log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close() // the server has its own descriptor
	cmd := s.kind.serve(s)
	s.prepare(cmd)
	cmd.Stdout, cmd.Stderr = log, log

	// The kernel ends the server with the thread that forked it, so one goroutine keeps that thread
	// until the server is gone: at the latest in stop.
	started := make(chan error)
	s.exited = make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		s.proc = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // why it ended is in its log
		}
		close(s.exited)
	}()
	if err := <-started; err != nil {
		return err
	}
	if err := s.awaitReady(logPath); err != nil {
		s.kill()
		return err
	}
	return nil
}

func (s *Server) awaitReady(logPath string) error {
	for deadline := time.Now().Add(startLimit); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(logPath)
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte(s.kind.ready)) {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it has ended:\n%s", text)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready within %s:\n%s", startLimit, text)
		}
	}
}

// stop ends the server and removes its data.
func (s *Server) stop() {
	s.kill()
	_ = os.RemoveAll(s.dir)
}

// kill has the server end at once, its children too: SIGQUIT is the quick way of both servers. SIGKILL
// comes later if need be.
func (s *Server) kill() {
	if s.proc == nil {
		return
	}
	_ = s.proc.Signal(syscall.SIGQUIT) // the error would say that it has ended
	select {
	case <-s.exited:
	case <-time.After(stopLimit):
		_ = s.proc.Kill()
		<-s.exited
	}
	s.proc = nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("no TCP address")
	}
	return addr.Port, l.Close()
}
