package readthrough

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
	"github.com/readthrough-go/readthrough/internal/wire/value"
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

// lookup asks Redis for the key.
func (r *read[K, V]) lookup(ctx context.Context) {
	if r.rt.copies != nil {
		r.noteGuard()
	}
	r.found.value = new(V)
	if r.rt.cache.disabled() {
		return
	}
	raw, err := r.rt.cache.read(ctx, r.key, &r.rt.replySize)
	r.answered(ctx, raw, err)
}

// answered takes apart what Redis answered. Bytes that are no entry, or do not decode
// into V, are a miss: the load overwrites them.
func (r *read[K, V]) answered(ctx context.Context, raw []byte, err error) {
	rt, l := r.rt, &r.found
	switch {
	case err == nil:
		rt.cache.checkRole()
		if err := rt.decode(r.key, raw, l); err != nil {
			rt.meter.note(ctx, EventCorrupt, r.key, 0, err)
			l.state, *l.value = missing, zero[V]()
		}
		if l.is(fresh) {
			r.keepFound()
		}
	case errors.Is(err, redis.Nil):
		rt.cache.missed(r.key)
	case unreadable(err):
		rt.meter.note(ctx, EventCorrupt, r.key, 0, err)
	default:
		if ctx.Err() == nil {
			rt.meter.note(ctx, EventRedisError, r.key, 0, err)
		}
		l.failed = err
	}
}

// unreadable reports whether err says that a key holds nothing that GET could read.
func unreadable(err error) bool {
	return err != nil && (errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "WRONGTYPE"))
}

// decode fills l, and the value that it points to, from the bytes of the entry at key.
func (rt *ReadThrough[K, V]) decode(key string, raw []byte, l *lookup[V]) (err error) {
	if l.entry, err = entry.Parse(raw); err != nil {
		return err
	}
	now := rt.cache.settings.clock.Now()
	switch {
	case l.entry.Fresh(now):
		l.state = fresh
	case rt.settings.stale > 0 && now.Before(l.entry.FreshUntil.Add(rt.settings.stale)):
		l.state = stale
	default:
		return nil
	}
	notFound := &rt.settings.notFound
	switch e := &l.entry; {
	case e.Version != rt.settings.version:
		l.state = missing
	case !e.Negative:
		return rt.settings.decodeEntry(key, e, rt.types.values, l.value)
	// A negative entry of a fleet that registers other errors is of no use here.
	case e.V1 || e.Identity != notFound.identity || int(e.Reason) >= len(notFound.errs):
		l.state = missing
	default:
		l.err = notFound.errs[e.Reason]
	}
	return nil
}

// decodeFresh takes apart an entry that another process has stored while this one asked
// for the lease. It reports false if the entry is not fresh, or cannot be read.
func (rt *ReadThrough[K, V]) decodeFresh(key string, raw []byte) (fill.Result[V], bool) {
	l := lookup[V]{value: new(V)}
	if err := rt.decode(key, raw, &l); err != nil || !l.is(fresh) {
		return fill.Result[V]{}, false
	}
	r := fill.Result[V]{Value: *l.value, Err: l.err, NotFound: l.err != nil, Shared: true, Header: l.entry}
	if l.err == nil {
		r.Bytes = raw
	}
	return r, true
}

// hookHits is hook.OnHit.
func (rt *ReadThrough[K, V]) hookHits(f any) {
	on := f.(func(context.Context, K, V, error))
	rt.onHit.Store(&on)
}

// hookInside is hook.Inside.
func (rt *ReadThrough[K, V]) hookInside() (c *Cache, stored any) {
	return rt.cache, func(v V) (V, error) {
		var copied V
		codec := forKey(rt.settings.codec, rt.namespace)
		b, err := rt.types.values.Append(nil, codec, v)
		if err == nil {
			err = rt.types.values.Decode(codec, b, &copied)
		}
		return copied, err
	}
}

// encode makes the entry of a value at key. The error says why it cannot be stored.
func (rt *ReadThrough[K, V]) encode(key string, v V, loaded fill.Loaded) (fill.Entry, error) {
	ttl := rt.settings.ttl
	if rt.ttlFor != nil {
		ttl = rt.ttlFor(v)
	}
	header, keep := rt.expiry(ttl, loaded)
	b, err := rt.settings.appendEntry(key, &header, rt.types.values, v)
	if ttl <= 0 { // what is not to be stored need not be storable
		err = nil
	}
	return fill.Entry{Header: header, Bytes: b, Keep: keep, Skip: ttl <= 0}, err
}

