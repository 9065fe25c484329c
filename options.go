package readthrough

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// NoExpiry is a TTL that keeps an entry until it is invalidated or evicted by Redis.
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

// WithTTL sets how long a value is fresh after its load has ended. Default 5 minutes, at least 1 ms;
// NoExpiry keeps it until it is invalidated, or evicted by Redis.
func WithTTL(ttl time.Duration) Option {
	return option(func(s *settings) error {
		s.ttl = ttl
		return checkTTL("WithTTL", ttl)
	})
}

// WithJitter shortens each TTL by a random share of up to fraction, so that entries stored together
// do not expire together. Default 0.1, from 0 to 0.9.
func WithJitter(fraction float64) Option {
	return option(func(s *settings) error {
		s.jitter = fraction
		if !(fraction >= 0 && fraction <= 0.9) {
			return fmt.Errorf("WithJitter: %v is not from 0 to 0.9", fraction)
		}
		return nil
	})
}

// WithStale turns on stale-while-revalidate and fail-safe: for d past its TTL an entry is kept, to
// be served at once while one load refreshes it, and to be served when the load fails. Default 0
// (off). What was invalidated is never served stale. The terms are those of RFC 5861
// (stale-while-revalidate, stale-if-error).
func WithStale(d time.Duration) Option {
	return option(func(s *settings) error {
		s.stale = d
		return checkNotNegative("WithStale", d)
	})
}

// WithEarlyRefresh refreshes a value in the background before its TTL ends, with a probability that
// rises towards the end and with the time that its load took. Default 0 (off); 1 is the optimum of
// the theory, and more refreshes earlier. This is XFetch (Vattani, Chierichetti, Lowenstein: Optimal
// Probabilistic Cache Stampede Prevention, VLDB 2015).
func WithEarlyRefresh(beta float64) Option {
	return option(func(s *settings) error {
		s.beta = beta
		if !(beta >= 0) || math.IsInf(beta, 1) {
			return fmt.Errorf("WithEarlyRefresh: %v is not a number from 0", beta)
		}
		return nil
	})
}

// WithPatience sets a soft timeout: a caller who has a stale value at hand waits d for the load, and
// is then served the stale value while the load goes on. Default 0: it does not wait. It takes
// effect together with WithStale only.
func WithPatience(d time.Duration) Option {
	return option(func(s *settings) error {
		s.patience = d
		return checkNotNegative("WithPatience", d)
	})
}

// WithNotFound caches not-found results: when the loader's error matches one of errs (errors.Is),
// that error is stored as a negative entry for ttl and returned by later hits. Default: no error is
// cached. Given again, it replaces what was given before. ttl is at least 1 ms, or NoExpiry. What is
// stored is the place of the error in the list: a process with another list, or another order, loads
// anew. Lists are told apart by the types and texts of their errors.
func WithNotFound(ttl time.Duration, errs ...error) Option {
	return option(func(s *settings) error {
		s.notFound = newNotFound(ttl, errs)
		return checkNotFound(ttl, errs)
	})
}

// WithTTLFor has f decide the TTL of each value, in place of WithTTL. Default: nobody does. A result
// that is not positive keeps the value from being stored. V must be the wrapper's.
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

// WithVersion sets the version of V. Default 0. Entries of another version are misses, and are
// overwritten: change it with what a V means, where the old values must not be read any more. While
// releases of two versions run, each takes the other's entries for misses. docs/values.md says which
// changes of V need it.
func WithVersion(version uint8) Option {
	return option(func(s *settings) error {
		s.version = version
		return nil
	})
}

// WithLoadTimeout sets how long a load may take. Default 30 seconds. The loader's context ends then,
// and its callers get context.DeadlineExceeded, whether or not the loader obeys its context.
func WithLoadTimeout(d time.Duration) Option {
	return option(func(s *settings) error {
		s.load.timeout = d
		return checkPositive("WithLoadTimeout", d)
	})
}

// WithLeaseTTL sets for how long a process that dies during a load keeps others from loading.
// Default 3 seconds, at least 10 ms. A load that takes longer renews its lease.
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
// before it loads for itself, without storing. Default: the load timeout, so that a
// load which ends in time runs once in the fleet.
func WithLeaseWait(d time.Duration) Option {
	return option(func(s *settings) error {
		s.lease.wait = d
		return checkNotNegative("WithLeaseWait", d)
	})
}

// WithBatchLoader loads the misses of GetMany, and those that WithGather brings together, by one
// call for each WithBatchSize. Default: the loader is called for each key. A key that the map lacks
// is not found: its error is the first of WithNotFound's, or else ErrNotFound. An error of load is
// that of each key, and not cached, unless it is one of WithNotFound's itself, wrapped in nothing:
// that says it of them all. K and V must be the wrapper's.
func WithBatchLoader[K comparable, V any](load func(ctx context.Context, keys []K) (map[K]V, error)) Option {
	return option(func(s *settings) error {
		s.batch.load = batchLoader[K, V](load)
		if load == nil {
			return fmt.Errorf("WithBatchLoader: the function is nil")
		}
		return nil
	})
}

// WithBatchSize sets how many keys one call of the batch loader is given at most. Default 1000.
func WithBatchSize(n int) Option {
	return option(func(s *settings) error {
		s.batch.size = n
		return checkCount("WithBatchSize", n)
	})
}

