package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	masterName = "fleet"
	sentinels  = 3
	quorum     = 2
	// downAfter is how long the master may be silent before a sentinel counts it as down. Not lower, or a busy
	// machine would cause a failover by itself.
	downAfter = 700 * time.Millisecond
	// meetLimit bounds the wait until the sentinels know the servers and each other.
	meetLimit = 30 * time.Second
	// failoverLimit bounds a failover: normally 3 s, and 6 s more for each election that nobody wins.
	failoverLimit = 30 * time.Second
)

// Sentinel is a Redis master with a replica, watched by three sentinels of which two must agree.
type Sentinel struct {
	tb        TB
	servers   []*Server // the first master, and its replica
	sentinels []*Server
}

// StartSentinel runs master, replica and sentinels until the test ends. When it returns, the sentinels know them all
// and each other.
func StartSentinel(tb TB) *Sentinel {
	tb.Helper()
	master := launchAll(tb, 1, standalone())[0]
	replica := launchAll(tb, 1, standalone("--replicaof", "127.0.0.1 "+fmt.Sprint(master.port)))[0]
	// The sentinels come last, when there is a replica to be found: what they missed they'd ask for again much later.
	if err := poll(meetLimit, func() error { return replica.linkedTo(master) }); err != nil {
		tb.Fatalf("redistest: replica %s: %v", replica.Addr(), err)
	}

	s := &Sentinel{tb: tb, servers: []*Server{master, replica}}
	s.sentinels = launchAll(tb, sentinels, sentinelOf(master))
	for _, one := range s.sentinels {
		if err := one.hurry(); err != nil {
			tb.Fatalf("redistest: sentinel %s: %v", one.Addr(), err)
		}
	}
	if err := poll(meetLimit, s.ready); err != nil {
		tb.Fatalf("redistest: sentinels: %v", err)
	}
	return s
}

// sentinelOf configures a sentinel of the master. A sentinel insists on a file, which it keeps its state in.
func sentinelOf(master *Server) configure {
	return func(s *Server) error {
		file := filepath.Join(s.dir, "sentinel.conf")
		s.args = []string{file, "--sentinel"}
		return os.WriteFile(file, fmt.Appendf(nil, `bind 127.0.0.1
port %[1]d
dir "%[2]s"
sentinel monitor %[3]s 127.0.0.1 %[4]d %[5]d
sentinel down-after-milliseconds %[3]s %[6]d
sentinel failover-timeout %[3]s 3000
`, s.port, s.dir, masterName, master.port, quorum, downAfter.Milliseconds()), 0o600)
	}
}

// hurry shortens the periods in which a sentinel asks and tells. Left alone it introduces itself every 2 s, asks for
// replicas every 10 s, and stands back for 30 s when its own clock has jumped, as on a busy machine.
func (s *Server) hurry() error {
	return s.control(func(ctx context.Context, c *redis.Client) error {
		return c.Do(ctx, "SENTINEL", "DEBUG",
			"publish-period", "100", "info-period", "200", "ask-period", "100", "tilt-period", "1000").Err()
	})
}

// MasterName is the name under which the sentinels watch the master.
func (s *Sentinel) MasterName() string { return masterName }

// Servers are the first master and its replica. A failover does not change the list.
func (s *Sentinel) Servers() []*Server { return slices.Clone(s.servers) }

// Addrs are the addresses of the sentinels.
func (s *Sentinel) Addrs() []string { return addrsOf(s.sentinels) }

// URL is redis-sentinel://host:port,.../0?master=name, with the addresses of the sentinels.
func (s *Sentinel) URL() string {
	return "redis-sentinel://" + strings.Join(s.Addrs(), ",") + "/0?master=" + masterName
}

// Client is a new client that follows the master, with go-redis's defaults, which the opts may change. It is closed
// with the test.
func (s *Sentinel) Client(opts ...func(*redis.FailoverOptions)) *redis.Client {
	o := &redis.FailoverOptions{MasterName: masterName, SentinelAddrs: s.Addrs()}
	for _, opt := range opts {
		opt(o)
	}
	return closeWith(s.tb, redis.NewFailoverClient(o))
}

// Master is the server that all sentinels take for the master now. While they do not agree, it waits.
func (s *Sentinel) Master() *Server {
	s.tb.Helper()
	var master *Server
	s.must("find the master", poll(failoverLimit, func() (err error) {
		master, err = s.agreed()
		return err
	}))
	return master
}