// encodeOnce is encode for a load: it is told once that the values of V do not survive, or some of
// them, and not at each Get.
func (rt *ReadThrough[K, V]) encodeOnce(key string, v V, loaded fill.Loaded) (fill.Entry, error) {
	e, err := rt.encode(key, v, loaded)
	if errors.Is(err, value.ErrAltered) && rt.types.altered.Swap(true) {
		e.Skip, err = true, nil
	}
	return e, err
}

// encodeNotFound makes the negative entry of a loader's error, if that is one of
// WithNotFound's.
func (rt *ReadThrough[K, V]) encodeNotFound(err error, loaded fill.Loaded) (e fill.Entry, ok bool) {
	for i, registered := range rt.settings.notFound.errs {
		if fill.Is(err, registered) {
			header, keep := rt.expiry(rt.settings.notFound.ttl, loaded)
			header.Negative, header.Reason, header.Identity = true, uint8(i), rt.settings.notFound.identity
			header.Version = rt.settings.version
			b, _ := entry.Append(nil, &header, nil)
			return fill.Entry{Header: header, Bytes: b, Keep: keep}, true
		}
	}
	return fill.Entry{}, false
}

// expiry returns the header of an entry with the given TTL, and how long Redis keeps it.
func (rt *ReadThrough[K, V]) expiry(ttl time.Duration, loaded fill.Loaded) (entry.Entry, time.Duration) {
	if ttl != NoExpiry {
		ttl -= time.Duration(rt.settings.jitter * rand.Float64() * float64(ttl))
		ttl = max(ttl, time.Millisecond)
	}
	header, keep := expiring(loaded.At, ttl, rt.settings.stale)
	header.LoadTime = loaded.Took
	return header, keep
}

// expiring returns the header of an entry that is fresh for ttl from now on and kept for
// stale beyond that, and how long Redis keeps it; zero: until it is deleted.
func expiring(now time.Time, ttl, stale time.Duration) (entry.Entry, time.Duration) {
	if ttl == NoExpiry {
		return entry.Entry{LoadedAt: now}, 0
	}
	return entry.Entry{LoadedAt: now, FreshUntil: now.Add(ttl)}, ttl + min(stale, NoExpiry-ttl)
}

// valueType is what is known of the V of a wrapper, or of a raw Get or Set.
type valueType struct {
	*value.Type
	identity uint32 // of its codec
}

// valueTypeOf returns what is known of V where s.codec encodes it.
func valueTypeOf[V any](s *settings) valueType {
	t := value.TypeOf(reflect.TypeFor[V]())
	return valueType{t, t.Identity(s.codec)}
}

// appendEntry returns the bytes of the entry of v at key. If they are too many to be stored,
// they come with an error that says so.
func (s *settings) appendEntry(key string, e *entry.Entry, t valueType, v any) ([]byte, error) {
	e.Version, e.Identity = s.version, t.identity
	b, err := entry.Append(make([]byte, 0, 256), e, func(dst []byte) ([]byte, error) {
		return t.Append(dst, forKey(s.codec, key), v)
	})
	if err != nil {
		return nil, err
	}
	return b, s.checkSize(b[entry.HeaderSize:])
}

// decodeEntry sets what v points to from the value of the entry at key. It may be given any
// entry: it returns an error rather than panic.
func (s *settings) decodeEntry(key string, e *entry.Entry, t valueType, v any) error {
	if err := s.checkSize(e.Value); err != nil {
		return err
	}
	switch {
	case e.V1 && !value.OnlyMsgpack(s.codec, e.Value), !e.V1 && e.Identity != t.identity:
		return errOtherCodec
	}
	return t.Decode(forKey(s.codec, key), e.Value, v)
}

// errOtherCodec is why an entry cannot be read that the codec may not have written.
var errOtherCodec = errors.New("written by another codec")

// checkSize says of an encoded value that it is too large to be stored, and so to be
// decoded, if it is.
func (s *settings) checkSize(value []byte) error {
	if size := len(value); size > s.maxEntry {
		return fmt.Errorf("the encoded value has %d bytes, more than the %d of WithMaxEntryBytes", size, s.maxEntry)
	}
	return nil
}

// unpack returns what a caller gets of a result: the value itself if it was the first,
// whose call began the load, and a copy else. It raises the loader's panic again.
func (rt *ReadThrough[K, V]) unpack(key string, r *fill.Result[V], first bool) (V, error) {
	if r.Panic != nil {
		panic(r.Panic)
	}
	if r.Err != nil || first || rt.types.shareable || r.Bytes == nil {
		return r.Value, loadError(key, r.Err)
	}
	var v V
	e, err := entry.Parse(r.Bytes)
	if err == nil {
		err = rt.types.values.Decode(forKey(rt.settings.codec, key), e.Value, &v) // of any size
	}
	if err != nil { // what cannot be decoded again can only be shared
		return r.Value, nil
	}
	return v, nil
}

