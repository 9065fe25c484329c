package readthroughtest

import (
	"bytes"
	"net"
	"strings"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// conn is a connection without a network, so that a bubble of testing/synctest can hold both ends.
// Its writes do not wait for the server, which answers the first command of a pipeline before it
// reads the last, and would wait for a client that is still writing.
type conn struct {
	net.Conn
	written chan struct{} // closed when the last Write has reached the server; nil: there was none
}

// dial returns a connection to redis.
func dial(redis *miniredis.Miniredis) (net.Conn, error) {
	c, err := redis.Dial()
	redis.Server().SetPreHook(answerInfo)
	return &conn{Conn: c}, err
}

// answerInfo answers what WithFailoverSafety asks, and miniredis does not know.
func answerInfo(peer *server.Peer, cmd string, args ...string) bool {
	asked := cmd == "INFO" && len(args) == 1 && args[0] == "replication"
	if asked {
		peer.WriteBulk("# Replication\r\nrole:master\r\nmaster_replid:" + strings.Repeat("0", 40) + "\r\n")
	}
	return asked
}

// Write sends b after what was written before. An error shows in the next Read.
func (c *conn) Write(b []byte) (int, error) {
	copied, before, written := bytes.Clone(b), c.written, make(chan struct{})
	c.written = written
	go func() { // ends when the server has read b, or with the connection
		defer close(written)
		if before != nil {
			<-before
		}
		_, _ = c.Conn.Write(copied)
	}()
	return len(b), nil
}
