package mux

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrTimeout is the error of a caller that waited for the whole timeout, or that was refused
	// because too many round trips have timed out and not ended.
	ErrTimeout = errors.New("redis did not answer in time")
	// ErrOpen is the error of a caller that was refused because Redis is known to be down.
	ErrOpen = errors.New("redis is down: circuit breaker is open")
	// ErrClosed is the error of a caller that came after Close.
	ErrClosed = errors.New("closed")
)

// errorReply is what one kind of error reply says of the node that it comes from.
type errorReply struct {
	prefix string
	down   bool // the node serves nobody: a failure for the breaker
}

// errorReplies are those that say that Redis cannot serve at present. All others are answers that
// the caller may not like. Where several prefixes match, the first counts.
var errorReplies = []errorReply{
	{"LOADING ", true},
	{"MASTERDOWN ", true},
	{"READONLY ", true},  // a primary that became a replica
	{"BUSY ", true},      // a script runs for too long
	{"UNBLOCKED ", true}, // it became a replica meanwhile
	{"NOAUTH ", true},
	{"WRONGPASS ", true}, // to HELLO or AUTH: each command makes a connection of its own
	{"ERR max number of clients reached", true},
	{"CLUSTERDOWN Hash slot not served", false}, // others are
	{"CLUSTERDOWN ", true},
	{"TRYAGAIN ", false}, // the slot is being moved, the node is well
	{"ASK ", false},
	{"MOVED ", false},
	{"MISCONF ", false}, // it can be read
	{"NOREPLICAS ", false},
}

// noPerm matches the reply to a user who may not read at all, or not finish to connect. Other
// commands and keys may be forbidden to him and Redis be of use.
var noPerm = regexp.MustCompile(`^NOPERM .*the '(get|hello|auth|select|client\|setname|client\|setinfo)' command`)

// errorReplyOf returns what err says of the node, if it is a reply that says that Redis cannot
// serve.
func errorReplyOf(err redis.Error) (r errorReply, ok bool) {
	text := err.Error()
	i := slices.IndexFunc(errorReplies, func(r errorReply) bool { return strings.HasPrefix(text, r.prefix) })
	if i >= 0 {
		return errorReplies[i], true
	}
	return errorReply{down: true}, noPerm.MatchString(text)
}

// roundTripError returns err if it says that the round trip failed, and nil if it is an answer that
// the caller may not like: whatever a node replies, it has replied, unless it serves nobody.
func roundTripError(err error) error {
	if err == nil {
		return nil
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return err
	}
	if r, ok := errorReplyOf(reply); ok && r.down {
		return err
	}
	return nil
}

// requestError returns the error of a round trip that answered none of cmds, and nil if it answered
// one. On a cluster some commands may fail with their node while the others are answered.
func requestError(cmds []redis.Cmder) error {
	var failed error
	for _, cmd := range cmds {
		err := roundTripError(cmd.Err())
		if err == nil {
			return nil
		}
		failed = err
	}
	return failed
}

// setMissingErrors gives err, of a pipeline, to each of its commands if none has an error of its
// own: then a hook of the client's has not sent them.
func setMissingErrors(cmds []redis.Cmder, err error) {
	for _, cmd := range cmds {
		if cmd.Err() != nil {
			return
		}
	}
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
}

// Unavailable reports whether err says that Redis could not be asked, or cannot serve at present,
// and not merely that it answered with an error.
func Unavailable(err error) bool {
	var reply redis.Error
	if err == nil || !errors.As(err, &reply) {
		return err != nil
	}
	_, ok := errorReplyOf(reply)
	return ok
}
