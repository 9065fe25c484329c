package readthrough

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// NoExpiry, given as a TTL, keeps an entry until it is invalidated or evicted by Redis.
const NoExpiry time.Duration = math.MaxInt64

// CacheOption is a setting for NewCache. Every Option is one too: given to
// NewCache it is the default of all wrappers of that Cache.
type CacheOption interface {
	applyToCache(*cacheSettings) error
}

// Option is a setting for New, or for NewCache as the default of all its wrappers.
type Option interface {
	CacheOption
	applyToWrapper(*settings) error
}

// option is an Option made of a function.
type option func(*settings) error

func (o option) applyToWrapper(s *settings) error    { return o(s) }
func (o option) applyToCache(s *cacheSettings) error { return o(&s.wrapper) }

// cacheOption is a CacheOption made of a function.
type cacheOption func(*cacheSettings) error

func (o cacheOption) applyToCache(s *cacheSettings) error { return o(s) }

// WithTTL sets how long a value is fresh after it was loaded. Default 5 minutes,
// at least 1 ms; NoExpiry: until it is invalidated. The time starts when the
// loader returns.
func WithTTL(ttl time.Duration) Option {
	return option(func(s *settings) error {
		s.ttl = ttl
		return checkTTL("WithTTL", ttl)
	})
}

// WithJitter sets by what share, at most, each TTL is shortened at random, so that
// entries stored together do not expire together. Default 0.1, from 0 to 0.9.
func WithJitter(fraction float64) Option {
	return option(func(s *settings) error {
		s.jitter = fraction
		if !(fraction >= 0 && fraction <= 0.9) {
			return fmt.Errorf("WithJitter: %v is not from 0 to 0.9", fraction)
		}
		return nil
	})
}

// WithStale sets how long past its TTL an entry is kept. Default 0. In that time
// it is served at once while one load refreshes it, and when the load fails: the
// stale-while-revalidate and stale-if-error of RFC 5861. What was invalidated is
// never served stale.
func WithStale(d time.Duration) Option {
	return option(func(s *settings) error {
		s.stale = d
		return checkNotNegative("WithStale", d)
	})
}

// WithEarlyRefresh has a value refreshed in the background before its TTL ends,
// with a probability that rises towards the end and with the time that its load
// took. Default 0 (off); 1 is the optimum of theory, more refreshes earlier. This
// is XFetch (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache
// Stampede Prevention, VLDB 2015).
func WithEarlyRefresh(beta float64) Option {
	return option(func(s *settings) error {
		s.beta = beta
		if !(beta >= 0) || math.IsInf(beta, 1) {
			return fmt.Errorf("WithEarlyRefresh: %v is not a number from 0", beta)
		}
		return nil
	})
}

// WithPatience sets how long a caller who has a stale value at hand waits for the
// load before it is given that value. Default 0: it does not wait. It has a
// meaning only together with WithStale.
func WithPatience(d time.Duration) Option {
	return option(func(s *settings) error {
		s.patience = d
		return checkNotNegative("WithPatience", d)
	})
}

// WithNotFound has a loader's error that errors.Is finds to be one of errs cached
// as a negative entry for ttl. Default: no error is cached. A hit of it returns
// that very one of errs. Given again, it replaces what was given before.
func WithNotFound(ttl time.Duration, errs ...error) Option {
	return option(func(s *settings) error {
		s.notFound = notFound{ttl, errs}
		return checkNotFound(ttl, errs)
	})
}

// WithTTLFor has the TTL of each value decided by f, instead of WithTTL. A result
// that is not positive says that the value is not to be stored. V must be the
// wrapper's.
func WithTTLFor[V any](f func(V) time.Duration) Option {
	return option(func(s *settings) error {
		s.ttlFor = f
		if f == nil {
			return fmt.Errorf("WithTTLFor: the function is nil")
		}
		return nil
	})
}

// WithCodec sets how values become bytes. Default Msgpack.
func WithCodec(c Codec) Option {
	return option(func(s *settings) error {
		s.codec = c
		if c == nil {
			return fmt.Errorf("WithCodec: the codec is nil")
		}
		return nil
	})
}

// WithLoadTimeout sets how long a load may take. Default 30 seconds. The loader's
// context ends then, and its callers get context.DeadlineExceeded whether the
// loader minds its context or not.
func WithLoadTimeout(d time.Duration) Option {
	return option(func(s *settings) error {
		s.load.timeout = d
		return checkPositive("WithLoadTimeout", d)
	})
}

// WithLeaseTTL sets for how long a process that dies while it loads keeps others
// from loading. Default 3 seconds, at least 10 ms. A load that takes longer
// renews its lease.
func WithLeaseTTL(d time.Duration) Option {
	return option(func(s *settings) error {
		s.lease.ttl = d
		if d < 10*time.Millisecond {
			return fmt.Errorf("WithLeaseTTL: %v is less than 10ms", d)
		}
		return nil
	})
}

