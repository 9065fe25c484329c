package redistest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are drawn from below those that the system gives to outgoing connections (from 32768 on Linux, from 49152
// elsewhere). Otherwise, while a server is killed, any connection on the machine may be given its port, and then the
// server can't come back on it.
const (
	lowestPort  = 10240
	highestPort = 32767
)

// freePort finds a port that nobody listens on now. It may be taken before the server binds it: launch tries again.
func freePort() (int, error) {
	for range 200 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		l, err := net.Listen("tcp", loopback(port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port found")
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// errPortTaken: the server could not bind its port.
var errPortTaken = fmt.Errorf("%w: port taken", errHopeless)
