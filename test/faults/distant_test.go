package faults

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// distance relays connections to servers that are some time away.
type distance struct {
	running sync.WaitGroup
	mu      sync.Mutex
	open    []io.Closer
}

// delayed returns the address of a Redis that is as far from server as delay there and delay back.
// If secure is not nil, its clients speak TLS.
func delayed(t *testing.T, server string, delay time.Duration, secure *tls.Config) string {
	t.Helper()
	d := &distance{}
	t.Cleanup(func() {
		d.mu.Lock()
		for _, c := range d.open {
			_ = c.Close()
		}
		d.mu.Unlock()
		d.running.Wait()
	})
	if secure != nil { // TLS ends behind the distance, so that its handshake is as slow
		server = d.listen(t, server, 0, func(l net.Listener) net.Listener { return tls.NewListener(l, secure) })
	}
	return d.listen(t, server, delay, func(l net.Listener) net.Listener { return l })
}

// listen relays to server what comes to the address that it returns.
func (d *distance) listen(t *testing.T, server string, delay time.Duration, wrap func(net.Listener) net.Listener) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d.keep(l)
	accepting := wrap(l)
	d.running.Go(func() { // ends with l
		for {
			near, err := accepting.Accept()
			if err != nil {
				return
			}
			d.running.Go(func() { // ends with the connection
				far, err := net.Dial("tcp", server)
				if err != nil {
					_ = near.Close()
					return
				}
				d.keep(near, far)
				d.running.Go(func() { relay(far, near, delay) })
				relay(near, far, delay)
			})
		}
	})
	return l.Addr().String()
}

// keep has cs closed at the end.
func (d *distance) keep(cs ...io.Closer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = append(d.open, cs...)
}

// relay sends to dst what comes from src, each piece after delay.
func relay(dst, src net.Conn, delay time.Duration) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, 10_000)
	go func() { // ends with src
		defer close(pieces)
		for {
			buf := make([]byte, 64<<10)
			n, err := src.Read(buf)
			if n > 0 {
				pieces <- piece{time.Now().Add(delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := dst.Write(p.bytes); err != nil {
			_ = src.Close()
		}
	}
	_ = dst.Close()
}

// certificate returns one for 127.0.0.1, and what trusts it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return server, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// TestGet_HitsDistantRedis has a Redis so far away that connecting to it takes longer than the
// budget, and a lease and a fill together too. Nobody is connected at first.
func TestGet_HitsDistantRedis(t *testing.T) {
	t.Parallel()
	serverTLS, clientTLS := certificate(t)
	for name, row := range map[string]struct {
		roundTrip time.Duration
		tls       bool
		obeys     bool // deadlines of contexts, as the clients of Open do
		together  bool // the callers, or else one after the other
	}{
		"60 ms":                 {roundTrip: 60 * time.Millisecond},
		"60 ms, together":       {roundTrip: 60 * time.Millisecond, together: true},
		"60 ms, Open, together": {roundTrip: 60 * time.Millisecond, obeys: true, together: true},
		"25 ms, TLS":            {roundTrip: 25 * time.Millisecond, tls: true},
		"25 ms, TLS, Open":      {roundTrip: 25 * time.Millisecond, tls: true, obeys: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := redis.Options{ContextTimeoutEnabled: row.obeys}
			var secure *tls.Config
			if row.tls {
				secure, options.TLSConfig = serverTLS, clientTLS
			} else { // connecting is a round trip, too; in TLS the handshake is
				options.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
					time.Sleep(row.roundTrip)
					return new(net.Dialer).DialContext(ctx, network, addr)
				}
			}
			onceOf(t, func(t *testing.T) (got, want readthrough.Stats) {
				o := options
				o.Addr = delayed(t, redistest.Start(t).Addr(), row.roundTrip/2, secure)
				return readTwice(t, &o, row.together)
			})
		})
	}
}

// readTwice reads some rows, and once more when the fills behind the callers are done.
func readTwice(t *testing.T, o *redis.Options, together bool) (got, want readthrough.Stats) {
	const n = 10
	client := redis.NewClient(o)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	rows := wrapper(t, defaults(t, client), constant(1))
	for range 2 {
		var wg sync.WaitGroup
		for id := range n {
			wg.Go(func() {
				if _, err := rows.Get(context.Background(), id); err != nil {
					t.Error(err)
				}
			})
			if !together {
				wg.Wait()
			}
		}
		wg.Wait()
		for began := time.Now(); rows.Stats().Fills < n && time.Since(began) < time.Second; time.Sleep(time.Millisecond) {
		}
	}
	return outcome(rows.Stats()), readthrough.Stats{Loads: n, Hits: n}
}

// TestGet_DoesNotWaitForFillBeyondBudget has a caller whose lookup and lease take most of the
// budget each.
func TestGet_DoesNotWaitForFillBeyondBudget(t *testing.T) {
	t.Parallel()
	const roundTrip, budget = 400 * time.Millisecond, 600 * time.Millisecond
	client := redis.NewClient(&redis.Options{Addr: delayed(t, redistest.Start(t).Addr(), roundTrip/2, nil)})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	rows := wrapper(t, defaults(t, client, readthrough.WithRedisTimeout(budget)), constant(1))
	_, err := rows.Get(t.Context(), 0) // connects
	require.NoError(t, err)
	require.Eventually(t, func() bool { return rows.Stats().Fills == 1 }, soon, time.Millisecond)

	began := time.Now()
	_, info, err := rows.GetInfo(t.Context(), 1)
	took := time.Since(began)
	require.NoError(t, err)
	require.False(t, info.Stored, "not yet")
	require.GreaterOrEqual(t, took, roundTrip+budget)
	require.Less(t, took, 3*roundTrip, "the fill would be the third")
	require.Eventually(t, func() bool { return rows.Stats().Fills == 2 }, soon, time.Millisecond)
}

// TestBackgroundFill_AnswersBeforeItIsStored holds the fill of a load back, while a caller that had come
// before the load gets the value and one that came during it does not: it would not know of an
// invalidation since.
func TestBackgroundFill_AnswersBeforeItIsStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	client := redis.NewClient(&redis.Options{Addr: proxy.Addr()})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	loading, goOn := make(chan struct{}), make(chan struct{})
	var loads atomic.Int64
	rows := wrapper(t, defaults(t, client, readthrough.WithRedisTimeout(soon), readthrough.WithBackgroundFill()),
		func(context.Context, int) (int64, error) {
			n := loads.Add(1)
			if n == 1 {
				close(loading)
				<-goOn
			}
			return n, nil
		})
	get := func() <-chan int64 {
		got := make(chan int64, 1)
		go func() {
			v, err := rows.Get(t.Context(), 1)
			assert.NoError(t, err)
			got <- v
		}()
		return got
	}
	held := proxy.HoldNext(redistest.Requests, redistest.Saying("eval", ":lease"))
	first := get()
	<-loading
	late := get()
	require.Eventually(t, func() bool { return rows.Stats().Misses == 2 }, soon, time.Millisecond)
	close(goOn)

	require.EqualValues(t, 1, <-first)
	held.Wait()
	require.Empty(t, late)
	held.Release()
	require.EqualValues(t, 1, <-late, "the fill has shown that nothing was invalidated")
	require.EqualValues(t, 1, rows.Stats().Fills)
}
