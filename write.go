package readthrough

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/lease"
)

// Set stores v as the value of k, in two round trips, and keeps loads under way from
// overwriting it. What an Invalidate or another Set overtakes is not stored, and is no error;
// nor is it where Redis refuses what that takes: then k is invalidated. A value that cannot be
// stored, or that WithTTLFor does not want to be, invalidates k. The error says why v cannot be
// stored, or is a *WriteError: then the key is invalidated as soon as Redis can be reached. It
// is ErrEmptyKey if there is no key.
func (rt *ReadThrough[K, V]) Set(ctx context.Context, k K, v V) error {
	return rt.SetMany(ctx, func(yield func(K, V) bool) { yield(k, v) })
}

// SetMany is Set for many pairs, as maps.All gives them for a map, in two round trips for
// each 1000. Of several pairs with one key the last one counts. The error is that of
// Set for the keys whose values are not stored; the others are.
func (rt *ReadThrough[K, V]) SetMany(ctx context.Context, pairs iter.Seq2[K, V]) error {
	call, closed := rt.cache.enter(ctx)
	defer call.End()
	w := setMany[K, V]{rt: rt, closed: closed}
	for k, v := range pairs {
		w.add(k, v)
		if len(w.items)+len(w.unkept) >= maxKeys {
			w.flush(ctx)
		}
	}
	w.flush(ctx)
	return w.err()
}

// setMany is one SetMany under way.
type setMany[K, V any] struct {
	rt     *ReadThrough[K, V]
	closed error // nothing is written
	items  []lease.Item
	unkept []string // their values cannot be stored, or are not to be: so none is kept
	left   []string // Redis may not have these
	reason error
	down   error // Redis cannot be reached: what follows is not sent, only noted as failed
	errs   []error
}

// add prepares one pair to be written by the next flush.
func (w *setMany[K, V]) add(k K, v V) {
	key, err := w.rt.RedisKey(k)
	if err != nil {
		w.errs = append(w.errs, err)
		return
	}
	e, err := w.rt.encode(key, v, fill.Loaded{At: w.rt.cache.settings.clock.Now()})
	switch {
	case err != nil || e.Skip: // what was there is out of date all the same
		if err != nil {
			w.errs = append(w.errs, failed("set "+key, err))
		}
		w.items = slices.DeleteFunc(w.items, func(item lease.Item) bool { return item.Key == key })
		w.unkept = append(w.unkept, key)
	default:
		w.items = append(w.items, lease.Item{Key: key, Entry: e.Bytes, TTL: e.Keep})
	}
}

// flush writes what was added.
func (w *setMany[K, V]) flush(ctx context.Context) {
	rt := w.rt
	keys := make([]string, len(w.items))
	for i, item := range w.items {
		keys[i] = item.Key
	}
	// What is invalidated goes first, so that a later pair of the same key stays.
	w.note(rt.write(ctx, w.closed, w.unkept, rt.cache.invalidator(ctx)))
	w.note(rt.write(ctx, w.closed, keys, func(keys []string) (left []string, err error) {
		if w.down != nil {
			return keys, w.down
		}
		left, err = rt.cache.leases.Set(ctx, w.items...)
		if len(left) == len(keys) {
			w.down = err
		}
		return left, err
	}))
	w.items, w.unkept = nil, nil
}

// note keeps the keys that a write has left.
func (w *setMany[K, V]) note(left []string, err error) {
	if err != nil {
		w.left, w.reason = append(w.left, left...), err
	}
}

// err returns what went wrong: a single error as it is.
func (w *setMany[K, V]) err() error {
	if w.reason != nil {
		w.errs = append(w.errs, &WriteError{Op: "set", Keys: w.left, Err: w.reason})
	}
	return joined(w.errs...)
}

// Invalidate says that the values of ks have changed: call it after the write. A Get that
// starts after Invalidate has returned, in any process, does not return what was loaded
// before. The error is a *WriteError that names the keys whose entries may still be there
// because Redis could not be reached; they are retried in the background until it can, or
// until the entries have expired, or for 100,000 keys at most. After Close they are not:
// then errors.Is finds ErrClosed too. It also finds ErrEmptyKey if one of ks has no key; the
// others are invalidated.
func (rt *ReadThrough[K, V]) Invalidate(ctx context.Context, ks ...K) error {
	return rt.writeKeys(ctx, "invalidate", ks, rt.cache.invalidator(ctx))
}

// Expire says that the values of ks are out of date but may be served a last time: the
// next read is answered with the old value and starts one refresh. The entries are kept
// for no longer than WithStale; without that, Expire is Invalidate. What is being loaded
// meanwhile is not stored, for it may be as old. The error is that of Invalidate, and
// what it names is invalidated as soon as Redis can be reached.
func (rt *ReadThrough[K, V]) Expire(ctx context.Context, ks ...K) error {
	if rt.settings.stale == 0 {
		return rt.writeKeys(ctx, "expire", ks, rt.cache.invalidator(ctx))
	}
	return rt.writeKeys(ctx, "expire", ks, func(keys []string) ([]string, error) {
		return rt.cache.leases.Expire(ctx, rt.cache.settings.clock.Now(), rt.settings.stale, keys...)
	})
}

