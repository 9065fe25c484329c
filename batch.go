package readthrough

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/flight"
	"github.com/readthrough-go/readthrough/internal/lease"
	"github.com/readthrough-go/readthrough/internal/mux"
)

// Result is one key's answer in GetMany and Each.
type Result[V any] struct {
	Value V
	Err   error
}

// GetMany returns the values of ks in their order, each like Get would. All are
// looked up in one round trip, more than 512 of them in equal parts, two round trips
// at a time. What misses is loaded by one call of the batch loader for each
// WithBatchSize, under leases taken in one round trip and stored in another; without
// WithBatchLoader the loader is called for each, up to 16 at a time. The error is
// the context's; whatever concerns one key is in its Result. A panic of a loader is
// raised again when all the others have their Result.
func (rt *ReadThrough[K, V]) GetMany(ctx context.Context, ks []K) ([]Result[V], error) {
	return rt.getMany(ctx, ks, nil)
}

// getMany is GetMany that fills infos, if there are any.
func (rt *ReadThrough[K, V]) getMany(ctx context.Context, ks []K, infos []Info) ([]Result[V], error) {
	m := many[K, V]{rt: rt, ks: ks, infos: infos, results: make([]Result[V], len(ks)), keys: make([]string, len(ks))}
	for i, k := range ks {
		m.keys[i], m.results[i].Err = rt.RedisKey(k)
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
	if m.panicked != nil {
		panic(m.panicked)
	}
	return m.results, nil
}

// many is the course of one GetMany.
type many[K, V any] struct {
	rt       *ReadThrough[K, V]
	ks       []K
	keys     []string // empty: the key is not to be asked for
	results  []Result[V]
	infos    []Info
	firstAt  []int // where the key is in keys for the first time
	found    []lookup[V]
	down     atomic.Pointer[error] // Redis could not be asked
	missed   []int                 // those whose results are to be awaited
	panicked any
}

// miss is what a flight needs to know: it may go on when GetMany has returned, and
// its caller does what it likes with the slice of keys.
type miss[K any] struct {
	k     K
	start lease.Course
}

// info is where the Info of the i-th key goes: nil if nobody asked.
func (m *many[K, V]) info(i int) *Info {
	if m.infos == nil {
		return nil
	}
	return &m.infos[i]
}

// get is the question for the key at a place in keys.
type get struct {
	at  int
	cmd *redis.StringCmd
}

// lookup asks Redis for all keys, each once.
func (m *many[K, V]) lookup(ctx context.Context) {
	m.found = make([]lookup[V], len(m.keys))
	m.firstAt = make([]int, len(m.keys))
	firstAt := make(map[string]int, len(m.keys))
	gets := make([]get, 0, len(m.keys))
	for i, key := range m.keys {
		if key == "" {
			continue
		}
		first, again := firstAt[key]
		if !again {
			first, firstAt[key] = i, i
			gets = append(gets, get{i, redis.NewStringCmd(ctx, "get", key)})
		}
		m.found[i].value = &m.results[i].Value
		m.firstAt[i] = first
	}
	if len(gets) == 0 {
		return
	}
	// As much as a pipeline holds, and as many as can be under way.
	parts := (len(gets)-1)/mux.MaxCommands + 1
	began := time.Now()
	sideBySide(m.rt.cache, gets, (len(gets)-1)/parts+1, mux.MaxPipelines, func(some []get) { m.ask(ctx, some, began) })
}

// ask looks up some of the keys in one round trip. One wait for Redis is enough: it
// is not asked for the parts that follow one without an answer, or that follow the
// budget when a node of a cluster has failed.
func (m *many[K, V]) ask(ctx context.Context, gets []get, began time.Time) {
	down := m.down.Load()
	if down == nil {
		cmds := make([]redis.Cmder, len(gets))
		for i, g := range gets {
			cmds[i] = g.cmd
		}
		if err := m.rt.cache.mux.Do(ctx, cmds...); err != nil {
			down = &err
			m.down.Store(down)
		}
	}
	var lost error
	for _, g := range gets {
		var raw []byte
		var err error
		if down != nil {
			err = *down
		} else {
			raw, err = g.cmd.Bytes()
		}
		found := &m.found[g.at]
		m.rt.read(ctx, m.keys[g.at], raw, err, found)
		if found.failed != nil {
			lost = found.failed
		}
	}
	if down == nil && lost != nil && time.Since(began) > m.rt.cache.settings.redisTimeout {
		m.down.Store(&lost)
	}
}

// serve answers what was found.
func (m *many[K, V]) serve(ctx context.Context) {
	var outdated []staleRead[K]
	for i, key := range m.keys {
		if key == "" {
			continue
		}
		found := &m.found[i]
		if first := m.firstAt[i]; first != i {
			m.own(i, first)
		}
		switch m.rt.judge(ctx, key, found) {
		case await:
			m.missed = append(m.missed, i)
			continue
		case serveAndRefresh:
			outdated = append(outdated, staleRead[K]{m.ks[i], key, found.entry.LoadedAt})
		}
		m.results[i].Err = m.rt.hit(ctx, key, found, m.info(i))
	}
	if len(outdated) > 0 {
		m.rt.refresh(ctx, outdated...)
	}
}

// await joins or begins the flights of what was not found, and waits for them.
func (m *many[K, V]) await(ctx context.Context) {
	if len(m.missed) == 0 {
		return
	}
	keys := make([]string, len(m.missed))
	misses := make(map[string]miss[K], len(m.missed))
	for j, i := range m.missed {
		keys[j] = m.keys[i]
		misses[keys[j]] = miss[K]{m.ks[m.firstAt[i]], courseAfter(&m.found[i])}
	}
	began := time.Now()
	rt := m.rt // the flights keep that, and nothing else of this call
	seats := rt.flights.JoinMany(ctx, keys, func(begun []*flight.Flight[outcome[V]]) { rt.runMisses(begun, misses) })
	for j, i := range m.missed {
		if seats == nil {
			m.results[i] = Result[V]{Err: ErrClosed}
			continue
		}
		m.land(ctx, i, seats[j], began)
	}
}

func (m *many[K, V]) land(ctx context.Context, i int, seat *flight.Seat[outcome[V]], began time.Time) {
	defer func() {
		if p := recover(); p != nil {
			m.panicked = p
		}
	}()
	value, err := m.rt.land(ctx, m.keys[i], seat, &m.found[i], began, m.info(i))
	m.results[i] = Result[V]{value, err}
}

// runMisses takes the flights that a GetMany has begun to their end.
func (rt *ReadThrough[K, V]) runMisses(begun []*flight.Flight[outcome[V]], misses map[string]miss[K]) {
	rs := make([]*run[K, V], len(begun))
	for j, f := range begun {
		miss := misses[f.Key]
		rs[j] = rt.prime(f, miss.k, run[K, V]{batched: true, Course: miss.start})
	}
	rt.drive(rs)
}

// own answers the i-th key as its first, but with a value of its own.
func (m *many[K, V]) own(i, first int) {
	value := m.found[i].value
	m.found[i] = m.found[first]
	found := &m.found[i]
	original := found.value
	found.value = value
	if !m.rt.shareable && !found.is(missing) && found.err == nil {
		if decodeValue(m.rt.settings.codec, found.entry.Value, value) == nil {
			return
		}
	}
	*value = *original // nothing to own, or what cannot be decoded again can only be shared
}

// Each returns the results of any number of keys, in their order, asking for 1000
// at a time with GetMany. When ctx ends, the keys at hand have its error, and the
// rest is not asked for.
func (rt *ReadThrough[K, V]) Each(ctx context.Context, seq iter.Seq[K]) iter.Seq2[K, Result[V]] {
	return func(yield func(K, Result[V]) bool) {
		for ks := range chunks(seq, maxKeys) {
			results, err := rt.GetMany(ctx, ks)
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
// before a process takes traffic, say. The error is the context's; what was done
// until then is counted.
func (rt *ReadThrough[K, V]) Warm(ctx context.Context, seq iter.Seq[K]) (Warmed, error) {
	var done Warmed
	for ks := range chunks(seq, maxKeys) {
		infos := make([]Info, len(ks))
		_, err := rt.getMany(ctx, ks, infos)
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
