package readthrough

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/readthrough-go/readthrough/internal/lease"
)

// Set stores v as the value of k, and keeps loads under way from overwriting it.
// The error says that v cannot be stored, or that Redis could not be asked: then
// the key is invalidated as soon as it can be.
func (rt *ReadThrough[K, V]) Set(ctx context.Context, k K, v V) error {
	return rt.SetMany(ctx, func(yield func(K, V) bool) { yield(k, v) })
}

// SetMany is Set for many pairs, as maps.All gives them for a map, in one round
// trip for each 1000. The error names the keys whose values are not stored; the
// others are.
func (rt *ReadThrough[K, V]) SetMany(ctx context.Context, pairs iter.Seq2[K, V]) error {
	var errs []error
	var items []lease.Item
	var unkept []string // WithTTLFor says that their values are not to be kept: so none is
	var down error      // Redis cannot be reached: what follows is not sent, only noted as failed
	flush := func() {
		// What is invalidated goes first, so that a later pair of the same key stays.
		errs = append(errs, rt.invalidate(ctx, unkept), rt.store(ctx, items, &down))
		items, unkept = nil, nil
	}
	for k, v := range pairs {
		key, err := rt.RedisKey(k)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fill, err := rt.encode(v, time.Now(), 0)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("readthrough: set %s: %w", key, err))
		case fill.unstorable:
			items = slices.DeleteFunc(items, func(item lease.Item) bool { return item.Key == key })
			unkept = append(unkept, key)
		default:
			items = append(items, lease.Item{Key: key, Entry: fill.bytes, TTL: fill.keep})
		}
		if len(items)+len(unkept) >= maxKeys {
			flush()
		}
	}
	flush()
	return oneError(errs)
}

// oneError joins errs; a single one is returned as it is.
func oneError(errs []error) error {
	var found []error
	for _, err := range errs {
		if err != nil {
			found = append(found, err)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return errors.Join(found...)
}

// store stores items, unless down says that it would fail.
func (rt *ReadThrough[K, V]) store(ctx context.Context, items []lease.Item, down *error) error {
	keys := make([]string, len(items))
	for i, item := range items {
		keys[i] = item.Key
	}
	return rt.write(ctx, "set", keys, func() (left []string, err error) {
		if *down != nil {
			return keys, *down
		}
		left, err = rt.cache.leases.Set(ctx, items...)
		if len(left) == len(keys) {
			*down = err
		}
		return left, err
	})
}

// Invalidate says that the values of ks have changed: call it after the write. A
// Get that starts after Invalidate has returned, in any process, does not return
// what was loaded before. The error names the keys whose entries may still be
// there because Redis could not be reached; they are retried in the background
// until it can, or until the entries have expired.
func (rt *ReadThrough[K, V]) Invalidate(ctx context.Context, ks ...K) error {
	keys, err := rt.redisKeys(ks)
	if err != nil {
		return err
	}
	return rt.invalidate(ctx, keys)
}

func (rt *ReadThrough[K, V]) invalidate(ctx context.Context, keys []string) error {
	return rt.write(ctx, "invalidate", keys, func() ([]string, error) { return rt.cache.leases.Invalidate(ctx, keys...) })
}

// Expire says that the values of ks are out of date but may be served a last time:
// the next read is answered with the old value and starts one refresh. The entries
// are kept for no longer than WithStale; without that, Expire is Invalidate. What
// is being loaded meanwhile is not stored, for it may be as old. The error is that
// of Invalidate, and what it names is invalidated as soon as Redis can be reached.
func (rt *ReadThrough[K, V]) Expire(ctx context.Context, ks ...K) error {
	if rt.settings.stale == 0 {
		return rt.Invalidate(ctx, ks...)
	}
	keys, err := rt.redisKeys(ks)
	if err != nil {
		return err
	}
	return rt.write(ctx, "expire", keys, func() ([]string, error) {
		return rt.cache.leases.Expire(ctx, time.Now(), rt.settings.stale, keys...)
	})
}

func (rt *ReadThrough[K, V]) redisKeys(ks []K) ([]string, error) {
	keys := make([]string, len(ks))
	for i, k := range ks {
		var err error
		if keys[i], err = rt.RedisKey(k); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// write changes the entries at keys by send, which returns the keys that it may
// not have reached, and keeps whatever is under way in this process from being
// taken for newer.
func (rt *ReadThrough[K, V]) write(ctx context.Context, op string, keys []string, send func() (left []string, err error)) error {
	if len(keys) == 0 {
		return nil
	}
	for _, key := range keys {
		rt.awaitFills(ctx, key)
	}
	left, err := send()
	for _, key := range keys {
		rt.forget(key)
		rt.backoff.forget(key)
	}
	if err := rt.cache.written(ctx, rt.meter, rt.lifetime(), keys, left, err); err != nil {
		return fmt.Errorf("readthrough: %s %w", op, err)
	}
	return nil
}

// awaitFills keeps a fill without a lease from landing behind what is about to be sent.
func (rt *ReadThrough[K, V]) awaitFills(ctx context.Context, key string) {
	if !rt.settings.noLease {
		return // the lease does it, for all processes
	}
	for _, filled := range rt.forget(key) {
		select {
		case <-filled:
		case <-ctx.Done():
		}
	}
}

// forget keeps newcomers from joining what is under way for key.
func (rt *ReadThrough[K, V]) forget(key string) (fills []<-chan struct{}) {
	return append(rt.flights.Forget(key), rt.refreshed.Forget(key)...)
}

// lifetime is how long after an invalidation an older entry can be there at most:
// one whose load had just begun then, and that lives as long as any.
func (rt *ReadThrough[K, V]) lifetime() time.Duration {
	ttl := max(rt.settings.ttl, rt.settings.notFoundTTL)
	more := rt.settings.loadTimeout + rt.settings.stale
	if rt.ttlFor != nil || more < 0 || ttl > NoExpiry-more {
		return NoExpiry
	}
	return ttl + more
}
