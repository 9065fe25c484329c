package redistest

import (
	"bytes"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is one of the two ways through a Proxy.
type Direction int

// The ways.
const (
	Requests Direction = iota // from the clients to the server
	Replies                   // from the server to the clients
)

// Proxy is a TCP proxy before one server. It does to packets what a network does: it delays, holds, drops and
// duplicates them, and cuts connections. A packet is what one read returns, for go-redis all commands of a pipeline or
// all of their replies, as long as they are a few KiB. Within a connection packets stay in order, as in TCP; those of
// different connections overtake each other. Its methods may be called from any goroutine.
type Proxy struct {
	tb       TB
	server   string
	listener net.Listener
	quit     chan struct{} // closed by the Cleanup
	running  sync.WaitGroup
	accepted atomic.Int64

	mu    sync.Mutex
	links map[*link]struct{}
	rules [2]rule
}

// rule is what happens to the packets of one direction.
type rule struct {
	delay, jitter time.Duration
	dropped       bool
	held          chan struct{} // closed by Release; nil: packets pass
	traps         []*Held       // that have caught nothing yet
}

// StartProxy runs a proxy before the server at addr, on a free port, until the test ends. It passes everything on
// until it is told otherwise. While the server is killed it resets connections instead of refusing them.
func StartProxy(tb TB, addr string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", loopback(0))
	if err != nil {
		tb.Fatalf("redistest: proxy: %v", err)
	}
	p := &Proxy{tb: tb, server: addr, listener: listener, quit: make(chan struct{}), links: make(map[*link]struct{})}
	p.running.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// Addr is the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Accepted returns how many connections there have been.
func (p *Proxy) Accepted() int64 { return p.accepted.Load() }

// Delay has each packet that comes from now on arrive later by d, and by a random time up to jitter.
func (p *Proxy) Delay(dir Direction, d, jitter time.Duration) {
	p.change(dir, func(r *rule) { r.delay, r.jitter = d, jitter })
}

// Hold keeps all packets back until Release. Connections are accepted meanwhile.
func (p *Proxy) Hold(dir Direction) {
	p.change(dir, func(r *rule) {
		if r.held == nil {
			r.held = make(chan struct{})
		}
	})
}

// Release ends Hold: what was held goes on.
func (p *Proxy) Release(dir Direction) {
	p.change(dir, func(r *rule) {
		if r.held != nil {
			close(r.held)
			r.held = nil
		}
	})
}

// Drop has packets swallowed, until it is called with false: the other side waits in vain. The connections that lost
// packets are good for nothing more after that, so Cut usually follows.
func (p *Proxy) Drop(dir Direction, on bool) {
	p.change(dir, func(r *rule) { r.dropped = on })
}

// HoldNext holds the next packet for which match is true (nil: any), and with it what follows on its connection. Other
// connections go on, so that newer packets overtake it. Of several calls, each waits for a packet of its own.
func (p *Proxy) HoldNext(dir Direction, match func(packet []byte) bool) *Held {
	h := &Held{
		proxy: p, dir: dir, match: match,
		caught: make(chan struct{}), decided: make(chan struct{}), answered: make(chan struct{}),
	}
	p.change(dir, func(r *rule) { r.traps = append(r.traps, h) })
	return h
}

// Saying returns a match for HoldNext: of packets with all these words, in either case.
func Saying(words ...string) func(packet []byte) bool {
	return func(packet []byte) bool {
		lower := bytes.ToLower(packet)
		return !slices.ContainsFunc(words, func(word string) bool {
			return !bytes.Contains(lower, []byte(strings.ToLower(word)))
		})
	}
}

// Cut resets all connections to clients, and returns how many. Requests that are under way or held reach the server
// all the same, as those in the buffers of a network do, so that a client which sends them again has sent them twice.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for l := range p.links {
		if !l.cut {
			l.cut = true
			n++
			_ = l.client.SetLinger(0)
			_ = l.client.Close()
		}
	}
	return n
}

func (p *Proxy) change(dir Direction, change func(*rule)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.rules[dir])
}

// admit decides what becomes of a packet: nil if it is dropped.
func (p *Proxy) admit(dir Direction, data []byte) *packet {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.rules[dir]
	pkt := &packet{data: data, due: time.Now().Add(r.delay)}
	if r.jitter > 0 {
		pkt.due = pkt.due.Add(rand.N(r.jitter))
	}
	i := slices.IndexFunc(r.traps, func(h *Held) bool { return h.match == nil || h.match(data) })
	switch {
	case i >= 0:
		pkt.held = r.traps[i]
		r.traps = slices.Delete(r.traps, i, i+1)
		pkt.held.data = data
		close(pkt.held.caught)
	case r.dropped:
		return nil
	}
	return pkt
}

// heldBack returns what the packets of a direction wait for, nil if they pass.
func (p *Proxy) heldBack(dir Direction) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rules[dir].held
}

// accept serves connections until the listener is closed.
func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		p.running.Go(func() { p.serve(conn.(*net.TCPConn)) })
	}
}

// close ends all connections and goroutines.
func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	close(p.quit)
	for l := range p.links {
		l.close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// Held is a packet that is held back, once one has come.
type Held struct {
	proxy    *Proxy
	dir      Direction
	match    func([]byte) bool
	data     []byte // to be read after caught
	caught   chan struct{}
	decided  chan struct{} // closed by Release and Drop
	answered chan struct{}
	once     sync.Once
	dropped  bool // to be read after decided
}

// Caught is closed as soon as there is a packet.
func (h *Held) Caught() <-chan struct{} { return h.caught }

// Answered is closed when the server has answered the released request, or closed its connection.
func (h *Held) Answered() <-chan struct{} { return h.answered }

// Wait returns the packet as soon as there is one. It ends the test if none comes, so it belongs on its goroutine.
func (h *Held) Wait() []byte {
	h.proxy.tb.Helper()
	select {
	case <-h.caught:
	case <-time.After(signalLimit):
		h.proxy.tb.Fatalf("redistest: proxy: no packet to be held within %s", signalLimit)
	}
	return h.data
}

// Release lets the packet go on. If none has come, none is held any more.
func (h *Held) Release() { h.decide(false) }

// Drop swallows the packet. What follows on its connection goes on.
func (h *Held) Drop() { h.decide(true) }

func (h *Held) decide(drop bool) {
	h.once.Do(func() {
		h.dropped = drop
		close(h.decided)
		h.proxy.change(h.dir, func(r *rule) {
			r.traps = slices.DeleteFunc(r.traps, func(trap *Held) bool { return trap == h })
		})
	})
}

// Duplicate sends a copy of a held request to the server, on a connection of its own, and returns when that has been
// answered. The packet itself is still held. The connection has not logged in. It ends the test if it fails.
func (h *Held) Duplicate() {
	h.proxy.tb.Helper()
	if err := exchange(h.proxy.server, h.Wait()); err != nil {
		h.proxy.tb.Fatalf("redistest: proxy: duplicate: %v", err)
	}
}
