package readthrough

import (
	"context"
	"errors"
	"reflect"

	"github.com/redis/go-redis/v9"
)

// The findings: what a Cache notices of Redis that breaks a promise.
var (
	errReplica = errors.New("the client talks to a replica, which may still have what was invalidated, and stores nothing: connect it to the primary")
	errSplit   = errors.New("a key and its lease are on different servers, so that nothing stored is found: have the proxy place keys by what is in braces (twemproxy: hash_tag: \"{}\")")
)

// checkClient refuses clients that answer from elsewhere than the primary, as far as that shows
// without asking Redis. What does not, noticeReplica and missed find.
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
			return errors.New("the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), which may still have what was invalidated")
		}
	case *redis.Ring:
		return errors.New("a redis.Ring loses invalidations: while a shard is away they go to another, and it comes back with what was invalidated; use a cluster")
	}
	return nil
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

// read returns the bytes of the entry at key. Its errors are those of mux.Get.
func (c *Cache) read(ctx context.Context, key string) ([]byte, error) {
	if !c.settings.failoverSafe {
		return c.mux.Get(ctx, key)
	}
	get := c.newGet(ctx, key)
	if err := c.readMany(ctx, []redis.Cmder{get}); err != nil {
		return nil, err
	}
	return get.Bytes()
}

// newGet returns the command that asks for the entry at key, for readMany to send.
func (c *Cache) newGet(ctx context.Context, key string) *redis.StringCmd {
	if c.settings.failoverSafe {
		return c.leases.NewGet(ctx, key)
	}
	return redis.NewStringCmd(ctx, "get", key)
}

// readMany sends commands of newGet. Its error means what that of mux.Do does.
func (c *Cache) readMany(ctx context.Context, gets []redis.Cmder) error {
	if c.settings.failoverSafe {
		return c.leases.Get(ctx, gets...)
	}
	return c.mux.Do(ctx, gets...)
}

// writer sends the commands of the leases, and learns from them what the server is.
type writer struct{ c *Cache }

func (w writer) Do(ctx context.Context, cmds ...redis.Cmder) error {
	return w.c.send(ctx, w.c.mux.Do, cmds)
}

func (w writer) Force(ctx context.Context, cmds ...redis.Cmder) error {
	return w.c.send(ctx, w.c.mux.Force, cmds)
}

// roleState is what a Cache knows of its server's role.
type roleState = int32

const (
	roleUnknown roleState = iota // the next write, or hit, asks for it
	roleAsked                    // it is known, or being asked for
	roleMissed                   // Redis has not answered: the next lookup that it answers asks again
	roleMoot                     // the client of a cluster finds the primaries by itself
)

// send sends cmds by do. With the first of them, and the first after each outage, it asks the server
// for its role: a replica that takes writes refuses none. Of one that does not, the refusal tells.
func (c *Cache) send(ctx context.Context, do func(context.Context, ...redis.Cmder) error, cmds []redis.Cmder) error {
	if !c.role.CompareAndSwap(roleUnknown, roleAsked) {
		err := do(ctx, cmds...)
		c.noticeReplica(err, cmds)
		return err
	}
	role := redis.NewSliceCmd(ctx, "role")
	err := do(ctx, append(cmds[:len(cmds):len(cmds)], role)...)
	if err != nil { // go-redis may have tried a write that was refused until the time was over
		c.spawn(c.askRole)
		return err
	}
	c.noticeReplica(nil, append(cmds, role))
	return nil
}

// askRole asks the server for its role, and for nothing else.
func (c *Cache) askRole() {
	role := redis.NewSliceCmd(context.Background(), "role")
	err := c.mux.Do(context.Background(), role)
	if err != nil {
		c.role.CompareAndSwap(roleAsked, roleMissed)
	}
	c.noticeReplica(err, []redis.Cmder{role})
}

// lookedUp follows a lookup that Redis has answered. It asks for the server's role in the background
// where a write cannot: before the first one, for entries of a replica may only be read, and where
// the answer to a write was lost.
func (c *Cache) lookedUp(hit bool) {
	state := c.role.Load()
	if (state == roleMissed || state == roleUnknown && hit) && c.role.CompareAndSwap(state, roleAsked) {
		c.spawn(c.askRole) // ends within WithRedisTimeout
	}
}

// noticeReplica looks for an answer of a replica in the results of a round trip.
func (c *Cache) noticeReplica(err error, cmds []redis.Cmder) {
	found := redis.HasErrorPrefix(err, "READONLY")
	if err != nil {
		cmds = nil // they may still be under way
	}
	for _, cmd := range cmds {
		role, ok := cmd.(*redis.SliceCmd)
		isReplica := ok && cmd.Name() == "role" && len(role.Val()) > 0 && role.Val()[0] == "slave"
		found = found || isReplica || redis.HasErrorPrefix(cmd.Err(), "READONLY")
	}
	if found {
		c.find("", errReplica)
	}
}

// missed follows a lookup that found nothing, and looks into it if this process has stored the key.
// Any other reason than a proxy that places keys by hash is a good one.
func (c *Cache) missed(key string) {
	c.lookedUp(false)
	if !c.leases.Misses(key) {
		return
	}
	c.spawn(func() { // ends within WithRedisTimeout
		if c.leases.IsSplit(context.Background(), key) {
			c.find(key, errSplit)
		}
	})
}

// find notes a finding the first time that it is made.
func (c *Cache) find(key string, err error) {
	if _, before := c.found.LoadOrStore(err, true); !before {
		c.meter.note(context.Background(), EventFinding, key, 0, err)
	}
}
