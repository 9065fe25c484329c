package goredis

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
)

const (
	// lookupTimeout is how long a load waits for the old entry.
	lookupTimeout = 100 * time.Millisecond
	// pause is for how long no old entry is asked for after Redis has not answered.
	pause = time.Second
)

// Warm returns load with a look at the old entry before it: a key that readthrough has not stored yet
// is taken from oldKey(k), as codec reads it, and loaded where there is nothing that codec can read.
// The old entry stays, for the processes that still use it. client is that of the old cache or another
// of the same Redis; codec is Codec for what go-redis/cache has stored, or readthrough.JSON, say, for
// code of one's own.
//
// What Warm finds is as fresh as the old cache was, and is then kept for the wrapper's whole TTL. So
// whoever writes must delete the old entry too, and before the new one:
//
//	errors.Join(old.Delete(ctx, oldKey(id)), users.Invalidate(ctx, id))
//
// In that order no load that has seen the old entry can be stored. That go-redis/cache may store an old
// value after a Delete (a reader that loaded before) Warm cannot mend: take it out when the old
// processes are gone and their entries have expired, within a day as a rule.
//
// Redis is waited for up to 100 ms, and after that, or an error of it, left alone for a second. A batch
// loader is not warmed.
func Warm[K, V any](client redis.UniversalClient, codec readthrough.Codec, oldKey func(K) string,
	load readthrough.Loader[K, V],
) readthrough.Loader[K, V] {
	o := &old{client: client}
	return func(ctx context.Context, k K) (V, error) {
		if b := o.get(ctx, oldKey(k)); b != nil {
			var v V
			if codec.Unmarshal(b, &v) == nil {
				return v, nil
			}
		}
		return load(ctx, k)
	}
}

// old is the Redis in which the old entries are.
type old struct {
	client redis.UniversalClient
	paused atomic.Int64 // until then, in Unix nanoseconds
}

// get returns what is at key, or nil if there is nothing or it cannot be known in time.
func (o *old) get(ctx context.Context, key string) []byte {
	if time.Now().UnixNano() < o.paused.Load() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	answer := make(chan *redis.StringCmd, 1)
	// Ends with the client's own timeouts: it may not obey the context.
	go func() { answer <- o.client.Get(limited, key) }()
	select {
	case get := <-answer:
		b, err := get.Bytes()
		var reply redis.Error
		if err != nil && !errors.As(err, &reply) {
			o.pause(ctx)
		}
		if len(b) > 0 {
			return b
		}
	case <-limited.Done():
		o.pause(ctx)
	}
	return nil
}

// pause keeps later loads from waiting, unless it is the caller of this one who has left.
func (o *old) pause(ctx context.Context) {
	if ctx.Err() == nil {
		o.paused.Store(time.Now().Add(pause).UnixNano())
	}
}
