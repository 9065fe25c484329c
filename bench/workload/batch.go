package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/dtm-labs/rockscache"
	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// The ways to read many keys.
const (
	getMany    = "readthrough GetMany"
	singleGets = "readthrough Get, 16 goroutines"
	singleRaw  = "GET+msgpack, 16 goroutines"
	pipelined  = "pipelined GETs+msgpack"
	mget       = "MGET+msgpack"
	fetchBatch = "rockscache FetchBatch2"
)

// Batch reads many keys in one call.
func Batch(e *Env) (*Section, error) {
	s := &Section{
		Title: "Many keys in one call",
		Text: fmt.Sprintf("%d keys of the struct of ten fields. go-redis/cache has no batch. Cold means that none of them is in Redis; "+
			"the loader of a batch costs nothing. Round trips are pipelines and commands sent by the client.", e.BatchKeys),
	}
	server := redistest.Start(e)
	contest, err := warmBatches(e, func() redis.UniversalClient { return server.Client() }, e.BatchKeys, true)
	if err != nil {
		return nil, err
	}
	s.Tables = append(s.Tables, batchTable(fmt.Sprintf("warm, %d keys", e.BatchKeys), contest))
	s.Targets = append(s.Targets,
		atMost("warm GetMany: time, by that of pipelined GETs and decoding", 1.15, contest.Ratio(getMany, pipelined, measure.Sample.NsPerOp), "%.2f"),
		atLeast("warm GetMany: time of single Gets at 16 goroutines, which share round trips, by its own", 5, contest.Ratio(singleGets, getMany, measure.Sample.NsPerOp), "%.2f"),
		atLeast("warm GetMany: time of single GET+msgpack at 16 goroutines by its own", 5, contest.Ratio(singleRaw, getMany, measure.Sample.NsPerOp), "%.2f"))
	for _, name := range contest.Names {
		if ratio := contest.Ratio(getMany, name, measure.Sample.NsPerOp); ratio > 1 {
			s.Losses = append(s.Losses, fmt.Sprintf("%d warm keys: %s takes %.2f times the time of %s", e.BatchKeys, getMany, ratio, name))
		}
	}
	cold, targets, lost, err := coldBatches(e)
	if err != nil {
		return nil, err
	}
	s.Tables, s.Targets, s.Losses = append(s.Tables, cold), append(s.Targets, targets...), append(s.Losses, lost...)

	cluster := redistest.StartCluster(e, 3, 0)
	contest, err = warmBatches(e, func() redis.UniversalClient { return cluster.Client() }, e.ClusterKeys, false)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	s.Tables = append(s.Tables, batchTable(fmt.Sprintf("warm, %d keys on a cluster of 3 masters", e.ClusterKeys), contest))
	return s, nil
}

// warmBatches has the ways to read many keys take turns. On a cluster there are only two.
func warmBatches(e *Env, client func() redis.UniversalClient, keys int, all bool) (*measure.Contest, error) {
	var loads, batches atomic.Int64
	ours, err := newBatchPeer(client(), &loads, &batches)
	if err != nil {
		return nil, err
	}
	defer ours.Close() // it has served all its calls: an error would come too late
	own := keysOf("batch", keys)
	if err := ours.getMany(own); err != nil {
		return nil, err
	}
	plain := keysOf(peers.Raw, keys)
	raw := client()
	if err := fillRaw(raw, plain); err != nil {
		return nil, err
	}
	ops := map[string]func() error{
		getMany:   func() error { return ours.getMany(own) },
		pipelined: func() error { return readPipelined(raw, plain) },
	}
	names := []string{getMany, pipelined}
	if all {
		rocks := rockscache.NewClient(client(), rockscache.NewDefaultOptions())
		theirs := keysOf(peers.RockscacheWeak, keys)
		ops[mget] = func() error { return readMGet(raw, plain) }
		ops[singleGets] = func() error {
			return single(own, 16, func(key string) error { return read(context.Background(), ours.Ours, key) })
		}
		ops[singleRaw] = func() error { return single(plain, 16, func(key string) error { return readRaw(raw, key) }) }
		ops[fetchBatch] = func() error { return readFetchBatch(rocks, theirs, &loads, &batches) }
		names = append(names, mget, singleGets, singleRaw, fetchBatch)
	}
	contest := measure.NewContest(names)
	rehearsal := measure.NewContest(names)
	slice := func(name string) (measure.Sample, error) {
		before := loads.Load()
		sample, err := measure.Slice(context.Background(), 1, e.Slice, func(context.Context, *rand.Rand) error { return ops[name]() })
		sample.Loads = loads.Load() - before
		return sample, err
	}
	if err := rehearsal.Round(slice); err != nil {
		return nil, err
	}
	return contest, contest.Rounds(e.Rounds, slice)
}

