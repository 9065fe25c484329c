//go:build linux

package coherence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// stressFaultKinds is what a network may do to packets and connections. Each function does it once, and undoes it.
var stressFaultKinds = []struct {
	name string
	do   func(ctx context.Context, p *redistest.Proxy, dir redistest.Direction)
}{
	{"packet held", func(ctx context.Context, p *redistest.Proxy, dir redistest.Direction) {
		held := p.HoldNext(dir, somePacket())
		defer held.Release()
		stall(ctx, 100, 60*time.Millisecond)
	}},
	{"packet of a dead connection comes late", func(ctx context.Context, p *redistest.Proxy, _ redistest.Direction) {
		held := p.HoldNext(redistest.Requests, somePacket())
		defer held.Release()
		select {
		case <-held.Caught():
			p.Cut()
			stall(ctx, 100, 60*time.Millisecond)
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}},
	{"packet lost", func(ctx context.Context, p *redistest.Proxy, dir redistest.Direction) {
		held := p.HoldNext(dir, somePacket())
		stall(ctx, 100, 10*time.Millisecond)
		held.Drop()
		p.Cut()
	}},
	{"all packets held", func(ctx context.Context, p *redistest.Proxy, dir redistest.Direction) {
		p.Hold(dir)
		defer p.Release(dir)
		stall(ctx, 100, 15*time.Millisecond)
	}},
	{"all packets lost", func(ctx context.Context, p *redistest.Proxy, dir redistest.Direction) {
		p.Drop(dir, true)
		stall(ctx, 100, 10*time.Millisecond)
		p.Drop(dir, false)
		p.Cut()
	}},
	{"slow", func(ctx context.Context, p *redistest.Proxy, dir redistest.Direction) {
		p.Delay(dir, rand.N(2*time.Millisecond), 5*time.Millisecond)
		defer p.Delay(dir, 0, 0)
		stall(ctx, 100, 40*time.Millisecond)
	}},
	{"connections cut", func(_ context.Context, p *redistest.Proxy, _ redistest.Direction) { p.Cut() }},
}

// somePacket matches any packet, or only those of a protocol step.
func somePacket() func([]byte) bool {
	return [...]func([]byte) bool{
		nil, redistest.Saying("set", ":lease"), redistest.Saying("eval"), redistest.Saying("unlink"), redistest.Saying("get"),
	}[rand.IntN(5)]
}

// stressFaults counts what was done to packets and connections.
type stressFaults struct {
	counts [7]atomic.Int64 // by stressFaultKinds
}

// run does one thing after the other, several at a time, until ctx ends.
func (f *stressFaults) run(ctx context.Context, p *redistest.Proxy) {
	var gremlins sync.WaitGroup
	for range 2 {
		gremlins.Go(func() {
			for ctx.Err() == nil {
				i := rand.IntN(len(stressFaultKinds))
				f.counts[i].Add(1)
				stressFaultKinds[i].do(ctx, p, redistest.Direction(rand.IntN(2)))
				stall(ctx, 100, 120*time.Millisecond)
			}
		})
	}
	gremlins.Wait()
}

func (f *stressFaults) summary() string {
	var parts []string
	for i := range stressFaultKinds {
		parts = append(parts, fmt.Sprintf("%d %s", f.counts[i].Load(), stressFaultKinds[i].name))
	}
	return strings.Join(parts, ", ")
}
