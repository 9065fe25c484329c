package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
)

// ErrRefused says that Redis refuses all the ways to store a value under its lease: because
// of an access rule, a renamed command or a proxy. Config.OnRefused gets the reply.
var ErrRefused = errors.New("redis refuses scripts and transactions")

// way is a way to do something that Redis may refuse, where there is another.
type way struct {
	refusedAt atomic.Int64 // Unix nanoseconds; 0: it was not refused
}

// open reports whether the way may be tried.
func (w *way) open() bool {
	at := w.refusedAt.Load()
	return at == 0 || time.Since(time.Unix(0, at)) >= lua.RefusedFor
}

// check remembers whether Redis has refused w, which ended with err. It returns ErrRefused
// if so, and err otherwise. instead says, for OnRefused, what the Store does then.
func (s *Store) check(w *way, err error, instead string) error {
	switch {
	case (err == nil || errors.Is(err, redis.Nil)) && w.refusedAt.Load() != 0:
		w.refusedAt.Store(0)
	case isRefusal(err):
		if w.refusedAt.Swap(time.Now().UnixNano()) == 0 && s.config.OnRefused != nil {
			s.config.OnRefused(fmt.Errorf("%w; %s", err, instead))
		}
		return ErrRefused
	}
	return err
}

// isRefusal reports whether err is the reply of a Redis that refuses the command, and serves
// otherwise. That a key may not be accessed is no such reply.
func isRefusal(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && lua.IsRefusal(reply.Error(), "permissions to run")
}

// unlink returns the command that deletes a key.
func (s *Store) unlink(key string) []any {
	if s.unlinks.open() {
		return []any{"unlink", key}
	}
	return []any{"del", key}
}

// stores reports whether a value could be stored under its lease.
func (s *Store) stores() bool {
	return s.scripts.open() || s.config.Watch != nil && s.transactions.open()
}

// withoutScripts returns what the Store does where Redis refuses scripts.
func (s *Store) withoutScripts() string {
	switch {
	case s.config.FailoverSafe:
		return "nothing is stored or found: failover safety needs scripts that may call INFO"
	case s.config.Watch == nil:
		return "what is loaded is not stored"
	}
	return "transactions are used instead of scripts"
}

// underLease runs a script for each of n leases, or a transaction where Redis refuses
// scripts. Either changes something only if its token still is the lease.
func (s *Store) underLease(ctx context.Context, do do, n int, script cmdsFor, tx func(i int) transaction) []Outcome {
	outcomes := slices.Repeat([]Outcome{{Err: ErrRefused}}, n)
	if s.scripts.open() {
		outcomes = s.run(ctx, do, n, script)
	}
	var lost error // of a transaction: the next would fail alike, and take as long
	for i := range outcomes {
		o := &outcomes[i]
		if !errors.Is(o.Err, ErrRefused) {
			o.Err = s.check(&s.scripts, o.Err, s.withoutScripts())
		}
		switch {
		case !errors.Is(o.Err, ErrRefused):
		case lost != nil:
			o.Err = lost
		default:
			if *o = s.transact(ctx, func() transaction { return tx(i) }); !errors.Is(o.Err, ErrRefused) {
				lost = o.Err
			}
		}
	}
	return outcomes
}

// transaction holds the commands to carry out if token still is the lease, or, to give it
// back, that of another attempt of its load.
type transaction struct {
	lease, token string
	givesBack    bool
	cmds         [][]any
}

// transact carries a transaction out. It begins anew where a command was refused that has another
// form, and where the lease has changed meanwhile, to see whose it is.
func (s *Store) transact(ctx context.Context, of func() transaction) (o Outcome) {
	for again, left := true, 3; again && left > 0; left-- {
		o, again = s.watch(ctx, of)
	}
	return o
}

// watch watches the lease, looks at it, and has Redis carry the commands out unless it has
// changed since: optimistic locking, in three round trips on one connection.
func (s *Store) watch(ctx context.Context, of func() transaction) (o Outcome, again bool) {
	if s.config.Watch == nil || !s.transactions.open() {
		return Outcome{Err: ErrRefused}, false
	}
	t := of()
	var kept, otherwise bool
	err := s.config.Watch(ctx, func(tx *redis.Tx) error {
		holder, err := tx.Get(ctx, t.lease).Result()
		own := holder == t.token
		if err != nil || !own && !(t.givesBack && sameLoad(holder, t.token)) {
			return err
		}
		cmds, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, words := range t.cmds {
				pipe.Do(ctx, words...)
			}
			return nil
		})
		for _, cmd := range cmds { // err may only say that one of them was refused
			if isRefusal(cmd.Err()) {
				err = cmd.Err()
				otherwise = !redis.HasErrorPrefix(err, "EXECABORT") && s.worthRepeating(cmd)
				break
			}
		}
		kept = own && err == nil
		return err
	}, t.lease)
	switch {
	case isRefusal(err) && otherwise: // in this order: f may still run after another error
		return Outcome{Err: ErrRefused}, true
	case errors.Is(err, redis.TxFailedErr):
		// Or a connection still watches what it watched before, of a user who may not UNWATCH.
		return Outcome{transacted: true}, true
	case errors.Is(err, redis.Nil):
		err = nil // the lease is gone
	}
	if err = s.check(&s.transactions, err, "what is loaded is not stored"); err != nil {
		return Outcome{Err: err}, false
	}
	return Outcome{Kept: kept, transacted: true}, false
}
