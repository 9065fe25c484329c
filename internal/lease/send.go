package lease

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

type do func(ctx context.Context, cmds ...redis.Cmder) error

// cmdsFor returns the commands for the ith of several keys. again says that they were sent
// before, and were of no use in that form.
type cmdsFor func(i int, again bool) []redis.Cmder

// send sends the commands of n keys, and tells answer how that of each went: err says why they
// were not all answered, if they were not.
func send(
	ctx context.Context, do do, n int,
	cmdsOf func(i int) []redis.Cmder, answer func(i int, cmds []redis.Cmder, err error),
) {
	if n == 0 {
		return
	}
	each := make([][]redis.Cmder, n)
	for i := range each {
		each[i] = cmdsOf(i)
	}
	err := do(ctx, slices.Concat(each...)...)
	at := 0
	for i, cmds := range each {
		var lost error
		for range cmds {
			lost = cmp.Or(lost, errorOf(err, at))
			at++
		}
		answer(i, cmds, lost)
	}
}

// errorOf returns why the ith command of a round trip that ended with err was not answered,
// or nil.
func errorOf(err error, i int) error {
	if some, ok := err.(interface{ Of(i int) error }); ok { //nolint:errorlint // the Doer's very error
		return some.Of(i)
	}
	return err
}

// run sends the commands of n keys and returns what became of each. What can do better in
// another form is sent again, in a second round trip.
func (s *Store) run(ctx context.Context, do do, n int, cmdsOf cmdsFor) []Outcome {
	outcomes := make([]Outcome, n)
	var again []int
	send(ctx, do, n, func(i int) []redis.Cmder {
		return cmdsOf(i, false)
	}, func(i int, cmds []redis.Cmder, err error) {
		outcomes[i] = outcomeOf(cmds, err)
		if err == nil && slices.ContainsFunc(cmds, s.worthRepeating) {
			again = append(again, i)
		}
	})
	send(ctx, do, len(again), func(j int) []redis.Cmder {
		return cmdsOf(again[j], true)
	}, func(j int, cmds []redis.Cmder, err error) {
		outcomes[again[j]] = outcomeOf(cmds, err)
	})
	return outcomes
}

// worthRepeating reports whether cmd was overtaken by the command that had to come after
// it, names a script that Redis has forgotten (a restart, another node of the cluster), or
// was refused and can be sent in another form.
func (s *Store) worthRepeating(cmd redis.Cmder) bool {
	if a, ok := cmd.(*ahead); ok && a.redirected || redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		return true
	}
	switch err := cmd.Err(); cmd.Name() {
	case "unlink":
		return errors.Is(s.check(&s.unlinks, err, "DEL is sent instead"), ErrRefused)
	case "evalsha":
		if isRefusal(err) {
			s.hashes.refusedAt.Store(time.Now().UnixNano()) // not told: if EVAL is refused too, that is
			return true
		}
	}
	return false
}

// outcomeOf returns what became of a key whose last command is a script's, if it has one.
func outcomeOf(cmds []redis.Cmder, err error) Outcome {
	for _, cmd := range cmds {
		if err == nil {
			err = cmd.Err()
		}
	}
	if err != nil {
		return Outcome{Err: err}
	}
	kept := false
	if script, ok := cmds[len(cmds)-1].(*redis.Cmd); ok {
		n, _ := script.Val().(int64)
		kept = n > 0
	}
	return Outcome{Kept: kept}
}

// ahead is a command that must be carried out before the next one of its key. While a
// cluster moves the slot it may be redirected (ASK) to the node where the one key is going,
// and come there after the next command was carried out where the other key still is.
type ahead struct {
	*redis.Cmd
	redirected bool
}

func newAhead(ctx context.Context, words []any) *ahead {
	return &ahead{Cmd: redis.NewCmd(ctx, words...)}
}

// SetErr is told of each reply that is an error, also of those that the client acts upon.
func (a *ahead) SetErr(err error) {
	a.redirected = a.redirected || redis.HasErrorPrefix(err, "ASK ")
	a.Cmd.SetErr(err)
}
