package redistest

import "io"

// TB is the part of [testing.TB] that this package needs. It is so small that a program that is no test, such as the
// benchmark, can bring its own. Fatalf and Skipf must not return: end the goroutine or panic.
type TB interface {
	Helper()
	Name() string
	TempDir() string
	Cleanup(f func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// closeWith closes a client when the test ends. Cleanups run last in, first out, so clients go before their servers.
func closeWith[C io.Closer](tb TB, client C) C {
	tb.Cleanup(func() { _ = client.Close() }) // the error would only say that the test has closed it already
	return client
}

// Redialer is the function of go-redis that looks once a second whether a server that refused a whole pool's worth of
// connections is back. It notices only then that its client was closed, later than goleak cares to wait. A test binary
// that kills servers passes it on: goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(redistest.Redialer)).
const Redialer = "github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"
