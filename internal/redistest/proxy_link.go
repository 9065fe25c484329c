package redistest

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// packet is what one read returned, on its way through a Proxy.
type packet struct {
	data []byte
	due  time.Time
	held *Held // nil: it was not waited for
}

// link is a client's connection and the one to the server that belongs to it.
type link struct {
	proxy          *Proxy
	client, server *net.TCPConn // server is nil until it has been dialled
	cut            bool         // guarded by proxy.mu

	mu    sync.Mutex
	asked *Held // the released request that the server has not answered yet
	ended bool  // the server answers no more
}

// serve passes on what comes on a client's connection, until both sides have ended.
func (p *Proxy) serve(client *net.TCPConn) {
	l := &link{proxy: p, client: client}
	if !p.connect(l) {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	var flows sync.WaitGroup
	flows.Go(func() {
		l.pass(Requests, l.client, l.server)
		_ = l.server.CloseWrite() // it may still answer, to nobody
	})
	flows.Go(func() {
		l.pass(Replies, l.server, l.client)
		_ = l.client.Close()
	})
	flows.Wait()
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// connect dials the server for l, and reports whether l is to be served.
func (p *Proxy) connect(l *link) bool {
	server, err := net.DialTimeout("tcp", p.server, controlLimit)
	if err != nil {
		return false
	}
	l.server = server.(*net.TCPConn)
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.quit:
		_ = server.Close()
		return false
	default:
	}
	p.links[l] = struct{}{}
	return true
}

// close ends both connections.
func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// pass passes packets on until src has ended and all that came from it was passed on. Once dst has ended the rest is
// thrown away.
func (l *link) pass(dir Direction, src, dst *net.TCPConn) {
	queue := make(chan *packet, 1024)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(queue)
		l.read(dir, src, queue)
	})
	gone := false
	for pkt := range queue {
		if !l.await(dir, pkt) || gone || pkt.held != nil && pkt.held.dropped {
			continue
		}
		l.note(dir, pkt)
		_, err := dst.Write(pkt.data)
		gone = err != nil
	}
	reader.Wait()
}

// read queues what comes from src, until that ends.
func (l *link) read(dir Direction, src *net.TCPConn, queue chan<- *packet) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if dir == Replies {
			l.answered(err != nil)
		}
		if err != nil {
			return
		}
		pkt := l.proxy.admit(dir, bytes.Clone(buf[:n]))
		if pkt == nil {
			continue
		}
		select {
		case queue <- pkt:
		case <-l.proxy.quit:
			return
		}
	}
}

// await returns when a packet may go on. It reports false if the proxy has ended.
func (l *link) await(dir Direction, pkt *packet) bool {
	if wait := time.Until(pkt.due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.proxy.quit:
			return false
		}
	}
	if pkt.held != nil && !l.until(pkt.held.decided) {
		return false
	}
	for held := l.proxy.heldBack(dir); held != nil; held = l.proxy.heldBack(dir) {
		if !l.until(held) {
			return false
		}
	}
	return true
}

func (l *link) until(event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-l.proxy.quit:
		return false
	}
}

// note remembers a released request that the server is about to get.
func (l *link) note(dir Direction, pkt *packet) {
	if dir != Requests || pkt.held == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		close(pkt.held.answered)
		return
	}
	l.asked = pkt.held
}

// answered says that the server has answered, or ended.
func (l *link) answered(ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = ended
	if l.asked != nil {
		close(l.asked.answered)
		l.asked = nil
	}
}

// exchange sends a request on a connection of its own, and returns when the server has answered.
func exchange(addr string, request []byte) error {
	conn, err := net.DialTimeout("tcp", addr, controlLimit)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(controlLimit)); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 64<<10))
	return err
}
