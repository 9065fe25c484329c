package lease

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// setFor is the TTL of the lease of a Set, of which it needs what lies between two round trips.
const setFor = 3 * time.Second

// Item is an entry to be stored.
type Item struct {
	Key   string
	Entry []byte
	TTL   time.Duration // zero: until it is deleted
}

// Set stores the entries, the last one of each key, in two round trips. It takes the leases first,
// whoever has them, since what is being loaded is older, and stores under them: so what is late, or
// sent twice, does not land after a later invalidation. Of two Sets at a time, the one that took the
// lease last stores. A Set that may not store deletes what is there, as it does where Redis refuses
// scripts and transactions, or moves the slot, and while an Update is under way. The keys in left may
// still have an older entry.
//
// Keys with braces have no lease: what is late is stored there.
func (s *Store) Set(ctx context.Context, items ...Item) (left []string, err error) {
	var bare, leased []Item
	at := make(map[string]int, len(items))
	for i, item := range items {
		at[item.Key] = i
	}
	for i, item := range items {
		switch {
		case at[item.Key] != i:
		case Protects(item.Key):
			leased = append(leased, item)
		default:
			bare = append(bare, item)
		}
	}
	left, err = s.setBare(ctx, bare)
	var refused []string
	for i, o := range s.setUnderLease(ctx, leased) {
		switch key := leased[i].Key; {
		case errors.Is(o.Err, ErrRefused), redis.HasErrorPrefix(o.Err, "TRYAGAIN"), o.transacted && !o.Kept:
			refused = append(refused, key)
		case o.Err != nil:
			left, err = append(left, key), o.Err
		}
	}
	more, failed := s.Invalidate(ctx, refused...)
	return append(left, more...), cmp.Or(failed, err)
}

// setUnderLease is Set of keys that have a lease.
func (s *Store) setUnderLease(ctx context.Context, items []Item) []Outcome {
	requests := make([]Request, len(items))
	for i, item := range items {
		s.placed.forget(item.Key)
		requests[i] = Request{Key: item.Key, Token: NewToken(), TTL: setFor, Steal: true}
	}
	outcomes := make([]Outcome, len(items))
	var held []int
	for i, a := range s.acquire(ctx, s.redis.Force, requests) {
		switch outcomes[i].Err = a.Err; {
		case a.Err != nil:
		case a.Written:
			outcomes[i].Err = ErrRefused
		default:
			held, requests[i].Token = append(held, i), a.Token
		}
	}
	stored := s.underLease(ctx, s.redis.Force, len(held), func(j int, again bool) []redis.Cmder {
		item, token := items[held[j]], requests[held[j]].Token
		return s.call(ctx, again, put, []string{s.Key(item.Key), item.Key}, token, item.Entry, millis(item.TTL))
	}, func(j int) transaction {
		item, token := items[held[j]], requests[held[j]].Token
		lease := s.Key(item.Key)
		return transaction{lease, token, false, [][]any{s.unlink(lease), setting(item.Key, item.Entry, item.TTL)}}
	})
	for j, i := range held {
		if outcomes[i] = stored[j]; outcomes[i].Kept {
			s.placed.add(items[i].Key, items[i].TTL)
		}
	}
	return outcomes
}

// setBare is Set of keys that have no lease.
func (s *Store) setBare(ctx context.Context, items []Item) (left []string, err error) {
	keys := make([]string, len(items))
	for i, item := range items {
		keys[i] = item.Key
	}
	if s.config.FailoverSafe {
		return s.writeByScript(ctx, &s.scripts, s.withoutScripts(), keys, func(i int, again bool) []redis.Cmder {
			return s.call(ctx, again, safeSet, keys[i:i+1], items[i].Entry, millis(items[i].TTL))
		})
	}
	return failures(keys, s.write(ctx, keys, func(i int, _ bool) []redis.Cmder {
		return []redis.Cmder{redis.NewCmd(ctx, setting(keys[i], items[i].Entry, items[i].TTL)...)}
	}))
}
