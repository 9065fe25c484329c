package readthrough

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Result is one key's answer in GetMany.
type Result[V any] struct {
	Value V
	Err   error
}

const (
	// maxLookups is how many keys one round trip of GetMany asks for.
	maxLookups = 500
	// maxMisses is how many misses of one GetMany are under way at a time.
	maxMisses = 1000
	// gatherFor is how long a batch load waits for other misses of its GetMany.
	gatherFor = time.Millisecond
)

// GetMany returns the values of ks in their order, each like Get would. All are
// looked up in one round trip for each 500; what misses is loaded at the same
// time, by one call if there is a WithBatchLoader. The error is the context's;
// whatever concerns one key is in its Result.
func (rt *ReadThrough[K, V]) GetMany(ctx context.Context, ks []K) ([]Result[V], error) {
	results := make([]Result[V], len(ks))
	keys := make([]string, len(ks))
	for i, k := range ks {
		keys[i], results[i].Err = rt.RedisKey(k)
	}
	found := rt.lookupAll(ctx, keys)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g := rt.newGather()
	taken := make(map[string]bool, len(found)) // keys whose value some result has
	var wg sync.WaitGroup
	var panicked sync.Map
	slots := make(chan struct{}, maxMisses)
	for i, k := range ks {
		if keys[i] == "" {
			continue
		}
		l := found[keys[i]]
		if taken[keys[i]] {
			l = rt.own(l)
		}
		taken[keys[i]] = true
		if l.is(fresh) {
			results[i].Value, results[i].Err = rt.serve(ctx, k, keys[i], l, g)
			continue
		}
		slots <- struct{}{}
		wg.Go(func() { // ends with its load or with ctx
			defer func() { <-slots }()
			defer func() {
				if p := recover(); p != nil {
					panicked.Store("loader", p)
				}
			}()
			results[i].Value, results[i].Err = rt.serve(ctx, k, keys[i], l, g)
		})
	}
	wg.Wait()
	if p, ok := panicked.Load("loader"); ok {
		panic(p)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return results, nil
}

// lookupAll asks Redis for all keys, each once.
func (rt *ReadThrough[K, V]) lookupAll(ctx context.Context, keys []string) map[string]lookup[V] {
	found := make(map[string]lookup[V], len(keys))
	var asked []string
	for _, key := range keys {
		if _, again := found[key]; key != "" && !again {
			found[key] = lookup[V]{}
			asked = append(asked, key)
		}
	}
	for start := 0; start < len(asked); start += maxLookups {
		some := asked[start:min(start+maxLookups, len(asked))]
		cmds := make([]redis.Cmder, len(some))
		for i, key := range some {
			cmds[i] = redis.NewStringCmd(ctx, "get", key)
		}
		err := rt.cache.mux.Do(ctx, cmds...)
		for i, key := range some {
			if err != nil {
				found[key] = rt.read(ctx, key, nil, err)
				continue
			}
			raw, err := cmds[i].(*redis.StringCmd).Bytes()
			l := rt.read(ctx, key, raw, err)
			l.raw = raw
			found[key] = l
		}
	}
	return found
}

// own gives a key that was asked for before a value of its own.
func (rt *ReadThrough[K, V]) own(l lookup[V]) lookup[V] {
	if rt.shareable || l.raw == nil || l.is(missing) || l.err != nil {
		return l
	}
	var copied lookup[V]
	if err := rt.decode(l.raw, &copied); err != nil || copied.is(missing) {
		return l
	}
	return copied
}

// gather collects the loads of one GetMany for its batch loader: the idea of
// Facebook's DataLoader.
type gather[K, V any] struct {
	rt *ReadThrough[K, V]

	mu      sync.Mutex
	waiting *batchLoad[K, V]
}

type batchLoad[K, V any] struct {
	keys   []K
	loaded chan struct{}
	values map[string]V
	err    error
}

func (rt *ReadThrough[K, V]) newGather() *gather[K, V] {
	if rt.batch == nil {
		return nil
	}
	return &gather[K, V]{rt: rt}
}

// load is a Loader that waits for company.
func (g *gather[K, V]) load(ctx context.Context, k K) (V, error) {
	g.mu.Lock()
	b := g.waiting
	if b == nil {
		b = &batchLoad[K, V]{loaded: make(chan struct{})}
		g.waiting = b
		batchCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.rt.settings.loadTimeout)
		begun := g.rt.cache.spawn(func() {
			defer cancel()
			g.run(batchCtx, b)
		})
		if !begun {
			cancel()
			b.err = ErrClosed
			close(b.loaded)
		}
	}
	b.keys = append(b.keys, k)
	g.mu.Unlock()
	select {
	case <-b.loaded:
	case <-ctx.Done():
		return zero[V](), ctx.Err()
	}
	if b.err != nil {
		return zero[V](), b.err
	}
	if v, ok := b.values[g.rt.key(k)]; ok {
		return v, nil
	}
	if len(g.rt.settings.notFound) > 0 {
		return zero[V](), g.rt.settings.notFound[0]
	}
	return zero[V](), ErrMiss
}

// run loads b when its company is complete.
func (g *gather[K, V]) run(ctx context.Context, b *batchLoad[K, V]) {
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	<-timer.C
	g.mu.Lock()
	g.waiting = nil // whoever comes now begins another
	g.mu.Unlock()
	defer close(b.loaded)
	b.values, b.err = call(g.rt, ctx, func() {}, func(ctx context.Context) (map[string]V, error) {
		return g.rt.batch(ctx, b.keys)
	})
}

// batchLoader is a batch loader whose types only New knows.
type batchLoader[K comparable, V any] func(ctx context.Context, keys []K) (map[K]V, error)

// keyed is the batch loader if its types are the wrapper's, or nil. It answers by
// extracted key, so that K need be comparable only where there is a batch loader.
func (b batchLoader[K, V]) keyed(key any) any {
	extract, ok := key.(func(K) string)
	if !ok {
		return nil
	}
	return func(ctx context.Context, ks []K) (map[string]V, error) {
		values, err := b(ctx, ks)
		if err != nil {
			return nil, err
		}
		byKey := make(map[string]V, len(values))
		for k, v := range values {
			byKey[extract(k)] = v
		}
		return byKey, nil
	}
}

// adaptBatch checks that the types of a batch loader are the wrapper's.
func adaptBatch[K, V any](batch any, key func(K) string) (func(context.Context, []K) (map[string]V, error), error) {
	adapted, ok := batch.(interface{ keyed(any) any }).keyed(key).(func(context.Context, []K) (map[string]V, error))
	if !ok {
		var k K
		var v V
		return nil, fmt.Errorf("WithBatchLoader: %T does not load the wrapper's %T by its %T", batch, v, k)
	}
	return adapted, nil
}
