package lease

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Request asks for the lease of one entry.
type Request struct {
	Key   string
	Token string
	TTL   time.Duration
	Steal bool // take the lease whoever holds it: the holder's fill will be refused
	// WaitsFor is the token that held the lease when it was last asked for, if any did.
	WaitsFor string
}

// Acquired is the answer to a Request.
type Acquired struct {
	Held   bool   // the lease is now the caller's
	Holder string // whose it is, if it is not
	Failed bool   // the load under the lease of WaitsFor has brought nothing to store
	Found  bool   // the entry exists,
	Entry  []byte // and this is it; it is not asked for by a Request that steals
	Err    error  // nothing of this is known
}

// Acquire asks for the leases of all requests, and for the entries, in one round trip. If
// a lease would be of no use it asks nothing, and the answers are ErrRefused.
func (s *Store) Acquire(ctx context.Context, requests []Request) []Acquired {
	if !s.stores() {
		return slices.Repeat([]Acquired{{Err: ErrRefused}}, len(requests))
	}
	if s.config.FailoverSafe {
		return s.acquireSafely(ctx, requests)
	}
	answers, asked := make([]Acquired, len(requests)), make([]acquire, len(requests))
	send(ctx, s.redis.Do, len(requests), func(i int) []redis.Cmder {
		asked[i] = s.newAcquire(ctx, requests[i])
		return asked[i].cmds()
	}, func(i int, _ []redis.Cmder, err error) {
		if answers[i].Err = err; err == nil {
			answers[i] = asked[i].answer()
		} else {
			asked[i].set.giveUp()
		}
	})
	return answers
}

// acquire is the commands of one Request.
type acquire struct {
	Request
	set           *setLease
	entry, holder *redis.StringCmd // nil if the lease is stolen
	failed        *redis.StringCmd // nil unless another's load is waited for
}

// setLease is the SET of an acquire. If its answer was given up and comes after all, the
// lease is released: a client that was still connecting sends commands that nobody waits
// for any more, and others would wait for that lease until it expires.
type setLease struct {
	*redis.Cmd
	release func()
	state   atomic.Int32 // setPending, setAnswered or setGivenUp
}

func (s *Store) newSetLease(ctx context.Context, r Request, words ...any) *setLease {
	return &setLease{Cmd: redis.NewCmd(ctx, words...), release: func() { // ends within the Doer's timeout
		s.Settle(context.WithoutCancel(ctx), []Settlement{{Key: r.Key, Token: r.Token}})
	}}
}

const (
	setPending = iota
	setAnswered
	setGivenUp
)

// SetErr is called by go-redis when the reply has been read: err is nil if the lease was
// acquired.
func (c *setLease) SetErr(err error) {
	c.Cmd.SetErr(err)
	if err == nil && c.state.Swap(setAnswered) == setGivenUp {
		go c.release()
	}
}

// giveUp says that nobody waits for the answer any more. One that has come is for the
// load to settle.
func (c *setLease) giveUp() { c.state.CompareAndSwap(setPending, setGivenUp) }

func (s *Store) newAcquire(ctx context.Context, r Request) acquire {
	lease := s.Key(r.Key)
	if r.Steal {
		return acquire{Request: r, set: s.newSetLease(ctx, r, "set", lease, r.Token, "px", millis(r.TTL))}
	}
	a := acquire{
		Request: r,
		set:     s.newSetLease(ctx, r, "set", lease, r.Token, "nx", "px", millis(r.TTL)),
		entry:   redis.NewStringCmd(ctx, "get", r.Key),
		holder:  redis.NewStringCmd(ctx, "get", lease),
	}
	if r.WaitsFor != "" {
		a.failed = redis.NewStringCmd(ctx, "get", s.failedKey(r.Key))
	}
	return a
}

func (a *acquire) cmds() []redis.Cmder {
	cmds := []redis.Cmder{a.set}
	for _, get := range []*redis.StringCmd{a.entry, a.holder, a.failed} {
		if get != nil {
			cmds = append(cmds, get)
		}
	}
	return cmds
}

func (a *acquire) answer() Acquired {
	err := a.set.Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return Acquired{Err: err}
	}
	if a.entry == nil {
		return Acquired{Held: err == nil}
	}
	for _, get := range []*redis.StringCmd{a.entry, a.holder} {
		err := get.Err()
		if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
			return Acquired{Err: err} // the connection was lost in between, say
		}
	}
	var r Acquired
	// A client that lost the answer sends the commands again, and then SET NX
	// fails for the lease that the first attempt got. So the holder decides too.
	r.Held = err == nil || a.holder.Val() == a.Token
	if !r.Held {
		r.Holder, r.Failed = a.holder.Val(), a.failed != nil && a.failed.Val() == a.WaitsFor
	}
	// An entry that cannot be read (WRONGTYPE) is none: the fill overwrites it.
	if b, err := a.entry.Bytes(); err == nil {
		r.Found, r.Entry = true, b
	}
	return r
}
