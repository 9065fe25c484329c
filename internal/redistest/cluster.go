package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	clusterSlots = 16384
	// nodeTimeout is how long a node may be silent before it counts as failed, then a replica takes over within about
	// two seconds. Low, so that a failover is quick to test, and not lower, or a busy machine would cause one by itself.
	nodeTimeout = 2 * time.Second
	// formLimit bounds the wait until all nodes agree. A new node takes no writes in its first two seconds anyway.
	formLimit = 30 * time.Second
)

// Cluster is a Redis Cluster of redis-server processes.
type Cluster struct {
	tb      TB
	nodes   []*Server // the masters, by their slots, then the replicas: those of the first master, of the second, ...
	masters int
	proxies []*Proxy // of the nodes, or none
}

// StartCluster runs a cluster until the test ends. All slots are served, spread evenly over the masters in order, and
// all replicas are linked when it returns. For a failover there must be at least three masters, which vote.
func StartCluster(tb TB, masters, replicasPerMaster int) *Cluster {
	tb.Helper()
	if masters < 1 || replicasPerMaster < 0 {
		tb.Fatalf("redistest: no cluster has %d masters with %d replicas", masters, replicasPerMaster)
	}
	nodes := launchAll(tb, masters*(1+replicasPerMaster), clusterNode)
	c := &Cluster{tb: tb, nodes: nodes, masters: masters}
	if err := c.form(replicasPerMaster); err != nil {
		tb.Fatalf("redistest: form cluster: %v", err)
	}
	return c
}

func clusterNode(s *Server) (err error) {
	// The usual bus port, port+10000, may be taken or beyond the last port.
	if s.busPort, err = freePort(); err != nil {
		return err
	}
	return standalone(
		"--cluster-enabled", "yes",
		"--cluster-port", strconv.Itoa(s.busPort),
		"--cluster-announce-ip", "127.0.0.1", // a node that has met nobody does not know its address
		"--cluster-node-timeout", strconv.FormatInt(nodeTimeout.Milliseconds(), 10),
		"--cluster-replica-validity-factor", "0", // a replica may always stand for election
		"--cluster-allow-replica-migration", "no", // and stays with its master
	)(s)
}

// Nodes are all servers of the cluster: those of Masters, then the replicas, those of the first master first.
func (c *Cluster) Nodes() []*Server { return slices.Clone(c.nodes) }

// Masters are the servers that were made masters, in the order of their slots. A failover does not change the list.
func (c *Cluster) Masters() []*Server { return slices.Clone(c.nodes[:c.masters]) }

// Proxies puts a proxy before each node, in the order of Nodes, and returns when all nodes announce the proxies'
// ports, so that clients, those that were there before too, go through them. Replicas follow their masters through
// them as well; the bus, on which nodes hear of each other, is left alone.
func (c *Cluster) Proxies() []*Proxy {
	c.tb.Helper()
	for _, s := range c.nodes {
		p := StartProxy(c.tb, s.Addr())
		c.proxies = append(c.proxies, p)
		_, port, _ := net.SplitHostPort(p.Addr())
		s.must("announce a proxy", s.control(func(ctx context.Context, r *redis.Client) error {
			return r.ConfigSet(ctx, "cluster-announce-port", port).Err()
		}))
	}
	for _, s := range c.nodes {
		s.must("announce the proxies", poll(formLimit, func() error { return s.announces(c.Addrs(), c.masters) }))
	}
	return slices.Clone(c.proxies)
}

// announces is nil when the node, whole in its cluster, sends clients to addrs and nowhere else.
func (s *Server) announces(addrs []string, masters int) error {
	if err := s.inCluster(len(addrs), masters); err != nil {
		return err
	}
	return s.control(func(ctx context.Context, r *redis.Client) error {
		//lint:ignore SA1019 as in inCluster
		ranges, err := r.ClusterSlots(ctx).Result() //nolint:staticcheck // as in inCluster
		for _, part := range ranges {
			for _, node := range part.Nodes {
				if !slices.Contains(addrs, node.Addr) {
					err = errors.Join(err, fmt.Errorf("%s announces %s", s.Addr(), node.Addr))
				}
			}
		}
		return err
	})
}

// Addrs are the addresses of all nodes, or of their proxies if there are any, in the order of Nodes.
func (c *Cluster) Addrs() []string {
	if c.proxies == nil {
		return addrsOf(c.nodes)
	}
	addrs := make([]string, len(c.proxies))
	for i, p := range c.proxies {
		addrs[i] = p.Addr()
	}
	return addrs
}

// URL is redis-cluster://host:port,host:port,... with all nodes.
func (c *Cluster) URL() string { return "redis-cluster://" + strings.Join(c.Addrs(), ",") }