func batchTable(caption string, c *measure.Contest) Table {
	t := Table{Caption: caption, Columns: []string{"", "ms for all keys", "p99 ms", "allocs", "keys loaded", "GetMany's time by theirs"}}
	for _, name := range c.Names {
		ratio := "-"
		if name != getMany {
			ratio = fmt.Sprintf("%.2fx", c.Ratio(getMany, name, measure.Sample.NsPerOp))
		}
		t.Add(name, fmt.Sprintf("%.2f", c.Median(name, measure.Sample.NsPerOp)/1e6),
			fmt.Sprintf("%.2f", c.Median(name, func(s measure.Sample) float64 { return float64(s.P99) })/1e6),
			fmt.Sprintf("%.0f", c.Median(name, mallocs)), fmt.Sprint(c.Loads(name)), ratio)
	}
	return t
}

// batchPeer is this library with a batch loader.
type batchPeer struct {
	*peers.Ours[Book]
}

// newBatchPeer counts the keys that it loads, and the calls of its batch loader.
func newBatchPeer(client redis.UniversalClient, loads, batches *atomic.Int64) (*batchPeer, error) {
	ours, err := peers.OpenReadthroughOn(client, counted(loadBook, loads), readthrough.WithBatchLoader(
		func(ctx context.Context, keys []string) (map[string]Book, error) {
			batches.Add(1)
			loads.Add(int64(len(keys)))
			books := make(map[string]Book, len(keys))
			for _, key := range keys {
				books[key], _ = loadBook(ctx, key) // cannot fail
			}
			return books, nil
		}))
	return &batchPeer{ours}, err
}

func (b *batchPeer) getMany(keys []string) error {
	results, err := b.GetMany(context.Background(), keys)
	if err != nil {
		return err
	}
	for i, r := range results {
		if r.Err != nil {
			return r.Err
		}
		if r.Value.ID != idOf(keys[i]) {
			return fmt.Errorf("the value of %s is that of %d", keys[i], r.Value.ID)
		}
	}
	return nil
}

// single reads the keys one by one, on some goroutines.
func single(keys []string, goroutines int, one func(key string) error) error {
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for g := range goroutines {
		wg.Go(func() { // ends with its share of the keys
			for i := g; i < len(keys) && errs[g] == nil; i += goroutines {
				errs[g] = one(keys[i])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func fillRaw(client redis.UniversalClient, keys []string) error {
	pipe := client.Pipeline()
	for _, key := range keys {
		v, _ := loadBook(context.Background(), key) // cannot fail
		b, err := msgpack.Marshal(&v)
		if err != nil {
			return err
		}
		pipe.Set(context.Background(), key, b, peers.TTL)
	}
	_, err := pipe.Exec(context.Background())
	return err
}

func readRaw(client redis.UniversalClient, key string) error {
	b, err := client.Get(context.Background(), key).Bytes()
	if err != nil {
		return err
	}
	var book Book
	return decodeOwn(b, &book, key)
}

func readPipelined(client redis.UniversalClient, keys []string) error {
	pipe := client.Pipeline()
	cmds := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		cmds[i] = pipe.Get(context.Background(), key)
	}
	if _, err := pipe.Exec(context.Background()); err != nil {
		return err
	}
	books := make([]Book, len(keys))
	for i, cmd := range cmds {
		b, err := cmd.Bytes()
		if err != nil {
			return err
		}
		if err := decodeOwn(b, &books[i], keys[i]); err != nil {
			return err
		}
	}
	return nil
}

func readMGet(client redis.UniversalClient, keys []string) error {
	entries, err := client.MGet(context.Background(), keys...).Result()
	if err != nil {
		return err
	}
	books := make([]Book, len(keys))
	for i, entry := range entries {
		s, ok := entry.(string)
		if !ok {
			return fmt.Errorf("%s is not there", keys[i])
		}
		if err := decodeOwn([]byte(s), &books[i], keys[i]); err != nil {
			return err
		}
	}
	return nil
}

func readFetchBatch(rocks *rockscache.Client, keys []string, loads, batches *atomic.Int64) error {
	entries, err := rocks.FetchBatch2(context.Background(), keys, peers.TTL, func(missing []int) (map[int]string, error) {
		batches.Add(1)
		loads.Add(int64(len(missing)))
		found := make(map[int]string, len(missing))
		for _, i := range missing {
			v, _ := loadBook(context.Background(), keys[i]) // cannot fail
			b, err := msgpack.Marshal(&v)
			if err != nil {
				return nil, err
			}
			found[i] = string(b)
		}
		return found, nil
	})
	if err != nil {
		return err
	}
	books := make([]Book, len(keys))
	for i, key := range keys {
		if err := decodeOwn([]byte(entries[i]), &books[i], key); err != nil {
			return err
		}
	}
	return nil
}

// decodeOwn decodes a book and checks that it is the one of key.
func decodeOwn(b []byte, v *Book, key string) error {
	err := msgpack.Unmarshal(b, v)
	if err == nil && v.ID != idOf(key) {
		err = fmt.Errorf("the value of %s is that of %d", key, v.ID)
	}
	return err
}