// Update calls write, which changes the value of k in the database, and invalidates k: nothing stays
// stale even if the process dies in between. The entry is deleted before, and nothing is stored until
// the write has ended: readers load meanwhile. That takes two round trips besides the write. Several
// Updates of a key may overlap. The order is that of Facebook's memcache with a lease that outlives a
// crash; docs/updates.md tells what can go wrong.
//
// The write's context ends with ctx, and after WithWriteTimeout. Its error is returned as it is, and k
// is invalidated all the same, as after a panic: the outcome may be unknown. If the invalidation has
// failed, a *WriteError is joined to it, and is retried as that of Invalidate; write is called with
// Redis or without. It is not called if the error is ErrEmptyKey, ErrClosed, or that of a ctx which has
// ended before.
func (rt *ReadThrough[K, V]) Update(ctx context.Context, k K, write func(ctx context.Context) error) error {
	return rt.UpdateMany(ctx, []K{k}, write)
}

// UpdateMany is Update of several keys whose values one write changes: in a transaction, say.
func (rt *ReadThrough[K, V]) UpdateMany(
	ctx context.Context, ks []K, write func(ctx context.Context) error,
) (err error) {
	call, err := rt.cache.enter(ctx)
	defer call.End()
	if err != nil {
		return err
	}
	keys, err := rt.keysOf("update", ks)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	token := lease.NewToken()
	left, begin := rt.cache.leases.BeginWrite(ctx, token, rt.settings.lease.write+writeMargin, keys...)
	if rt.settings.local.on { // copies outlive a crash
		_, begin = rt.cache.fence(ctx, true, keys, left, begin)
	}
	if begin != nil {
		rt.meter.note(ctx, EventRedisError, "", 0, begin)
	}
	defer func() { // also after a panic, and a Goexit
		ctx := context.WithoutCancel(ctx)
		left, failed := rt.write(ctx, nil, keys, func(keys []string) ([]string, error) {
			return rt.cache.leases.EndWrite(ctx, token, keys...)
		})
		if failed != nil {
			err = joined(err, &WriteError{Op: "update", Keys: left, Err: failed})
		}
	}()
	writing, cancel := context.WithTimeout(rt.cache.within(ctx), rt.settings.lease.write)
	defer cancel()
	return write(writing)
}

// writeMargin is how long the lease of a write lasts beyond its timeout: a database may commit what it
// had been sent before the process died.
const writeMargin = 5 * time.Second

// writeKeys changes the entries of ks by send.
func (rt *ReadThrough[K, V]) writeKeys(ctx context.Context, op string, ks []K, send sender) error {
	call, closed := rt.cache.enter(ctx)
	defer call.End()
	keys, empty := rt.keysOf(op, ks)
	if left, err := rt.write(ctx, closed, keys, send); err != nil {
		return joined(empty, &WriteError{Op: op, Keys: left, Err: err})
	}
	return empty
}

// keysOf returns the keys of those of ks that have one, and an error if some have none.
func (rt *ReadThrough[K, V]) keysOf(op string, ks []K) (keys []string, empty error) {
	keys = make([]string, 0, len(ks))
	for _, k := range ks {
		key, err := rt.RedisKey(k)
		if err != nil {
			empty = failed(op, err)
			continue
		}
		keys = append(keys, key)
	}
	return keys, empty
}

// write changes the entries at keys by send, and keeps whatever is under way in this process
// from being taken for newer. If the Cache is closed nothing is sent.
func (rt *ReadThrough[K, V]) write(
	ctx context.Context, closed error, keys []string, send sender,
) (left []string, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	switch {
	case closed != nil:
		left, err = keys, closed
	case rt.settings.local.on:
		left, err = rt.cache.fenced(ctx, keys, send)
	default:
		left, err = send(keys)
	}
	for _, key := range keys {
		rt.engine.Forget(key)
	}
	return left, rt.cache.written(ctx, rt.meter, rt.lifetime(), keys, left, err)
}

// lifetime returns how long after an invalidation an older entry can be there at most:
// one whose load had just begun then, and that lives as long as any.
func (rt *ReadThrough[K, V]) lifetime() time.Duration {
	ttl := max(rt.settings.ttl, rt.settings.notFound.ttl)
	more := rt.settings.load.timeout + rt.settings.stale
	if rt.ttlFor != nil || more < 0 || ttl > NoExpiry-more {
		return NoExpiry
	}
	return ttl + more
}
