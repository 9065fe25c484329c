package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// startLimit bounds the wait for a server's first answer: generous, for a machine busy with other tests.
	startLimit = 20 * time.Second
	// portAttempts is how often a port may be lost to someone else before a start fails.
	portAttempts = 10
	// controlLimit bounds one command of this package's own.
	controlLimit = 5 * time.Second
)

// configure sets what the server is to be (its args, and where they need it a bus port) for the port s.port. It is
// called again for every port that is tried.
type configure func(s *Server) error

// launchAll starts n servers at once, since waiting for them one after the other would be most of a cluster's start.
func launchAll(tb TB, n int, conf configure) []*Server {
	tb.Helper()
	return launchBinary(tb, requireRedis(tb), n, conf)
}

// launchBinary is launchAll for servers of that binary.
func launchBinary(tb TB, binary string, n int, conf configure) []*Server {
	tb.Helper()
	servers := make([]*Server, n)
	for i := range servers {
		servers[i] = &Server{tb: tb, binary: binary, dir: tb.TempDir()}
		tb.Cleanup(servers[i].cleanup) // first of all: whatever happens from here on, it is killed
	}

	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { errs[i] = s.launch(conf) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		tb.Fatalf("redistest: start %s: %v", binary, err)
	}
	return servers
}

// requireRedis finds the server's binary, or ends the test.
func requireRedis(tb TB) string {
	tb.Helper()
	binary, err := exec.LookPath("redis-server")
	if err == nil {
		return binary
	}
	if os.Getenv("READTHROUGH_REQUIRE_REDIS") == "1" {
		tb.Fatalf("redistest: READTHROUGH_REQUIRE_REDIS=1, but: %v", err)
	}
	tb.Skipf("redistest: %v", err)
	return ""
}

// launch starts the server on a free port. Between finding it and binding it someone may be faster: then on another.
func (s *Server) launch(conf configure) error {
	var err error
	for range portAttempts {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = conf(s); err != nil {
			return err
		}
		if err = s.start(); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// start runs the server with s.args and returns when it answers.
func (s *Server) start() error {
	log, err := os.Create(s.logPath())
	if err != nil {
		return err
	}
	defer log.Close() // the server has its own descriptor
	cmd := exec.Command(s.binary, s.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	proc, err := startChild(cmd)
	if err != nil {
		return err
	}
	s.setProc(proc)

	err = poll(startLimit, func() error {
		if !proc.alive() {
			return s.whyDied()
		}
		return s.answersAs(proc.process.Pid)
	})
	if err != nil {
		s.setProc(nil)
		return errors.Join(err, proc.kill())
	}
	return nil
}

// answersAs asks whether the server with that pid answers on the port: another program, even another redis-server,
// may have been faster to bind it.
func (s *Server) answersAs(pid int) error {
	// go-redis logs every refused dial, and a start has a few: it is asked only when somebody listens.
	conn, err := net.DialTimeout("tcp", s.Addr(), controlLimit)
	if err != nil {
		return err
	}
	_ = conn.Close()
	return s.control(func(ctx context.Context, c *redis.Client) error {
		fields, err := infoOf(ctx, c, "server")
		if err == nil && fields["process_id"] != strconv.Itoa(pid) {
			err = fmt.Errorf("%s answers, not process %d", fields["process_id"], pid)
		}
		return err
	})
}

// whyDied is the error of a server that ended by itself: the end of what it printed.
func (s *Server) whyDied() error {
	const enough = 2000
	log, err := os.ReadFile(s.logPath())
	if err != nil {
		return fmt.Errorf("%w: %s ended: %w", errHopeless, s.binary, err)
	}
	reason := errHopeless
	if bytes.Contains(log, []byte("Address already in use")) {
		reason = errPortTaken
	}
	return fmt.Errorf("%w: %s %s ended:\n%s", reason, s.binary, s.Addr(), log[max(0, len(log)-enough):])
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "redis.log") }

// control runs this package's own commands, on a connection of their own: one that lasts would be broken by the next
// Kill, and would show in what the test measures.
func (s *Server) control(run func(ctx context.Context, c *redis.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), controlLimit)
	defer cancel()
	c := redis.NewClient(s.controlOptions())
	defer c.Close()
	return run(ctx, c)
}

// controlOptions make a client that does what it is told and nothing else: no retries, no introductions.
func (s *Server) controlOptions() *redis.Options {
	return &redis.Options{
		Addr:                  s.Addr(),
		Password:              s.password,
		ContextTimeoutEnabled: true,
		MaxRetries:            -1,
		DialerRetries:         1,
		PoolSize:              2, // with 1, a single refused dial would start a goroutine that outlives Close by a second
		PipelinePoolSize:      -1,
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
}

// infoOf returns the fields of a section of INFO.
func infoOf(ctx context.Context, c *redis.Client, section string) (map[string]string, error) {
	text, err := c.Info(ctx, section).Result()
	if err != nil {
		return nil, err
	}
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}
