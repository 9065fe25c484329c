package readthrough

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// maxNotFound is how many not-found errors a negative entry can tell apart.
const maxNotFound = entry.MaxReason + 1

// state is what a lookup found.
type state uint8

const (
	missing state = iota
	stale
	fresh
)

// lookup is what Redis holds for a key.
type lookup[V any] struct {
	state  state
	value  *V    // where the value is, or would be
	err    error // a negative entry's
	entry  entry.Entry
	failed error // Redis could not be asked
}

func (l *lookup[V]) is(s state) bool { return l.state == s }

// lookup asks Redis for key.
func (rt *ReadThrough[K, V]) lookup(ctx context.Context, key string) lookup[V] {
	raw, err := rt.cache.mux.Get(ctx, key)
	l := lookup[V]{value: new(V)}
	rt.read(ctx, key, raw, err, &l)
	return l
}

// read takes apart what Redis answered. Bytes that are no entry, or do not decode
// into V, are a miss: the load overwrites them.
func (rt *ReadThrough[K, V]) read(ctx context.Context, key string, raw []byte, err error, l *lookup[V]) {
	switch {
	case err == nil:
		if err := rt.decode(raw, l); err != nil {
			rt.meter.note(ctx, EventCorrupt, key, 0, err)
			l.state, *l.value = missing, zero[V]()
		}
	case errors.Is(err, redis.Nil):
	case unreadable(err):
		rt.meter.note(ctx, EventCorrupt, key, 0, err)
	default:
		if ctx.Err() == nil {
			rt.meter.note(ctx, EventRedisError, key, 0, err)
		}
		l.failed = err
	}
}

// decode fills l, and the value that it points to, from the bytes of an entry.
func (rt *ReadThrough[K, V]) decode(raw []byte, l *lookup[V]) (err error) {
	if l.entry, err = entry.Parse(raw); err != nil {
		return err
	}
	now := time.Now()
	switch {
	case l.entry.Fresh(now):
		l.state = fresh
	case rt.settings.stale > 0 && now.Before(l.entry.FreshUntil.Add(rt.settings.stale)):
		l.state = stale
	default:
		return nil
	}
	if !l.entry.Negative {
		return decodeValue(rt.settings.codec, l.entry.Value, l.value)
	}
	// A negative entry of a fleet that registers other errors is of no use here.
	if int(l.entry.Reason) >= len(rt.settings.notFound) {
		l.state = missing
		return nil
	}
	l.err = rt.settings.notFound[l.entry.Reason]
	return nil
}

// fill is what a load stores.
type fill struct {
	entry      entry.Entry // the header
	bytes      []byte
	keep       time.Duration // in Redis; zero: until it is deleted
	unstorable bool          // too large, or not to be kept by the wish of WithTTLFor
}

// encode makes the entry of a value loaded at now.
func (rt *ReadThrough[K, V]) encode(v V, now time.Time, took time.Duration) (fill, error) {
	ttl := rt.settings.ttl
	if rt.ttlFor != nil {
		ttl = rt.ttlFor(v)
	}
	e, keep := rt.expiry(ttl, now, took)
	b, err := rt.settings.appendEntry(&e, v)
	return fill{entry: e, bytes: b, keep: keep, unstorable: ttl <= 0 || err != nil}, err
}

// encodeNotFound makes the negative entry of one of WithNotFound's errors; ok says
// whether err is one.
func (rt *ReadThrough[K, V]) encodeNotFound(err error, now time.Time, took time.Duration) (f fill, ok bool) {
	for i, registered := range rt.settings.notFound {
		if errors.Is(err, registered) {
			e, keep := rt.expiry(rt.settings.notFoundTTL, now, took)
			e.Negative, e.Reason = true, uint8(i)
			return fill{entry: e, bytes: entry.AppendHeader(nil, &e), keep: keep}, true
		}
	}
	return fill{}, false
}

// expiry is the header of an entry with the given TTL, and how long Redis keeps it.
func (rt *ReadThrough[K, V]) expiry(ttl time.Duration, now time.Time, took time.Duration) (entry.Entry, time.Duration) {
	if ttl != NoExpiry {
		ttl -= time.Duration(rt.settings.jitter * rand.Float64() * float64(ttl))
		ttl = max(ttl, time.Millisecond)
	}
	e, keep := expiring(now, ttl, rt.settings.stale)
	e.LoadTime = took
	return e, keep
}

// expiring is the header of an entry that is fresh for ttl from now on and kept for
// stale beyond that, and how long Redis keeps it; zero: until it is deleted.
func expiring(now time.Time, ttl, stale time.Duration) (entry.Entry, time.Duration) {
	if ttl == NoExpiry {
		return entry.Entry{LoadedAt: now}, 0
	}
	return entry.Entry{LoadedAt: now, FreshUntil: now.Add(ttl)}, ttl + min(stale, NoExpiry-ttl)
}

// appendEntry is the bytes of an entry. If they are too many to be stored, they
// come with an error that says so.
func (s *settings) appendEntry(e *entry.Entry, v any) ([]byte, error) {
	b, err := appendValue(entry.AppendHeader(make([]byte, 0, 256), e), s.codec, v)
	if err != nil {
		return nil, err
	}
	if size := len(b) - entry.HeaderSize; size > s.maxEntry {
		return b, fmt.Errorf("the encoded value has %d bytes, more than the %d of WithMaxEntryBytes", size, s.maxEntry)
	}
	return b, nil
}

// shareable reports whether values of t hold nothing that one caller could change
// under another's eyes.
func shareable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return true
		}
		for i := range t.NumField() {
			if !shareable(t.Field(i).Type) {
				return false
			}
		}
		return true
	case reflect.Array:
		return shareable(t.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return false
	}
	return true
}
