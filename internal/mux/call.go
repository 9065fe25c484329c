package mux

import (
	"errors"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// call is a Do, Force or GetMany: what its requests have in common.
type call struct {
	request
	commands int // how many one round trip carries at most
	parallel int // how many round trips to one node are under way at a time; 1: one after the other
}

// share is the commands of a call that are for one node.
type share struct {
	node *node
	cmds []redis.Cmder
	at   []int // the place of each among the commands of the call
}

// part is the commands of a share that one round trip carries: those from from up to to.
type part struct{ from, to, size int }

// send sends cmds, each node its share. What one node does keeps no other from answering.
func (m *Mux) send(c call, cmds []redis.Cmder) error {
	if len(cmds) == 0 {
		return nil
	}
	if m.cluster == nil && c.fits(cmds) {
		return m.first.do(c.request)
	}
	shares := m.shares(cmds)
	if len(shares) == 1 && c.fits(cmds) {
		return shares[0].node.do(c.request)
	}
	unanswered := make(UnansweredError, len(cmds))
	var calls sync.WaitGroup
	for _, s := range shares {
		calls.Go(func() { s.send(c, unanswered) }) // ends within the timeout, or with the context
	}
	calls.Wait()
	if slices.IndexFunc(unanswered, func(err error) bool { return err != nil }) < 0 {
		return nil
	}
	return unanswered
}

// fits makes cmds, all for one node, the request's, and reports whether one round trip can carry them.
func (c *call) fits(cmds []redis.Cmder) bool {
	size := 0
	for _, cmd := range cmds {
		size += sizeOf(cmd)
	}
	c.cmds, c.size = cmds, size
	return len(cmds) == 1 || len(cmds) <= c.commands && size+len(cmds)*c.learn.expected() <= MaxBytes
}

// shares returns the commands for each node.
func (m *Mux) shares(cmds []redis.Cmder) []*share {
	if m.cluster == nil {
		return []*share{{node: m.first, cmds: cmds}}
	}
	var shares []*share
	n := m.first
	for i, cmd := range cmds {
		if key := keyOf(cmd); key != "" { // else it belongs to the command before
			n = m.nodeOf(key)
		}
		at := slices.IndexFunc(shares, func(s *share) bool { return s.node == n })
		if at < 0 {
			at, shares = len(shares), append(shares, &share{node: n})
		}
		shares[at].cmds, shares[at].at = append(shares[at].cmds, cmd), append(shares[at].at, i)
	}
	return shares
}

// keyOf returns the first key of cmd, or nothing if there is none.
func keyOf(cmd redis.Cmder) string {
	at := 1
	if name := cmd.Name(); name == "eval" || name == "evalsha" {
		at = 3
	}
	if args := cmd.Args(); at < len(args) {
		key, _ := args[at].(string)
		return key
	}
	return ""
}

// parts cuts s so that each round trip is small enough.
func (s *share) parts(c call) []part {
	n := (len(s.cmds)-1)/c.commands + 1
	most := (len(s.cmds)-1)/n + 1 // commands in each of n equal parts
	var parts []part
	p := part{}
	for i, cmd := range s.cmds {
		size := sizeOf(cmd)
		bytes := p.size + size + (i+1-p.from)*c.learn.expected()
		if i > p.from && (bytes > MaxBytes || i-p.from == most) {
			parts, p = append(parts, p), part{from: i}
		}
		p.to, p.size = i+1, p.size+size
	}
	return append(parts, p)
}

// send sends the parts of s, and notes what was not answered. After a part that was not, the rest
// is not sent: it would fail alike.
func (s *share) send(c call, unanswered UnansweredError) {
	parts := s.parts(c)
	var mu sync.Mutex // guards parts and failed
	var failed error
	next := func(err error) (part, error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = err
		}
		if len(parts) == 0 {
			return part{}, failed
		}
		p := parts[0]
		parts = parts[1:]
		return p, failed
	}
	work := func() {
		for p, err := next(nil); p.to > 0; p, err = next(err) {
			if err == nil {
				r := c.request
				r.cmds, r.size = s.cmds[p.from:p.to], p.size
				err = s.node.do(r)
			}
			for i := p.from; i < p.to; i++ {
				unanswered[s.place(i)] = err
			}
		}
	}
	var workers sync.WaitGroup
	for range min(c.parallel, len(parts)) - 1 {
		workers.Go(work) // ends with the parts
	}
	work()
	workers.Wait()
}

// place returns which command of the call the ith of s is.
func (s *share) place(i int) int {
	if s.at == nil {
		return i
	}
	return s.at[i]
}

// UnansweredError is the error of a call that was not answered in full. It has an error for each command
// that was not answered, and nil for the others, which have their own results.
type UnansweredError []error

// Error is the text of the first error.
func (u UnansweredError) Error() string { return u.Unwrap()[0].Error() }

// Unwrap returns the errors there are.
func (u UnansweredError) Unwrap() []error {
	return slices.DeleteFunc(slices.Clone(u), func(err error) bool { return err == nil })
}

// Of returns why the ith command was not answered, or nil.
func (u UnansweredError) Of(i int) error { return u[i] }

// ErrorOf returns why the ith command of a call that returned err was not answered, or nil.
func ErrorOf(err error, i int) error {
	var u UnansweredError
	if errors.As(err, &u) {
		return u.Of(i)
	}
	return err
}