// Client is a new client of the cluster with go-redis's defaults, which the opts may change. It is
// closed with the test.
func (c *Cluster) Client(opts ...func(*redis.ClusterOptions)) *redis.ClusterClient {
	o := &redis.ClusterOptions{Addrs: c.Addrs()}
	for _, opt := range opts {
		opt(o)
	}
	return closeWith(c.tb, redis.NewClusterClient(o))
}

// FailOverAfter has the living nodes take a master for down that has been silent for d. It is 2 s at
// the start; a test that wants a killed master to stay the master for now says more, and less later.
func (c *Cluster) FailOverAfter(d time.Duration) {
	c.tb.Helper()
	for _, s := range c.nodes {
		if s.PID() == 0 {
			continue
		}
		s.must("set cluster-node-timeout", s.control(func(ctx context.Context, r *redis.Client) error {
			return r.ConfigSet(ctx, "cluster-node-timeout", strconv.FormatInt(d.Milliseconds(), 10)).Err()
		}))
	}
}

// form makes a cluster of single nodes, as redis-cli --cluster create does it: slots, epochs, acquaintance, replicas.
func (c *Cluster) form(replicasPerMaster int) error {
	for i, s := range c.Masters() {
		if err := s.control(func(ctx context.Context, r *redis.Client) error {
			from, to := i*clusterSlots/c.masters, (i+1)*clusterSlots/c.masters-1
			if err := r.ClusterAddSlotsRange(ctx, from, to).Err(); err != nil {
				return err
			}
			// Each master's own epoch: with equal ones they would have to settle the order first.
			return r.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err()
		}); err != nil {
			return fmt.Errorf("give slots to %s: %w", s.Addr(), err)
		}
	}

	for i, s := range c.nodes { // everyone meets everyone: hearsay alone would take longer
		if err := s.control(func(ctx context.Context, r *redis.Client) error {
			for _, other := range c.nodes[:i] {
				if err := r.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", other.port, other.busPort).Err(); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("introduce %s: %w", s.Addr(), err)
		}
	}

	for i, s := range c.nodes[c.masters:] {
		if err := s.replicate(c.nodes[i/replicasPerMaster]); err != nil {
			return fmt.Errorf("make %s a replica: %w", s.Addr(), err)
		}
	}

	for _, s := range c.nodes {
		if err := poll(formLimit, func() error { return s.inCluster(len(c.nodes), c.masters) }); err != nil {
			return fmt.Errorf("%s: %w", s.Addr(), err)
		}
	}
	return nil
}

// replicate makes the node a replica of the master, as soon as the two have met.
func (s *Server) replicate(master *Server) error {
	var id string
	if err := master.control(func(ctx context.Context, r *redis.Client) (err error) {
		id, err = r.ClusterMyID(ctx).Result()
		return err
	}); err != nil {
		return err
	}
	return poll(formLimit, func() error {
		return s.control(func(ctx context.Context, r *redis.Client) error {
			return r.ClusterReplicate(ctx, id).Err()
		})
	})
}

// inCluster is nil when the node sees the cluster complete: state ok, a link to its master if it is a replica, and in
// CLUSTER SLOTS, which is what clients go by, every slot with its master and replicas.
func (s *Server) inCluster(nodes, masters int) error {
	return s.control(func(ctx context.Context, r *redis.Client) error {
		state, err := r.ClusterInfo(ctx).Result()
		if err != nil {
			return err
		}
		if !strings.Contains(state, "cluster_state:ok") {
			return errors.New("cluster_state is not ok")
		}

		replication, err := infoOf(ctx, r, "replication")
		if err != nil {
			return err
		}
		if replication["role"] == "slave" && replication["master_link_status"] != "up" {
			return errors.New("no link to its master")
		}

		//lint:ignore SA1019 CLUSTER SHARDS needs Redis 7, and says nothing that is needed here beyond this
		ranges, err := r.ClusterSlots(ctx).Result() //nolint:staticcheck // Redis 6 knows no CLUSTER SHARDS
		if err != nil {
			return err
		}
		var slots, serving int
		for _, part := range ranges {
			slots += part.End - part.Start + 1
			serving += len(part.Nodes)
		}
		if slots != clusterSlots || len(ranges) != masters || serving != nodes {
			return fmt.Errorf("knows %d slots in %d ranges on %d nodes", slots, len(ranges), serving)
		}
		return nil
	})
}

func addrsOf(servers []*Server) []string {
	addrs := make([]string, len(servers))
	for i, s := range servers {
		addrs[i] = s.Addr()
	}
	return addrs
}
