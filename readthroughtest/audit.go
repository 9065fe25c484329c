package readthroughtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/hook"
)

// grace is how long a difference must last to be one: between a write to the database and its
// Invalidate, on another goroutine, the cache may be behind.
const grace = 100 * time.Millisecond

// fakes are the Fakes by their Cache.
var fakes sync.Map // *readthrough.Cache to *Fake

// Audit fails the test, once for each key, when a read of rt is answered from the cache with what
// load does not return: then an Invalidate was forgotten after a write. rt is a wrapper in the Cache
// of a Fake, whose test it is; a wrapper that belongs to the code under test need not know of it. It
// panics if the Cache is no Fake's.
//
// Each hit within the TTL (of Get, GetMany, Each, Peek) calls load before the caller gets the
// answer, and the two are compared: values with reflect.DeepEqual, after load's has been through the
// wrapper's codec, and not-founds with errors.Is. Any error of load where the cache has a value is a
// difference, such as that of a row that was deleted, so load must not fail by the test's own wish.
// It is not called by the cache, and nothing counts it. A difference that is gone after 100 ms at
// most was a write under way, and is none. Stale values are served on purpose, and not compared.
func Audit[K, V any](rt *readthrough.ReadThrough[K, V], load readthrough.Loader[K, V]) {
	cache, stored := hook.Inside(rt)
	fake, ok := fakes.Load(cache)
	if !ok {
		panic("readthroughtest: Audit of a wrapper whose Cache is no Fake's")
	}
	a := &audit[K, V]{rt: rt, load: load, stored: stored.(func(V) (V, error)), fake: fake.(*Fake)}
	hook.OnHit(rt, a.hit)
}

// audit compares the hits of one wrapper with what load returns.
type audit[K, V any] struct {
	rt       *readthrough.ReadThrough[K, V]
	load     readthrough.Loader[K, V]
	stored   func(V) (V, error) // what a hit would return for a value
	fake     *Fake
	reported sync.Map // the names of the keys that have failed the test
}

// hit looks at one answer from the cache: v, or the error of a cached not-found.
func (a *audit[K, V]) hit(ctx context.Context, k K, v V, err error) {
	if ctx.Value(unauditedKey{}) != nil {
		return
	}
	ctx = unaudited(context.WithoutCancel(ctx)) // the caller may leave: the answer is to be judged
	failure := a.difference(ctx, k, v, err)
	for until := time.Now().Add(grace); failure != "" && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
		v, err := a.rt.Peek(ctx, k)
		if errors.Is(err, readthrough.ErrMiss) || noAnswer(err) || a.difference(ctx, k, v, err) == "" {
			return
		}
	}
	if failure == "" {
		return
	}
	if _, again := a.reported.LoadOrStore(name(a.rt, k), true); !again {
		a.fake.errorf("readthroughtest: %s: was Invalidate forgotten after a write?", failure)
	}
}

// difference says how an answer from the cache differs from what a direct load returns; empty: it
// does not.
func (a *audit[K, V]) difference(ctx context.Context, k K, v V, err error) string {
	want, loadErr := a.load(ctx, k)
	var same bool
	switch {
	case err != nil:
		same = errors.Is(loadErr, err)
	case loadErr == nil:
		same = reflect.DeepEqual(v, want)
		if !same { // the codec may change what was equal: the location of a time, an empty slice
			stored, err := a.stored(want)
			same = err == nil && reflect.DeepEqual(v, stored)
		}
	}
	if same {
		return ""
	}
	return fmt.Sprintf("%s is served from the cache as %s, and a direct load returns %s",
		name(a.rt, k), answer(v, err), answer(want, loadErr))
}

// answer shows what a read or a load has returned.
func answer(v any, err error) string {
	if err != nil {
		return fmt.Sprintf("the error %q", err)
	}
	return fmt.Sprintf("%+v", v)
}