// WithLeaseWait sets how long a caller waits for the load of another process
// before it loads for itself, without storing. Default 10 seconds.
func WithLeaseWait(d time.Duration) Option {
	return option(func(s *settings) error {
		s.lease.wait = d
		return checkNotNegative("WithLeaseWait", d)
	})
}

// WithBatchLoader has GetMany, and WithGather, load misses together by one call for
// each WithBatchSize. Default: the loader is called for each key. A key that is
// missing in the map is not found: the first of WithNotFound's errors, or else
// ErrMiss. K and V must be the wrapper's.
func WithBatchLoader[K comparable, V any](load func(ctx context.Context, keys []K) (map[K]V, error)) Option {
	return option(func(s *settings) error {
		s.batch.load = batchLoader[K, V](load)
		if load == nil {
			return fmt.Errorf("WithBatchLoader: the function is nil")
		}
		return nil
	})
}

// WithBatchSize sets how many keys one call of the batch loader is given at most.
// Default 1000.
func WithBatchSize(n int) Option {
	return option(func(s *settings) error {
		s.batch.size = n
		return checkCount("WithBatchSize", n)
	})
}

// WithGather has single Gets that miss within window of each other loaded by one
// call of the batch loader, for at most size keys. Default 0 (off) and 100. Each
// miss then takes up to window longer, and N+1 queries become one without a change
// of the callers, who keep their own cancellation and error. The idea is that of
// Facebook's DataLoader. It needs WithBatchLoader.
func WithGather(window time.Duration, size int) Option {
	return option(func(s *settings) error {
		s.batch.window, s.batch.gather = window, size
		if err := checkNotNegative("WithGather", window); err != nil {
			return err
		}
		return checkCount("WithGather", size)
	})
}

// WithLoadLimit sets how many loads of the wrapper run at a time in this process.
// Default 0: any number. A caller beyond waits for its turn within its context, or
// is given the stale value if there is one. A batch is one load. A loader that
// reads through its own wrapper takes a turn for each level.
func WithLoadLimit(n int) Option {
	return option(func(s *settings) error {
		s.load.limit = n
		if n < 0 {
			return fmt.Errorf("WithLoadLimit: %d is negative", n)
		}
		return nil
	})
}

// WithMaxEntryBytes sets the size past which an encoded value is not stored.
// Default 8 MiB. Such a value is returned, counted and observed.
func WithMaxEntryBytes(n int) Option {
	return option(func(s *settings) error {
		s.maxEntry = n
		return checkCount("WithMaxEntryBytes", n)
	})
}

// WithPrefix sets what all keys of the Cache begin with, before a colon. Default:
// nothing. Printable ASCII without spaces, braces and percent signs.
func WithPrefix(prefix string) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.prefix = prefix
		if prefix == "" {
			return nil
		}
		return checkName("WithPrefix", prefix)
	})
}

// WithRedisTimeout sets how long a call waits for one answer of Redis before it
// does without. Default 100 ms, at least 1 ms.
func WithRedisTimeout(d time.Duration) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.redisTimeout = d
		if d < time.Millisecond {
			return fmt.Errorf("WithRedisTimeout: %v is less than 1ms", d)
		}
		return nil
	})
}

// WithBreaker sets after how many failed round trips in a row Redis is not asked
// any more, and for how long, before one call tries again. Default 5 and 1 second.
func WithBreaker(failures int, openFor time.Duration) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.breaker.failures, s.breaker.openFor = failures, openFor
		if failures < 1 || failures > math.MaxInt32 {
			return fmt.Errorf("WithBreaker: %d failures is not from 1 to %d", failures, math.MaxInt32)
		}
		return checkPositive("WithBreaker", openFor)
	})
}

// WithMaxRefreshes sets how many background refreshes of the Cache run at a time.
// Default 64. A refresh beyond is skipped and counted; a later read begins it.
func WithMaxRefreshes(n int) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.maxRefreshes = n
		return checkCount("WithMaxRefreshes", n)
	})
}

// WithFailoverSafety keeps a failover of Redis, or its restart from a snapshot, from bringing
// back what was invalidated. Default off. Entries are stamped with the replication ID of the
// primary that took them, and read by a script that takes those of no other primary: so the
// cache is cold after a failover, and each key is loaded once. What it costs, and when a
// primary changes its ID, is said in docs/guarantees.md. All processes that share entries
// should have it. It needs EVAL, and INFO in scripts.
func WithFailoverSafety() CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.failoverSafe = true
		return nil
	})
}

// WithObserver has o told what happens. Default: nobody is. It may be given
// several times.
func WithObserver(o Observer) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.observers = append(s.observers, o)
		if o == nil {
			return fmt.Errorf("WithObserver: the observer is nil")
		}
		return nil
	})
}

// WithLogger has what happens logged: errors at level Warn, the rest at Debug.
// Default: nothing is logged. No value is ever in a log line; keys are.
func WithLogger(l *slog.Logger) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		if l == nil {
			return fmt.Errorf("WithLogger: the logger is nil")
		}
		s.observers = append(s.observers, logObserver{l})
		return nil
	})
}
