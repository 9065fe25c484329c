package mux

import (
	"errors"
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

// unavailable are the error replies with which Redis says that it cannot serve this client at
// present, whatever it is asked. The table of all that it may reply is in docs/redis.md.
var unavailable = []string{
	"LOADING ", "MASTERDOWN ", "CLUSTERDOWN ", "READONLY ", "NOAUTH ", "WRONGPASS ", "BUSY ", "UNBLOCKED ",
	"ERR max number of clients reached",
}

// roundTripError returns err if it says that the round trip failed, and nil if it is an answer that
// the caller may not like: whatever Redis replies, it has replied, unless it is unavailable.
func roundTripError(err error) error {
	if err == nil {
		return nil
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return err
	}
	for _, prefix := range unavailable {
		if strings.HasPrefix(reply.Error(), prefix) {
			return err
		}
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
func Unavailable(err error) bool { return roundTripError(err) != nil }