// WithGather sets a batch window: single Gets that miss within window of each other are loaded by
// one call of the batch loader, up to size keys. Default: off. Each miss takes up to window
// longer, and N+1 queries become one without a change of the callers, who keep their own
// cancellation and errors. It needs WithBatchLoader. The idea is that of Facebook's DataLoader.
func WithGather(window time.Duration, size int) Option {
	return option(func(s *settings) error {
		s.batch.window, s.batch.gather = window, size
		if err := checkNotNegative("WithGather", window); err != nil {
			return err
		}
		return checkCount("WithGather", size)
	})
}

// WithLoadLimit sets how many loads of the wrapper run at a time in this process. Default 0: any
// number. A caller beyond waits for a slot within its context, or is served the stale value if there
// is one. A batch is one load. A loader that reads through its own wrapper takes a slot for each
// level.
func WithLoadLimit(n int) Option {
	return option(func(s *settings) error {
		s.load.limit = n
		if n < 0 {
			return fmt.Errorf("WithLoadLimit: %d is negative", n)
		}
		return nil
	})
}

// WithBackgroundFill answers those who had come before the load began as soon as it has ended, while
// the value is being stored: a round trip less to wait for. Default off, so that a test finds the
// entry when Get returns. Info.Stored is false then. Who came later waits for the round trip, which
// shows whether anything was invalidated meanwhile.
func WithBackgroundFill() Option {
	return option(func(s *settings) error {
		s.load.ahead = true
		return nil
	})
}

// WithMaxEntryBytes sets the size past which an encoded value is not stored, and not decoded
// if another has stored it, in bytes. Default 8 MiB. Such a value is returned, counted
// (Stats.Unstorable) and observed.
func WithMaxEntryBytes(n int) Option {
	return option(func(s *settings) error {
		s.maxEntry = n
		return checkCount("WithMaxEntryBytes", n)
	})
}

// WithPrefix sets what all keys of the Cache begin with, before a colon. Default: nothing. It is
// printable ASCII without spaces, braces and percent signs.
func WithPrefix(prefix string) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.prefix = prefix
		if prefix == "" {
			return nil
		}
		return checkName("WithPrefix", prefix)
	})
}

// WithRedisTimeout sets how long a call waits for one answer of Redis before it does without.
// Default 100 ms, at least 1 ms. The time begins anew while something comes: large replies,
// answers to those before it in the queue, the steps of a new connection.
//
// On a client with ContextTimeoutEnabled, as from Open, a hit costs little more than a GET, since
// callers send it themselves; then a caller who is cancelled while Redis hangs returns within d, and
// one with a deadline at its deadline. On others each Get is handed to another goroutine and back,
// which costs a lone caller as much again.
//
// A Get of what is not there waits at most twice as long in sum: for the lookup, and for the
// lease and the fill together. It is answered then, and the fill goes on behind it. If the
// lookup fails, it waits for nothing else.
func WithRedisTimeout(d time.Duration) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.redisTimeout = d
		if d < time.Millisecond {
			return fmt.Errorf("WithRedisTimeout: %v is less than 1ms", d)
		}
		return nil
	})
}

// WithBreaker sets after how many failed round trips in a row Redis is not asked any more, and for
// how long, before one call tries again: a circuit breaker (Nygard, Release It!). Default 5 and
// 1 second. Each node of a cluster has a breaker of its own. What invalidates and sets is sent all
// the same, and tells the breaker nothing.
func WithBreaker(failures int, openFor time.Duration) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.breaker.failures, s.breaker.openFor = failures, openFor
		if failures < 1 || failures > math.MaxInt32 {
			return fmt.Errorf("WithBreaker: %d failures is not from 1 to %d", failures, math.MaxInt32)
		}
		return checkPositive("WithBreaker", openFor)
	})
}

// WithMaxRefreshes sets how many background refreshes of the Cache run at a time. Default 64. A
// refresh beyond is skipped and counted; a later read begins it.
func WithMaxRefreshes(n int) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.maxRefreshes = n
		return checkCount("WithMaxRefreshes", n)
	})
}

// WithFailoverSafety keeps a failover of Redis, or its restart from a snapshot, from bringing back
// what was invalidated. Default off. Entries are stamped with the replication ID of the primary that
// took them, and read by a script that takes those of no other primary: so the cache is cold after a
// failover, and each key is loaded once. What it costs, and when a primary changes its ID, is said in
// docs/guarantees.md. All processes that share entries should have it. It needs EVAL, and INFO in
// scripts: where Redis refuses those, nothing is cached.
func WithFailoverSafety() CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.failoverSafe = true
		return nil
	})
}

// WithObserver tells o what happens. Default: nobody is told. It may be given several times.
func WithObserver(o Observer) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		s.observers = append(s.observers, o)
		if o == nil {
			return fmt.Errorf("WithObserver: the observer is nil")
		}
		return nil
	})
}

// WithLogger logs what happens: errors at level Warn, the rest at Debug. Default: nothing is logged.
// Keys are in log lines; values never are.
func WithLogger(l *slog.Logger) CacheOption {
	return cacheOption(func(s *cacheSettings) error {
		if l == nil {
			return fmt.Errorf("WithLogger: the logger is nil")
		}
		s.observers = append(s.observers, logObserver{l})
		return nil
	})
}
