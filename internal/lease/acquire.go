package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
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
	Held   bool   // the lease is now the caller's,
	Token  string // under this token: the Request's, and an end that tells attempts apart
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
	answers, asked := make([]Acquired, len(requests)), make([]acquireCmds, len(requests))
	send(ctx, s.redis.Do, len(requests), func(i int) []redis.Cmder {
		asked[i] = s.newAcquire(ctx, requests[i])
		asked[i].set.release = s.releaser(ctx, requests[i])
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

// acquireCmds is the commands of one Request.
type acquireCmds struct {
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
	token   attempts
	release func()
	state   atomic.Int32 // setPending, setAnswered or setGivenUp
}

// releaser returns what releases the lease of r, whichever attempt has got it, in the background.
func (s *Store) releaser(ctx context.Context, r Request) func() {
	return func() {
		s.config.Go(func() { // ends with the round trip
			s.Settle(context.WithoutCancel(ctx), []Settlement{{Key: r.Key, Token: r.Token}})
		})
	}
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
		c.release()
	}
}

// giveUp says that nobody waits for the answer any more. One that has come is for the
// load to settle.
func (c *setLease) giveUp() { c.state.CompareAndSwap(setPending, setGivenUp) }

func newSetLease(ctx context.Context, key string, r Request, nx ...any) *setLease {
	set := &setLease{token: attempts{of: r.Token}}
	words := append(make([]any, 0, 6), "set", key, &set.token)
	set.Cmd = redis.NewCmd(ctx, append(append(words, nx...), "px", millis(r.TTL))...)
	return set
}

func (s *Store) newAcquire(ctx context.Context, r Request) acquireCmds {
	lease := s.Key(r.Key)
	if r.Steal {
		return acquireCmds{Request: r, set: newSetLease(ctx, lease, r)}
	}
	a := acquireCmds{
		Request: r,
		set:     newSetLease(ctx, lease, r, "nx"),
		entry:   redis.NewStringCmd(ctx, "get", r.Key),
		holder:  redis.NewStringCmd(ctx, "get", lease),
	}
	if r.WaitsFor != "" {
		a.failed = redis.NewStringCmd(ctx, "get", s.failedKey(r.Key))
	}
	return a
}

func (a *acquireCmds) cmds() []redis.Cmder {
	cmds := []redis.Cmder{a.set}
	for _, get := range []*redis.StringCmd{a.entry, a.holder, a.failed} {
		if get != nil {
			cmds = append(cmds, get)
		}
	}
	return cmds
}

func (a *acquireCmds) answer() Acquired {
	err := a.set.Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return Acquired{Err: err}
	}
	if a.entry == nil {
		return Acquired{Held: err == nil, Token: a.set.token.last}
	}
	for _, get := range []*redis.StringCmd{a.entry, a.holder} {
		err := get.Err()
		if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
			return Acquired{Err: err} // the connection was lost in between, say
		}
	}
	var r Acquired
	switch holder := a.holder.Val(); {
	case err == nil:
		r.Held, r.Token = true, a.set.token.last
	case sameLoad(holder, a.Token): // an earlier attempt got it, whose answer was lost
		r.Held, r.Token = true, holder
	default:
		r.Holder, r.Failed = holder, a.failed != nil && sameLoad(a.failed.Val(), a.WaitsFor)
	}
	// An entry that cannot be read (WRONGTYPE) is none: the fill overwrites it.
	if b, err := a.entry.Bytes(); err == nil {
		r.Found, r.Entry = true, b
	}
	return r
}

// attempts is the token of a Request, with an end that is another one each time it is sent.
// A client that has lost its connection sends a command again, and what it had sent first may
// come later: after an invalidation has deleted the lease of the second attempt. It must not
// bring that lease back, so it makes one that no fill is for.
type attempts struct{ of, last string }

// MarshalBinary is called by the client for each attempt.
func (a *attempts) MarshalBinary() ([]byte, error) {
	a.last = a.of + endOfLoad + rand.Text()
	return []byte(a.last), nil
}

// endOfLoad ends that part of a token which names the load.
const endOfLoad = "."

// sameLoad reports whether two tokens differ by the attempt at most.
func sameLoad(a, b string) bool {
	a, _, _ = strings.Cut(a, endOfLoad)
	b, _, _ = strings.Cut(b, endOfLoad)
	return a == b
}