// forgottenAfter is how long an entry must outlast the load that differs from it: its writer may be on
// the way to Invalidate it.
const forgottenAfter = time.Second

// errForgotten is why an entry is counted as forgotten.
var errForgotten = errors.New(prefix + "the loader returns another value, and nobody has invalidated the entry")

// audit has the loader asked for what was found, and the two compared.
func (r *read[K, V]) audit(ctx context.Context) {
	rt, key, found := r.rt, r.key, r.found.entry
	found.Value = bytes.Clone(found.Value)
	rt.engine.Audit(ctx, r.stale(), func(v V, err error) {
		ctx := context.WithoutCancel(ctx)
		loaded, ok := rt.encodeLoaded(key, v, err)
		if !ok || rt.sameAnswer(key, &found, &loaded) {
			return
		}
		for over := time.Now().Add(forgottenAfter); time.Now().Before(over); {
			if rt.cache.closing.phase.Load() != open {
				return
			}
			time.Sleep(forgottenAfter / 20)
		}
		raw, err := rt.cache.read(ctx, key, &rt.replySize)
		if err != nil {
			return
		}
		if now, err := entry.Parse(raw); err == nil && sameEntry(&now, &found) {
			age := max(rt.cache.settings.clock.Now().Sub(found.LoadedAt), 0)
			rt.meter.noteApart(ctx, EventForgotten, key, age, errForgotten)
		}
	})
}

// encodeLoaded returns the entry of what a loader returned for key. It reports false if that is no answer, or
// none that is to be stored.
func (rt *ReadThrough[K, V]) encodeLoaded(key string, v V, err error) (entry.Entry, bool) {
	at := fill.Loaded{At: rt.cache.settings.clock.Now()}
	e, ok := fill.Entry{}, false
	if err != nil {
		e, ok = rt.encodeNotFound(err, at)
	} else {
		e, err = rt.encode(key, v, at)
		ok = err == nil
	}
	if !ok || e.Skip {
		return entry.Entry{}, false
	}
	parsed, err := entry.Parse(e.Bytes)
	return parsed, err == nil
}

// sameAnswer reports whether two entries of key answer the same. Bytes that differ may be the same value, as
// those of maps: then the values are compared as they decode.
func (rt *ReadThrough[K, V]) sameAnswer(key string, a, b *entry.Entry) bool {
	if a.Negative || b.Negative {
		return a.Negative && b.Negative && a.Reason == b.Reason
	}
	if bytes.Equal(a.Value, b.Value) {
		return true
	}
	var x, y V
	decode := func(e *entry.Entry, v *V) error { return rt.settings.decodeEntry(key, e, rt.types.values, v) }
	return decode(a, &x) != nil || decode(b, &y) != nil || reflect.DeepEqual(x, y)
}

// sameEntry reports whether two are one entry, which nobody has changed.
func sameEntry(a, b *entry.Entry) bool {
	return a.LoadedAt.Equal(b.LoadedAt) && a.FreshUntil.Equal(b.FreshUntil) && a.Negative == b.Negative &&
		bytes.Equal(a.Value, b.Value)
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

// wrapper returns what the engine of a miss needs of rt.
func (rt *ReadThrough[K, V]) wrapper() fill.Wrapper[K, V] {
	w := fill.Wrapper[K, V]{
		Load:     func(ctx context.Context, k K) (V, error) { return rt.loader(rt.cache.within(ctx), k) },
		Missing:  rt.settings.notFound.missing(),
		Same:     rt.isKeyOf,
		Panicked: func(value any) error { return &PanicError{Value: value, Stack: debug.Stack()} },
		Encode:   rt.encodeOnce, EncodeErr: rt.encodeNotFound,
		Decode: func(key string, raw []byte) (result fill.Result[V], ok bool) {
			rt.cache.apart(func() { result, ok = rt.decodeFresh(key, raw) })
			return result, ok
		},
		Note: func(ctx context.Context, kind fill.Event, key string, took time.Duration, err error) {
			rt.meter.noteApart(ctx, engineEvents[kind], key, took, err)
		},
		Go: rt.cache.work.Go,
	}
	if rt.batch != nil {
		w.LoadMany = func(ctx context.Context, ks []K) (map[string]V, error) { return rt.batch(rt.cache.within(ctx), ks) }
	}
	return w
}

// engineEvents are the Events of what the engine notes.
var engineEvents = [...]EventKind{
	fill.LoadEnded: EventLoad, fill.LoadFailed: EventLoadError, fill.Filled: EventFill, fill.FillRefused: EventRefusedFill,
	fill.Unstorable: EventUnstorable, fill.RedisFailed: EventRedisError,
	fill.Refreshing: EventRefresh, fill.RefreshSkipped: EventSkipped,
}
