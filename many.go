package readthrough

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/readthrough-go/readthrough/internal/fill"
)

// Result is one key's answer in GetMany and Each.
type Result[V any] struct {
	Value V
	Err   error
}

// GetMany returns the values of ks in their order, each like Get would. All are looked up
// in one round trip, more than 512 of them, or than a megabyte of values as they were so
// far, in several, two at a time; on a cluster each node by itself. What
// misses is loaded by one call of the batch loader for each WithBatchSize, under leases
// taken in one round trip and stored in another; without WithBatchLoader it is loaded as
// Get does it, up to 16 keys at a time.
//
// The error is the context's, or ErrClosed; whatever concerns one key is in its Result. A panic of a
// loader is raised again when the loads of the other keys have ended.
func (rt *ReadThrough[K, V]) GetMany(ctx context.Context, ks []K) ([]Result[V], error) {
	call, err := rt.cache.enter(ctx)
	defer call.End()
	if err != nil {
		return nil, err
	}
	return rt.getMany(ctx, ks, nil, rt.copies != nil)
}

// getMany is GetMany that fills infos, if there are any. Only if local are copies in this process
// served and kept.
func (rt *ReadThrough[K, V]) getMany(ctx context.Context, ks []K, infos []Info, local bool) ([]Result[V], error) {
	m := many[K, V]{rt: rt, reads: make([]read[K, V], len(ks)), results: make([]Result[V], len(ks))}
	var now time.Duration
	leased := false
	if local {
		now, leased = rt.copies.store.Now()
	}
	for i, k := range ks {
		r := &m.reads[i]
		r.rt, r.k, r.found.value = rt, k, &m.results[i].Value
		if infos != nil {
			r.info = &infos[i]
		}
		if leased {
			if v, err := rt.findCopy(ctx, k, now, r.info); v != nil {
				m.results[i] = Result[V]{*v, err}
				continue // without a key, it is not asked for
			}
		}
		if r.key, m.results[i].Err = rt.RedisKey(k); local && r.key != "" {
			r.noteGuard()
		}
	}
	m.lookup(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.serve(ctx)
	m.await(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.results, nil
}

// many is the reads of one GetMany.
type many[K, V any] struct {
	rt       *ReadThrough[K, V]
	reads    []read[K, V] // those without a key are not asked for
	results  []Result[V]
	distinct []int            // the reads of keys that come for the first time
	firstAt  []int            // where the key of a read comes for the first time
	missed   map[string][]int // by key: the reads whose results are to be awaited
}

// lookup asks Redis for all keys, each once.
func (m *many[K, V]) lookup(ctx context.Context) {
	m.firstAt = make([]int, len(m.reads))
	firstAt := make(map[string]int, len(m.reads))
	for i := range m.reads {
		key := m.reads[i].key
		if key == "" {
			continue
		}
		first, again := firstAt[key]
		if !again {
			first, firstAt[key] = i, i
			m.distinct = append(m.distinct, i)
		}
		m.firstAt[i] = first
	}
	if len(m.distinct) > 0 && !m.rt.cache.disabled() {
		m.ask(ctx)
	}
}

// ask looks up the distinct reads.
func (m *many[K, V]) ask(ctx context.Context) {
	keys := make([]string, len(m.distinct))
	for j, i := range m.distinct {
		keys[j] = m.reads[i].key
	}
	got := m.rt.cache.readMany(ctx, keys, &m.rt.replySize)
	// Decoding takes longer than the round trip: many values are shared out to the processors.
	parts := fill.Shares(len(keys), worthSharing)
	fill.Parallel(m.rt.cache.work.Go, parts, len(parts), func(part fill.Share) {
		for j := part.From; j < part.To; j++ {
			raw, err := got(j)
			m.reads[m.distinct[j]].answered(ctx, raw, err)
		}
	})
}

// worthSharing is how many values keep a processor busy for longer than it takes to begin.
const worthSharing = 64

// serve answers what was found.
func (m *many[K, V]) serve(ctx context.Context) {
	var outdated []fill.Stale[K]
	for i := range m.reads {
		r := &m.reads[i]
		if r.key == "" {
			continue
		}
		if first := m.firstAt[i]; first != i {
			m.copyFor(r, &m.reads[first])
		}
		switch r.decide(ctx) {
		case await:
			if m.missed == nil {
				m.missed = make(map[string][]int)
			}
			m.missed[r.key] = append(m.missed[r.key], i)
			continue
		case serveAndRefresh:
			outdated = append(outdated, r.stale())
		}
		_, m.results[i].Err = r.hit(ctx)
	}
	if len(outdated) > 0 {
		m.rt.engine.Refresh(ctx, outdated...)
	}
}

// await joins or begins the loads of what was not found, and waits for them.
func (m *many[K, V]) await(ctx context.Context) {
	if len(m.missed) == 0 {
		return
	}
	missed := slices.DeleteFunc(m.distinct, func(i int) bool { return m.missed[m.reads[i].key] == nil })
	groups, parallel := fill.Groups(m.rt.engine, missed)
	fill.Parallel(m.rt.cache.work.Go, groups, parallel, func(firsts []int) { m.awaitGroup(ctx, firsts) })
}

// awaitGroup is await for the reads of some keys, which are loaded together.
func (m *many[K, V]) awaitGroup(ctx context.Context, firsts []int) {
	if ctx.Err() != nil {
		return // the whole call ends with its error
	}
	var reads []int
	var misses []fill.Miss[K]
	for _, first := range firsts {
		for _, i := range m.missed[m.reads[first].key] {
			reads = append(reads, i)
			misses = append(misses, m.reads[i].miss())
		}
	}
	began := time.Now()
	seats := m.rt.engine.JoinMany(ctx, misses)
	var panicked any // of a loader, which the others do not suffer for
	for j, i := range reads {
		func() {
			defer func() {
				if p := recover(); p != nil {
					panicked = p
				}
			}()
			value, err := m.reads[i].await(ctx, seats[j], began)
			m.results[i] = Result[V]{value, err}
		}()
	}
	if panicked != nil {
		panic(panicked)
	}
}

// copyFor answers r as first, the read of the same key, but with a value of its own.
func (m *many[K, V]) copyFor(r, first *read[K, V]) {
	value := r.found.value
	r.found = first.found
	r.found.value = value
	if !m.rt.types.shareable && !r.found.is(missing) && r.found.err == nil {
		if m.rt.settings.decodeEntry(r.key, &r.found.entry, m.rt.types.values, value) == nil {
			return
		}
	}
	*value = *first.found.value // nothing to own, or what cannot be decoded again can only be shared
}

// Each returns the results of any number of keys, in their order, asking for 1000
// at a time with GetMany. When ctx ends, the keys at hand have its error, and the
// rest is not asked for.
func (rt *ReadThrough[K, V]) Each(ctx context.Context, seq iter.Seq[K]) iter.Seq2[K, Result[V]] {
	return func(yield func(K, Result[V]) bool) {
		call, closed := rt.cache.enter(ctx)
		defer call.End()
		for ks := range chunks(seq, maxKeys) {
			results, err := []Result[V](nil), closed
			if err == nil {
				results, err = rt.getMany(ctx, ks, nil, rt.copies != nil)
			}
			for i, k := range ks {
				result := Result[V]{Err: err}
				if err == nil {
					result = results[i]
				}
				if !yield(k, result) {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
}

// Warmed says what Warm did.
type Warmed struct {
	Loaded  int // keys that were loaded, not-founds of WithNotFound among them
	Present int // keys that were in Redis, or that another caller or process loaded
	Failed  int // keys whose load failed, or that have an empty key
}

// Warm fills the cache with the values of seq, 1000 keys at a time, with GetMany:
// before a process takes traffic, say. The error is the context's, or ErrClosed; what was done
// until then is counted.
func (rt *ReadThrough[K, V]) Warm(ctx context.Context, seq iter.Seq[K]) (Warmed, error) {
	var done Warmed
	call, err := rt.cache.enter(ctx)
	defer call.End()
	if err != nil {
		return done, err
	}
	for ks := range chunks(seq, maxKeys) {
		infos := make([]Info, len(ks))
		_, err := rt.getMany(ctx, ks, infos, false)
		for _, info := range infos {
			switch info.Source {
			case SourceLoaded:
				done.Loaded++
			case SourceNone:
				if err == nil { // else it may not have been awaited
					done.Failed++
				}
			default:
				done.Present++
			}
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// chunks gives the values of seq, up to n at a time.
func chunks[T any](seq iter.Seq[T], n int) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		var some []T
		for v := range seq {
			if some = append(some, v); len(some) == n {
				if !yield(some) {
					return
				}
				some = nil
			}
		}
		if len(some) > 0 {
			yield(some)
		}
	}
}

// batchLoader is a batch loader whose types only New knows.
type batchLoader[K comparable, V any] func(ctx context.Context, keys []K) (map[K]V, error)

// keyed is the batch loader if its types are the wrapper's, or nil. It answers by Redis
// key, so that K need be comparable only where there is a batch loader.
func (b batchLoader[K, V]) keyed(key any) any {
	redisKey, ok := key.(func(K) string)
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
			byKey[redisKey(k)] = v
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