// FailOverAfter has the sentinels take a master for down that has been silent for d. It is 700 ms at
// the start; a test that wants a killed master to stay the master for now says more, and less later.
func (s *Sentinel) FailOverAfter(d time.Duration) {
	s.tb.Helper()
	for _, one := range s.sentinels {
		s.must("set down-after-milliseconds", one.control(func(ctx context.Context, c *redis.Client) error {
			return c.Do(ctx, "SENTINEL", "SET", masterName, "down-after-milliseconds", d.Milliseconds()).Err()
		}))
	}
}

// Failover kills the master and returns when all sentinels have agreed on the other server, and that is a master. For
// another Failover the killed server must be restarted first: Failover then waits until it is a replica.
func (s *Sentinel) Failover() {
	s.tb.Helper()
	s.must("prepare a failover", poll(failoverLimit, s.ready))
	old := s.Master()
	old.Kill()
	s.must("failover", poll(failoverLimit, func() error {
		master, err := s.agreed()
		if err == nil && master == old {
			err = errors.New("the sentinels hold on to the killed master")
		}
		if err != nil {
			return err
		}
		return master.control(func(ctx context.Context, c *redis.Client) error {
			replication, err := infoOf(ctx, c, "replication")
			if err == nil && replication["role"] != "master" {
				err = errors.New("the new master does not know yet")
			}
			return err
		})
	}))
}

func (s *Sentinel) must(operation string, err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatalf("redistest: sentinel: %s: %v", operation, err)
	}
}

// agreed is the server that every sentinel takes for the master.
func (s *Sentinel) agreed() (*Server, error) {
	var addr string
	for _, one := range s.sentinels {
		fields, err := one.watched()
		if err != nil {
			return nil, err
		}
		said := fields["ip"] + ":" + fields["port"]
		if addr != "" && said != addr {
			return nil, fmt.Errorf("the sentinels disagree: %s, %s", addr, said)
		}
		addr = said
	}
	i := slices.Index(addrsOf(s.servers), addr)
	if i < 0 {
		return nil, fmt.Errorf("unknown master %s", addr)
	}
	return s.servers[i], nil
}

// ready is nil when every sentinel is fit for a failover: it sees a healthy master, a linked replica and its peers.
func (s *Sentinel) ready() error {
	if _, err := s.agreed(); err != nil {
		return err
	}
	for _, one := range s.sentinels {
		fields, err := one.watched()
		if err != nil {
			return err
		}
		if fields["flags"] != "master" || fields["num-other-sentinels"] != fmt.Sprint(sentinels-1) {
			return fmt.Errorf("%s sees a %s and %s others", one.Addr(), fields["flags"], fields["num-other-sentinels"])
		}
		if err := one.sentinel(func(ctx context.Context, c *redis.SentinelClient) error {
			replicas, err := c.Replicas(ctx, masterName).Result()
			if err != nil {
				return err
			}
			if len(replicas) != 1 || replicas[0]["flags"] != "slave" || replicas[0]["master-link-status"] != "ok" {
				return fmt.Errorf("%s has not one linked replica", one.Addr())
			}
			return c.CkQuorum(ctx, masterName).Err() // the peers are reachable
		}); err != nil {
			return err
		}
	}
	return nil
}

// watched is what a sentinel knows of the master.
func (s *Server) watched() (fields map[string]string, err error) {
	err = s.sentinel(func(ctx context.Context, c *redis.SentinelClient) error {
		fields, err = c.Master(ctx, masterName).Result()
		return err
	})
	return fields, err
}

// sentinel is control for a server that is a sentinel.
func (s *Server) sentinel(run func(ctx context.Context, c *redis.SentinelClient) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), controlLimit)
	defer cancel()
	c := redis.NewSentinelClient(s.controlOptions())
	defer c.Close()
	return run(ctx, c)
}

// linkedTo is nil when the server is a replica of the master and up to date.
func (s *Server) linkedTo(master *Server) error {
	return s.control(func(ctx context.Context, c *redis.Client) error {
		replication, err := infoOf(ctx, c, "replication")
		port, link := replication["master_port"], replication["master_link_status"]
		if err == nil && (port != fmt.Sprint(master.port) || link != "up") {
			err = errors.New("no link to its master")
		}
		return err
	})
}
