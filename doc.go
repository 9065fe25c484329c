// Package readthrough wraps a repository function so that it is served from Redis, loaded once
// when it is not there, and never served stale after you said that it changed.
//
//	cache, err := readthrough.NewCache(client)
//	users, err := readthrough.New(cache, "user", repo.FindUser, readthrough.Int)
//	user, err := users.Get(ctx, 42) // the signature of repo.FindUser
//
// A [Cache] is one Redis client with settings that its wrappers share. A [ReadThrough] is one
// wrapped function. Make both once, when the process starts, and use them from any number of
// goroutines. [Open] makes a client whose limits suit a cache; any go-redis client that reads from
// the primary will do.
//
// # Reading
//
// [ReadThrough.Get] has the signature of the function that it wraps and returns that function's
// errors, so a method value of it can take the function's place. A hit costs one round trip, which
// concurrent callers share. A miss loads the value once in the whole fleet: the goroutines of one
// process wait for one load, and a lease in Redis keeps the other processes from loading too.
//
// The third argument of [New] makes the cache key: [String] and [Int] are ready-made. A function
// of several arguments takes a struct as its key, and a key extractor that joins the fields without
// ambiguity (see the example of New with a composite key). [ReadThrough.RedisKey] returns the key
// as Redis has it.
//
// [ReadThrough.Peek] never loads. [ReadThrough.Refresh] always does.
//
// When Redis is down or hangs, a caller waits for it once, for [WithRedisTimeout] (100 ms) at most,
// and is then served by the loader. After a few failures a circuit breaker ([WithBreaker]) spares
// the callers that wait as well.
//
// # Writing
//
// Write to the database first, then tell the cache. [ReadThrough.Invalidate] is the one to reach
// for: a Get that starts after it has returned, in any process, never returns what was loaded
// before it, as long as one Redis primary answers and forgets nothing ([WithFailoverSafety]), and
// loaders see what was written: docs/guarantees.md has all conditions. Call it also when the outcome
// of the write is unknown, and under a context that the caller cannot cancel
// (context.WithoutCancel).
//
// [ReadThrough.Set] and [ReadThrough.SetMany] store what was just written, which saves the next
// reader a load. Two writers of one key that both Set may do so in another order than they wrote
// to the database; Invalidate has no order to get wrong. [ReadThrough.Expire] is the gentle
// Invalidate: the old value may be served until one refresh has succeeded, for as long as WithStale.
//
// An invalidation that does not reach Redis is an error, and is retried in the background until
// Redis is back or the entries have expired.
//
// # Not found
//
// [WithNotFound] names the errors that mean "there is no such value". They are cached for a TTL of
// their own, and a hit returns the very error that was named. No other error is ever cached. A nil
// pointer, an empty slice or a zero struct that the loader returns without an error is a value.
//
// # Stale values
//
// [WithStale] keeps an entry past its TTL. It is then served at once while one process refreshes
// it, and also when the load fails (stale-while-revalidate and stale-if-error of RFC 5861).
// [WithPatience] makes a caller wait a little for the fresh value first. [WithEarlyRefresh]
// refreshes popular values before their TTL ends. What was invalidated is never served stale.
//
// # Many keys
//
// [ReadThrough.GetMany] looks all keys up in one round trip; [WithBatchLoader] loads those that
// miss with one query. [ReadThrough.Each] ranges over any number of keys, and [ReadThrough.Warm]
// fills the cache before a process takes traffic. [WithGather] makes one query of single Gets that
// miss at the same time. [WithLoadLimit] bounds the loads under way at a time.
//
// # Watching
//
// [ReadThrough.Stats] and [Cache.Stats] count what has happened. An [Observer] learns of each
// [Event] as it happens; [WithLogger] writes the events to a slog.Logger. [ReadThrough.GetInfo]
// tells where one value came from and how old it is, and [Info.CacheStatus] renders that for HTTP
// (RFC 9211). Events and logs hold keys, never values.
//
// # Errors
//
// Get returns the loader's errors unchanged; a panic of the loader is raised again in each caller,
// as a [PanicError]. The package's own errors are for errors.Is and errors.As:
//
//   - [ErrMiss]: Peek, or the raw [Get], found no value
//   - [ErrNotFound]: the batch loader left a key out, and no WithNotFound says what that means
//   - [ErrUnavailable]: Redis could not be asked: refused, hung, or the breaker is open
//   - [WriteError]: a write may have left stale entries; it names all their keys
//   - [ErrEmptyKey]: the key extractor returned an empty string
//   - [ErrClosed]: the Cache was closed
//   - context.DeadlineExceeded: the load took longer than [WithLoadTimeout]
//
// Bytes in Redis that are no entry, or do not decode into the wrapper's type, are a miss and never
// an error.
//
// # Testing
//
// Package readthroughtest has a Cache for tests: on a Redis inside the process, with a time that the
// test moves, an outage that it begins and ends, and an audit that finds the Invalidate that was
// forgotten after a write. [Disabled] is a Cache that keeps nothing.
//
// The guarantees and the tests that hold them are in docs/guarantees.md and docs/testing.md of the
// repository; docs/operations.md says what each counter means when it rises.
package readthrough
