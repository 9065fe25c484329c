package readthrough

import (
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"strings"
	"time"

	"github.com/readthrough-go/readthrough/internal/clock"
	"github.com/readthrough-go/readthrough/internal/fill"
	"github.com/readthrough-go/readthrough/internal/hook"
	"github.com/readthrough-go/readthrough/internal/mux"
)

// settings are those of one wrapper.
type settings struct {
	ttl      time.Duration
	jitter   float64
	stale    time.Duration
	beta     float64
	patience time.Duration
	ttlFor   any // func(V) time.Duration, checked by New
	coding
	notFound notFound
	load     loadSettings
	lease    leaseSettings
	batch    batchSettings
	local    localSettings
}

// coding is how values become entries.
type coding struct {
	codec    Codec
	version  uint8 // of V
	maxEntry int   // bytes
}

// notFound is which errors of a loader are answers, and how long these are kept.
type notFound struct {
	ttl      time.Duration
	errs     []error
	identity uint32 // of the list: another list is another answer
}

// newNotFound returns the list of not-found errors.
func newNotFound(ttl time.Duration, errs []error) notFound {
	list := fnv.New32a()
	for _, err := range errs {
		fmt.Fprintf(list, "%T %q\n", err, textOf(err))
	}
	return notFound{ttl, errs, list.Sum32()}
}

// missing returns the error of a key that the batch loader leaves out.
func (n *notFound) missing() error {
	if len(n.errs) > 0 {
		return n.errs[0]
	}
	return ErrNotFound
}

type loadSettings struct {
	timeout time.Duration
	limit   int     // loads at a time; 0: any number
	ahead   bool    // callers are answered before the value is stored
	audit   float64 // the share of hits that are checked
}

type leaseSettings struct {
	ttl, wait time.Duration
	write     time.Duration // how long the write of an Update may take
}

// likeLoadTimeout is the default of the lease wait: so a load that ends in time runs once in the fleet.
const likeLoadTimeout time.Duration = -1

type batchSettings struct {
	load   any // func(ctx, []K) (map[K]V, error), checked by New
	size   int
	window time.Duration // in which single misses are gathered; 0: they are not
	gather int           // how many at most
}

type cacheSettings struct {
	wrapper      settings
	prefix       string
	redisTimeout time.Duration
	breaker      breakerSettings
	maxRefreshes int
	observers    []Observer
	tier         tierSettings
	failoverSafe bool
	clock        *clock.Clock // by which entries age; nil: the machine's
}

type breakerSettings struct {
	failures int
	openFor  time.Duration
}

// hooked is any ReadThrough, for package hook.
type hooked interface {
	hookHits(f any)
	hookInside() (c *Cache, stored any)
}

// init opens to package readthroughtest what package hook says.
func init() {
	hook.WithClock = func(c *clock.Clock) any {
		return cacheOption(func(s *cacheSettings) error {
			s.clock = c
			return nil
		})
	}
	hook.OnHit = func(rt, f any) { rt.(hooked).hookHits(f) }
	hook.Inside = func(rt any) (cache, stored any) { return rt.(hooked).hookInside() }
}

func defaultSettings() cacheSettings {
	return cacheSettings{
		wrapper: settings{
			ttl:    5 * time.Minute,
			jitter: 0.1,
			coding: coding{codec: Msgpack, maxEntry: 8 << 20},
			load:   loadSettings{timeout: 30 * time.Second},
			lease:  leaseSettings{ttl: 3 * time.Second, wait: likeLoadTimeout, write: 10 * time.Second},
			batch:  batchSettings{size: 1000},
			local:  localSettings{ttl: time.Minute},
		},
		redisTimeout: 100 * time.Millisecond,
		breaker:      breakerSettings{failures: 5, openFor: time.Second},
		maxRefreshes: 64,
		tier:         tierSettings{lease: time.Second},
	}
}

// apply applies the options, and checks what only the wrapper can: those that have types.
func (rt *ReadThrough[K, V]) apply(opts []Option) error {
	for _, opt := range opts {
		if opt == nil {
			return errors.New("an option is nil")
		}
		if err := opt.applyToWrapper(&rt.settings); err != nil {
			return err
		}
	}
	if rt.settings.lease.wait == likeLoadTimeout {
		rt.settings.lease.wait = rt.settings.load.timeout
	}
	v := reflect.TypeFor[V]()
	rt.types.shareable = shareable(v)
	rt.types.keys = kindOfKeys(reflect.TypeFor[K]())
	if err := checkCodec(rt.settings.codec, v); err != nil {
		return err
	}
	rt.types.values = valueTypeOf[V](&rt.settings)
	if f := rt.settings.ttlFor; f != nil {
		var ok bool
		if rt.ttlFor, ok = f.(func(V) time.Duration); !ok {
			return fmt.Errorf("WithTTLFor: %T does not take the wrapper's value, %v", f, v)
		}
	}
	if load := rt.settings.batch.load; load != nil {
		var err error
		if rt.batch, err = adaptBatch[K, V](load, func(k K) string { key, _ := rt.RedisKey(k); return key }); err != nil {
			return err
		}
	}
	if rt.settings.batch.window > 0 && rt.batch == nil {
		return errors.New("WithGather: there is no WithBatchLoader to gather for")
	}
	return nil
}

// engineSettings returns the limits of the engine of a miss.
func (rt *ReadThrough[K, V]) engineSettings() fill.Settings {
	s := &rt.settings
	return fill.Settings{
		TTL: s.ttl, LoadTimeout: s.load.timeout, LoadLimit: s.load.limit,
		BackgroundFill: s.load.ahead, TripBytes: mux.MaxBytes,
		LeaseTTL: s.lease.ttl, LeaseWait: s.lease.wait, RedisTimeout: rt.cache.settings.redisTimeout,
		BatchSize: s.batch.size, GatherWindow: s.batch.window, GatherSize: s.batch.gather,
		Clock: rt.cache.settings.clock,
	}
}

func checkTTL(name string, d time.Duration) error {
	if d < time.Millisecond {
		return fmt.Errorf("%s: %v is less than 1ms", name, d)
	}
	return nil
}

func checkCount(name string, n int) error {
	if n < 1 {
		return fmt.Errorf("%s: %d is less than 1", name, n)
	}
	return nil
}

func checkPositive(name string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s: %v is not positive", name, d)
	}
	return nil
}

func checkNotNegative(name string, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("%s: %v is negative", name, d)
	}
	return nil
}

func checkNotFound(ttl time.Duration, errs []error) error {
	if len(errs) == 0 || len(errs) > maxNotFound {
		return fmt.Errorf("WithNotFound: %d errors is not from 1 to %d", len(errs), maxNotFound)
	}
	for _, err := range errs {
		if err == nil {
			return fmt.Errorf("WithNotFound: one of the errors is nil")
		}
	}
	return checkTTL("WithNotFound", ttl)
}

// checkName says what is wrong with a name that becomes part of Redis keys.
func checkName(what, name string) error {
	if name == "" {
		return fmt.Errorf("%s: the name is empty", what)
	}
	for _, r := range name {
		if r <= ' ' || r > '~' || strings.ContainsRune("{}%", r) {
			return fmt.Errorf("%s: %q has %q: only printable ASCII without spaces and {}%% can be in it", what, name, r)
		}
	}
	return nil
}
