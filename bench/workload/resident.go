package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// Resident reads hits while more and more keys are in Redis.
func Resident(e *Env) (*Section, error) {
	const goroutines = 128
	names := []string{peers.Readthrough, peers.Raw, peers.AutoPipeline}
	s := &Section{
		Title: "Many keys",
		Text: fmt.Sprintf("%d goroutines read all of the keys at random, while so many of each peer are in Redis. "+
			"The entries are copies of one, made by a script.", goroutines),
	}
	t := Table{Columns: []string{"keys of each", "ops/s: " + names[0], names[1], names[2], "p99 µs: " + names[0], names[1], names[2]}}
	for _, n := range e.Resident {
		levels, err := residentHits(e, names, goroutines, n)
		if err != nil {
			return nil, fmt.Errorf("%d keys: %w", n, err)
		}
		row := []string{fmt.Sprint(n)}
		for _, name := range names {
			row = append(row, fmt.Sprintf("%.0f", levels[0].Median(name, measure.Sample.PerSecond)))
		}
		for _, name := range names {
			p99 := levels[0].Median(name, func(s measure.Sample) float64 { return float64(s.P99) })
			row = append(row, fmt.Sprintf("%.0f", p99/1e3))
		}
		t.Add(row...)
		s.Losses = append(s.Losses, losses(fmt.Sprintf("hits with %d keys in Redis", n), levels[0].Contest)...)
	}
	s.Tables = []Table{t}
	return s, nil
}

func residentHits(e *Env, names []string, goroutines, keys int) ([]level, error) {
	server := redistest.Start(e)
	client := server.Client(func(o *redis.Options) { o.ReadTimeout = patience }) // the script takes its time
	all := make(map[string]*contender)
	for _, name := range names {
		c := &contender{}
		peer, err := peers.All[Book]()[name](server.Addr(), counted(loadFirst, &c.loads))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		defer peer.Close() // it has served all its calls: an error would come too late
		own := keysOf(name, keys)
		if _, err := hitOp(peer, own[:1]); err != nil {
			return nil, err
		}
		prefix := ""
		if ours, ok := peer.(*peers.Ours[Book]); ok {
			stored, err := ours.RedisKey(own[0])
			if err != nil {
				return nil, err
			}
			prefix = stored[:len(stored)-len(own[0])]
		}
		if err := copyEntry(client, prefix+own[0], keys); err != nil {
			return nil, err
		}
		c.op = copyOp(peer, own)
		all[name] = c
	}
	levels := newLevels(names, goroutines)
	return levels, race(e, levels, all)
}

// loadFirst is the loader of keys whose values are all that of the first.
func loadFirst(ctx context.Context, key string) (Book, error) {
	return loadBook(ctx, key[:len(key)-7]+"0000000")
}

// copyOp reads one of the keys, whose values are all that of the first.
func copyOp(peer peers.Peer[Book], keys []string) measure.Op {
	return func(ctx context.Context, random *rand.Rand) error {
		key := keys[random.IntN(len(keys))]
		v, err := peer.Get(ctx, key)
		if err == nil && v.ID != idOf(keys[0]) {
			err = fmt.Errorf("%s is no copy, but the value of %d", key, v.ID)
		}
		return err
	}
}

// copyScript writes the entry at a key to those with the numbers from ARGV[1] to ARGV[2].
var copyScript = redis.NewScript(`
	local entry, stem = redis.call('GET', KEYS[1]), string.sub(KEYS[1], 1, -8)
	for i = ARGV[1], ARGV[2] do redis.call('SET', stem .. string.format('%07d', i), entry) end
`)

// copyEntry copies the entry of key 0 to all other keys.
func copyEntry(client *redis.Client, key string, keys int) error {
	const step = 50_000
	for from := 1; from < keys; from += step {
		to := min(from+step, keys) - 1
		err := copyScript.Run(context.Background(), client, []string{key}, from, to).Err()
		if err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("copy %s: %w", key, err)
		}
	}
	return nil
}
