package redistest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Server is one redis-server process. Its methods end the test when they fail, so they belong on the test's goroutine.
type Server struct {
	tb       TB
	binary   string
	dir      string
	port     int
	busPort  int    // of a cluster node, else 0
	password string // from --requirepass, else ""
	args     []string

	mu   sync.Mutex
	proc *child // nil: killed
}

// Start runs a standalone redis-server, without persistence, until the test ends. The args are further settings, as on
// redis-server's command line: "--maxmemory", "2mb".
func Start(tb TB, args ...string) *Server {
	tb.Helper()
	return launchAll(tb, 1, standalone(args...))[0]
}

// StartBinary is Start for another server that speaks Redis's language: a name or a path, as Binaries returns them.
func StartBinary(tb TB, binary string, args ...string) *Server {
	tb.Helper()
	return launchBinary(tb, binary, 1, standalone(args...))[0]
}

// Binaries returns the servers that can be started here, by name or path, and the names of those that are not on PATH.
// They are those that READTHROUGH_REDIS_SERVERS lists, with commas between them, or else the usual ones.
func Binaries() (found, missing []string) {
	names := os.Getenv("READTHROUGH_REDIS_SERVERS")
	if names == "" {
		names = "redis-server,valkey-server,redict-server,keydb-server"
	}
	for name := range strings.SplitSeq(names, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		} else {
			found = append(found, name)
		}
	}
	return found, missing
}

// standalone configures a server that keeps nothing. The args come last: the last word on a setting counts.
func standalone(args ...string) configure {
	return func(s *Server) error {
		s.args = append([]string{
			"--bind", "127.0.0.1",
			"--port", strconv.Itoa(s.port),
			"--dir", s.dir,
			"--save", "",
			"--appendonly", "no",
			// A replica writes what its master sends it to a file and would come back with it after a kill.
			"--rdb-del-sync-files", "yes",
			"--repl-diskless-sync-delay", "0",
			"--repl-ping-replica-period", "1",
		}, args...)
		for i, arg := range args[:max(0, len(args)-1)] {
			if arg == "--requirepass" {
				s.password = args[i+1]
			}
		}
		return nil
	}
}

// Addr is the server's host:port.
func (s *Server) Addr() string { return loopback(s.port) }

// URL is the server's redis:// URL, with the password given as --requirepass, if any.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.Addr()}
	if s.password != "" {
		u.User = url.UserPassword("", s.password)
	}
	return u.String()
}

// Client is a new client of the server with go-redis's defaults, which the opts may change. It is closed with the test.
func (s *Server) Client(opts ...func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: s.Addr(), Password: s.password}
	for _, opt := range opts {
		opt(o)
	}
	return closeWith(s.tb, redis.NewClient(o))
}

// User makes an ACL user with the rules ("~app:*", "+get"), or gives one other rules, and returns the setting that has
// a client log in as that user: s.Client(s.User("app", "secret", "~app:*", "+get")). A Restart forgets all users.
func (s *Server) User(name, password string, rules ...string) func(*redis.Options) {
	s.tb.Helper()
	args := []any{"ACL", "SETUSER", name, "reset", "on", ">" + password}
	for _, rule := range rules {
		args = append(args, rule)
	}
	s.must("set ACL user", s.control(func(ctx context.Context, c *redis.Client) error {
		return c.Do(ctx, args...).Err()
	}))
	return func(o *redis.Options) { o.Username, o.Password = name, password }
}

// PID is the process id of the server, 0 while it is killed or has died by itself.
func (s *Server) PID() int {
	if proc := s.running(); proc != nil && proc.alive() {
		return proc.process.Pid
	}
	return 0
}

// Pause stops the process with SIGSTOP and returns when it has stopped: connections are still accepted, by the kernel,
// but nothing is answered.
func (s *Server) Pause() {
	s.tb.Helper()
	s.must("pause", s.onProc((*child).pause))
}

