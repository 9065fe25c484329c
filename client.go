package readthrough

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/mux"
)

// The findings: what a Cache notices of Redis, as its client reaches it, that breaks a promise or
// costs more than it need.
var (
	errNoDeadlines = errors.New("the client ignores the deadlines of contexts, so that each hit is handed to " +
		"another goroutine and back, which costs a lone caller as much again: set ContextTimeoutEnabled, or use Open")
	errReplica = errors.New("the client talks to a replica, which may still have what was invalidated, " +
		"and stores nothing: connect it to the primary")
	errSplit = errors.New("a key and its lease are on different servers, so that no load that was stored is found: " +
		"have the proxy place keys by what is in braces (twemproxy: hash_tag: \"{}\")")
)

// checkClient refuses clients that answer from elsewhere than the primary, as far as that shows
// without asking Redis. What does not is found in use: see server.
func checkClient(client redis.UniversalClient) error {
	client = innermost(client)
	if v := reflect.ValueOf(client); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return errors.New("the client is nil")
	}
	switch client := client.(type) {
	case *redis.Client:
		o := client.Options()
		if o.ClientSideCache != nil || o.ClientSideCacheConfig != nil {
			return errors.New("the client has a client-side cache, which may serve what was invalidated")
		}
	case *redis.ClusterClient:
		o := client.Options()
		if o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return errors.New("the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), " +
				"which may still have what was invalidated")
		}
	case *redis.Ring:
		return errors.New("a redis.Ring loses invalidations: while a shard is away they go to another, " +
			"and it comes back with what was invalidated; use a cluster")
	}
	return nil
}

// checkDeadlines says of a client that ignores deadlines what that costs.
func (c *Cache) checkDeadlines(client redis.UniversalClient) {
	if single, ok := innermost(client).(*redis.Client); ok && !single.Options().ContextTimeoutEnabled {
		c.find("", errNoDeadlines)
	}
}

// innermost returns the client that the user's type embeds, if it does, or client itself.
func innermost(client redis.UniversalClient) redis.UniversalClient {
	v := reflect.Indirect(reflect.ValueOf(client))
	if v.Kind() != reflect.Struct {
		return client
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous && field.IsExported() && field.Type.Implements(reflect.TypeFor[redis.UniversalClient]()) {
			inner, _ := v.Field(i).Interface().(redis.UniversalClient)
			return innermost(inner)
		}
	}
	return client
}

// read returns the bytes of the entry at key, and has size learn how many. Its errors are those of
// mux.Get.
func (c *Cache) read(ctx context.Context, key string, size *mux.ReplySize) ([]byte, error) {
	if !c.settings.failoverSafe {
		return c.mux.Get(ctx, key, size)
	}
	return c.readMany(ctx, []string{key}, size)(0)
}

// readMany is read for many keys. It returns a func of what became of the ith.
func (c *Cache) readMany(ctx context.Context, keys []string, size *mux.ReplySize) func(i int) ([]byte, error) {
	send := func(ctx context.Context, cmds ...redis.Cmder) error { return c.mux.GetMany(ctx, size, cmds) }
	if c.settings.failoverSafe {
		found := c.leases.Get(ctx, send, keys...)
		return func(i int) ([]byte, error) { return found[i].Entry, found[i].Err }
	}
	gets := make([]redis.Cmder, len(keys))
	for i, key := range keys {
		gets[i] = redis.NewStringCmd(ctx, "get", key)
	}
	err := send(ctx, gets...)
	return func(i int) ([]byte, error) {
		if lost := mux.ErrorOf(err, i); lost != nil {
			return nil, lost
		}
		return gets[i].(*redis.StringCmd).Bytes()
	}
}

// server is what a Cache finds out of the server that its client reaches.
type server struct {
	askRole func(ctx context.Context) *redis.Cmd // nil: the client of a cluster finds the primaries by itself
	asked   atomic.Bool                          // whether askRole was called, or is being
	lost    atomic.Int32                         // calls in a row without an answer
	found   sync.Map                             // the findings that were noted
}

// maxLostRoles is how often the role is asked for in vain: some proxies hang up instead of answering.
const maxLostRoles = 3

// newServer returns what is known of the server of client without asking it.
func newServer(client redis.UniversalClient) *server {
	s := new(server)
	if single, ok := innermost(client).(*redis.Client); ok {
		s.askRole = func(ctx context.Context) *redis.Cmd { return single.Do(ctx, "role") }
	}
	return s
}

// checkRole follows a hit or a write: a replica that takes writes refuses none, and entries of a
// replica may only be read. As a rule the server has said its role when it was connected to; of one
// to which there were connections before it is asked for, in the background and once.
func (c *Cache) checkRole() {
	switch role := c.mux.Role(); {
	case role == mux.Primary || c.server.askRole == nil:
	case role == mux.Replica:
		c.find("", errReplica)
	default:
		c.findRole()
	}
}

// findRole asks the server for its role, by a command that shares no round trip, unless it was asked.
func (c *Cache) findRole() {
	s := c.server
	if s.asked.Load() || c.closing.phase.Load() != open || s.asked.Swap(true) {
		return
	}
	c.work.Go(func() { // ends with the client's own timeouts
		ctx, cancel := context.WithTimeout(context.Background(), c.settings.redisTimeout)
		defer cancel()
		role, err := s.askRole(ctx).Slice()
		var reply redis.Error
		switch {
		case err == nil && len(role) > 0 && role[0] == "slave":
			c.find("", errReplica)
		case err != nil && !errors.As(err, &reply) && s.lost.Add(1) < maxLostRoles:
			s.asked.Store(false)
		}
	})
}

// recovered follows an outage, after which the server may be another one.
func (s *server) recovered() {
	s.lost.Store(0)
	s.asked.Store(false)
}

// writer sends the commands of the leases, and learns from the answers what the server is.
type writer struct{ c *Cache }

func (w writer) Do(ctx context.Context, cmds ...redis.Cmder) error {
	return w.heard(cmds, w.c.mux.Do(ctx, cmds...))
}

func (w writer) Force(ctx context.Context, cmds ...redis.Cmder) error {
	return w.heard(cmds, w.c.mux.Force(ctx, cmds...))
}

// heard looks for the refusal of a replica in what became of a round trip, and returns err. The
// client may try a write that was refused until the time is over.
func (w writer) heard(cmds []redis.Cmder, err error) error {
	for i, cmd := range cmds {
		lost := mux.ErrorOf(err, i)
		if redis.HasErrorPrefix(lost, "READONLY") || lost == nil && redis.HasErrorPrefix(cmd.Err(), "READONLY") {
			w.c.find("", errReplica)
			break
		}
	}
	w.c.checkRole()
	return err
}

// missed follows a lookup that found nothing, and looks into it if this process has stored the key.
// Any other reason than a proxy that places keys by hash is a good one.
func (c *Cache) missed(key string) {
	if c.leases.Misses(key) {
		c.work.Go(func() { // ends within WithRedisTimeout
			if c.leases.IsSplit(context.Background(), key) {
				c.find(key, errSplit)
			}
		})
	}
}

// find notes a finding the first time that it is made.
func (c *Cache) find(key string, err error) {
	if _, before := c.server.found.LoadOrStore(err, true); !before {
		c.meter.noteApart(context.Background(), EventFinding, key, 0, err)
	}
}
