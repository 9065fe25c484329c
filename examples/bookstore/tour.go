package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// The books that the tour is about, by their ids in books.csv.
const (
	mobyDick = 49
	dracula  = 121
	noBook   = 4242

	fullTitle = "Moby-Dick; or, The Whale"
	readers   = 1000 // as the tour's words say
)

// guide tells the story of the cache, one step after the other.
type guide struct {
	shop *shop
	out  io.Writer
}

// tour shows on out what the cache does, with real queries and real times.
func tour(ctx context.Context, s *shop, ownRedis bool, out io.Writer) error {
	g := &guide{shop: s, out: out}
	if err := g.reset(ctx); err != nil {
		return err
	}
	if err := g.scene(ctx, ownRedis); err != nil {
		return err
	}
	for i, step := range []func(context.Context) error{
		g.coldRead, g.warmRead, g.update, g.notFound, g.crowd, g.list, g.entry, g.statistics,
	} {
		g.print("%d. ", i+1)
		if err := step(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// reset brings the three books to where the story begins. A file kept with -db
// and a Redis of one's own remember the tour before.
func (g *guide) reset(ctx context.Context) error {
	books, err := Catalogue()
	if err != nil {
		return err
	}
	for _, id := range []int64{mobyDick, dracula} {
		if _, err := g.shop.store.Save(ctx, books[id-1]); err != nil {
			return err
		}
	}
	if err := g.shop.store.Delete(ctx, noBook); err != nil && !errors.Is(err, ErrNoBook) {
		return err
	}
	return nil
}

func (g *guide) scene(ctx context.Context, ownRedis bool) error {
	n, err := g.shop.store.repo.CountBooks(ctx)
	if err != nil {
		return err
	}
	where := "an embedded Redis (set REDIS_URL to use yours)"
	if ownRedis {
		where = "the Redis of REDIS_URL"
	}
	g.say("%d public-domain books in SQLite, read through %s.", n, where)
	return nil
}

func (g *guide) coldRead(ctx context.Context) error {
	g.say("A cold read asks SQLite, and stores the book in Redis.")
	return g.find(ctx, mobyDick)
}

func (g *guide) warmRead(ctx context.Context) error {
	g.say("A warm read asks Redis only.")
	return g.find(ctx, mobyDick)
}

func (g *guide) update(ctx context.Context) error {
	g.say("An update saves the row and invalidates the entry: the next read is fresh.")
	b, err := g.shop.store.Find(ctx, mobyDick)
	if err != nil {
		return err
	}
	b.Title = fullTitle
	if _, err := g.shop.store.Save(ctx, b); err != nil {
		return err
	}
	return g.find(ctx, mobyDick)
}

func (g *guide) notFound(ctx context.Context) error {
	g.say("No book has the id %d, and that is remembered too.", noBook)
	return errors.Join(g.find(ctx, noBook), g.find(ctx, noBook))
}

// crowd sends readers at one cold key, all at once.
func (g *guide) crowd(ctx context.Context) error {
	g.say("1,000 readers ask for one cold book at the same moment.")
	if err := g.shop.store.Invalidate(ctx, dracula); err != nil {
		return err
	}
	var (
		group sync.WaitGroup // waits for every reader below
		start = make(chan struct{})
		errs  = make([]error, readers)
		found = make([]Book, readers)
	)
	for i := range readers {
		group.Go(func() {
			<-start
			found[i], errs[i] = g.shop.store.Find(ctx, dracula)
		})
	}
	return g.measure(func() (string, error) {
		close(start)
		group.Wait()
		for _, b := range found {
			if b != found[0] {
				return "", fmt.Errorf("two readers saw different books: %s and %s", b, found[0])
			}
		}
		return found[0].String(), errors.Join(errs...)
	})
}

// list shows a page of books, cold and warm.
func (g *guide) list(ctx context.Context) error {
	g.say("A list of %d books: cold one query for the ids and one for the books, warm none.", listLength)
	books, err := Catalogue()
	if err != nil {
		return err
	}
	ids := make([]int64, len(books))
	for i, b := range books {
		ids[i] = b.ID
	}
	if err := g.shop.store.Invalidate(ctx, ids...); err != nil {
		return err
	}
	for range 2 {
		err := g.measure(func() (string, error) {
			books, err := g.shop.store.List(ctx)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d books, from %q", len(books), books[0].Title), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// entry reads the bytes under the book's key as a stranger to this library.
func (g *guide) entry(ctx context.Context) error {
	g.say("The entry, as any msgpack reader sees it: a header and the book.")
	key, err := g.shop.store.RedisKey(mobyDick)
	if err != nil {
		return err
	}
	stored, err := g.shop.client.Get(ctx, key).Bytes()
	if err != nil {
		return fmt.Errorf("GET %s: %w", key, err)
	}
	e, err := decodeEntry(stored)
	if err != nil {
		return fmt.Errorf("decode %s: %w", key, err)
	}
	g.say("   GET %s -> %d bytes", key, len(stored))
	g.say("   ext %#x: format %d, flags %d, loaded %s in %d ms, fresh until %s", headerExt, e.Format, e.Flags,
		e.LoadedAt.Format(time.TimeOnly), e.LoadTime.Milliseconds(), e.FreshUntil.Format(time.TimeOnly))
	g.say("   value: %v", e.Value)
	return nil
}

func (g *guide) statistics(context.Context) error {
	s := g.shop.store.Stats()
	g.say("What the cache counted from start to end.")
	g.say("   hits %d, negative hits %d, misses %d: loads %d, collapsed %d, shared %d",
		s.Hits, s.NegativeHits, s.Misses, s.Loads, s.Collapsed, s.Shared)
	g.say("   fills %d, refused fills %d, invalidations %d, corrupt %d, redis errors %d",
		s.Fills, s.RefusedFills, s.Invalidations, s.Corrupt, s.RedisErrors)
	return nil
}

// find reads a book and says what came, how long it took and what it cost.
func (g *guide) find(ctx context.Context, id int64) error {
	return g.measure(func() (string, error) {
		b, err := g.shop.store.Find(ctx, id)
		if errors.Is(err, ErrNoBook) {
			return err.Error(), nil
		}
		return b.String(), err
	})
}

// measure says what act returns, its time, and the queries that SQLite ran
// meanwhile: counted in the repository, beneath the cache.
func (g *guide) measure(act func() (string, error)) error {
	before, start := g.shop.store.Queries(), time.Now()
	what, err := act()
	took, queries := time.Since(start), g.shop.store.Queries()-before
	if err != nil {
		return err
	}
	g.say("   %-50s %8.2f ms  %s", what, float64(took.Microseconds())/1000, plural(queries, "query", "queries"))
	return nil
}

func (g *guide) say(format string, args ...any) { g.print(format+"\n", args...) }

func (g *guide) print(format string, args ...any) { fmt.Fprintf(g.out, format, args...) }

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