// Resume lets a paused process run on. What it was sent meanwhile is answered now.
func (s *Server) Resume() {
	s.tb.Helper()
	s.must("resume", s.onProc((*child).resume))
}

// Kill ends the process with SIGKILL, paused or not, and returns when it is gone: connections are refused. Killing a
// killed server does nothing.
func (s *Server) Kill() {
	s.tb.Helper()
	s.must("kill", s.kill())
}

// Restart starts a killed server again, on the same port, and returns when it answers. Its data is gone. A server that
// still runs is killed first.
func (s *Server) Restart() {
	s.tb.Helper()
	s.must("restart", s.restart())
}

// Version is what the server says that it is: "redis 7.0.15", "valkey 8.0.1".
func (s *Server) Version() string {
	s.tb.Helper()
	version := ""
	s.must("version", s.control(func(ctx context.Context, c *redis.Client) error {
		fields, err := infoOf(ctx, c, "server")
		for _, name := range []string{"redis", "redict", "valkey"} { // the others name a redis that they are like, too
			if v, ok := fields[name+"_version"]; ok {
				version = name + " " + v
			}
		}
		return err
	}))
	return version
}

// FlushAll empties the server.
func (s *Server) FlushAll() {
	s.tb.Helper()
	s.must("flush", s.control(func(ctx context.Context, c *redis.Client) error {
		return c.FlushAll(ctx).Err()
	}))
}

// CommandStats returns how often each command was called since the start or ResetStats, by its name in lower case: get,
// set, evalsha, config|get. This package's own calls count too (hello, info, config|resetstat); calls from a script
// count besides the script's.
func (s *Server) CommandStats() map[string]int64 {
	s.tb.Helper()
	calls := make(map[string]int64)
	s.must("command stats", s.control(func(ctx context.Context, c *redis.Client) error {
		fields, err := infoOf(ctx, c, "commandstats")
		for name, stat := range fields { // cmdstat_get:calls=3,usec=12,...
			command, ok := strings.CutPrefix(name, "cmdstat_")
			if !ok {
				continue
			}
			count, _, _ := strings.Cut(strings.TrimPrefix(stat, "calls="), ",")
			n, perr := strconv.ParseInt(count, 10, 64)
			err = errors.Join(err, perr)
			calls[command] = n
		}
		return err
	}))
	return calls
}

// ResetStats sets the counts of CommandStats to zero.
func (s *Server) ResetStats() {
	s.tb.Helper()
	s.must("reset stats", s.control(func(ctx context.Context, c *redis.Client) error {
		return c.ConfigResetStat(ctx).Err()
	}))
}

func (s *Server) must(operation string, err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatalf("redistest: %s server %s: %v", operation, s.Addr(), err)
	}
}

func (s *Server) onProc(do func(*child) error) error {
	proc := s.running()
	if proc == nil {
		return errors.New("it is killed")
	}
	return do(proc)
}

func (s *Server) restart() error {
	if err := s.kill(); err != nil {
		return err
	}
	// The kernel may take a moment to give the port of a killed process free.
	return poll(startLimit, func() error {
		err := s.start()
		if errors.Is(err, errPortTaken) {
			return fmt.Errorf("port taken: %v", err) //nolint:errorlint // not %w: here it is worth another try
		}
		return err
	})
}

func (s *Server) kill() error {
	proc := s.running()
	s.setProc(nil)
	if proc == nil {
		return nil
	}
	return proc.kill()
}

// cleanup kills the server, and says so if it had died by itself: the failure that the test then reports is a riddle.
func (s *Server) cleanup() {
	if proc := s.running(); proc != nil && !proc.alive() {
		s.tb.Logf("redistest: %s: %v", s.tb.Name(), s.whyDied())
	}
	if err := s.kill(); err != nil {
		s.tb.Logf("redistest: %s: kill server %s: %v", s.tb.Name(), s.Addr(), err)
	}
}

func (s *Server) running() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

func (s *Server) setProc(proc *child) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = proc
}
