package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// Miss reads keys that nobody has read before, with a loader that costs nothing.
func Miss(e *Env) (*Section, error) {
	server := redistest.Start(e)
	names := []string{peers.Readthrough, peers.Raw, peers.GoRedisCache, peers.RockscacheWeak, peers.Rueidis}
	all := make(map[string]*contender)
	for _, name := range names {
		c := &contender{}
		peer, err := peers.All[Book]()[name](server.Addr(), counted(loadBook, &c.loads))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		defer peer.Close() // it has served all its calls: an error would come too late
		c.op = missOp(peer, keysOf(name, 1)[0])
		all[name] = c
	}
	levels := newLevels(names, 1, 128)
	if err := race(e, levels, all); err != nil {
		return nil, err
	}
	s := &Section{
		Title: "Misses",
		Text: "Each call reads a key that nobody has read before. The loader costs nothing, so this is the price of a miss itself: " +
			"two commands for those who only store what they have loaded; a lease as well where concurrent loads in other processes " +
			"and invalidations are minded.",
	}
	s.compare("misses", levels)
	return s, nil
}

func missOp(peer peers.Peer[Book], key string) measure.Op {
	var next atomic.Int64
	namespace := key[:len(key)-7]
	return func(ctx context.Context, _ *rand.Rand) error {
		return read(ctx, peer, fmt.Sprintf("%s%07d", namespace, next.Add(1)))
	}
}
