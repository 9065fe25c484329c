//go:build linux

package coherence

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

var (
	stressReads   = flag.Int64("stress.reads", 20_000, "answers that the readers of the stress are to get")
	stressLimit   = flag.Duration("stress.limit", 5*time.Minute, "how long the stress may take")
	stressRetries = flag.Int("stress.retries", 3, "how often go-redis sends what got no answer again, in two of four Caches; -1: never")
)

// A dial that fails is what the stress is for, and no news.
func init() { redis.SetLogger(silence{}) }

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

const (
	stressKeys    = 24
	stressReaders = 6 // of each Cache
	stressWriters = 2
)

// TestStress_NoReadIsOlderThanReturnedInvalidate has all options, all calls and all faults of a network at once. What
// it checks needs no search for an order, so it has a million reads where the histories have thousands: a read that
// began after an Invalidate, a Delete or a Set had returned gets no version from before it.
func TestStress_NoReadIsOlderThanReturnedInvalidate(t *testing.T) {
	t.Parallel()
	s := newStress(t, redistest.Start(t), *stressReads)
	s.run()
	s.requireExercised()
}

// TestStress_NoCopyIsOlderThanReturnedInvalidate is the same for Caches that keep copies in the process.
func TestStress_NoCopyIsOlderThanReturnedInvalidate(t *testing.T) {
	t.Parallel()
	s := newStress(t, redistest.Start(t), 2**stressReads,
		readthrough.WithLocal(1<<20), readthrough.WithLocalLease(200*time.Millisecond))
	s.run()
	sum := s.stats()
	require.Positive(t, sum.LocalHits)
	require.Positive(t, sum.LocalLost)
	require.Positive(t, sum.Fences)
	require.Positive(t, sum.FencesWaited)
}

// run reads and writes until there have been enough answers, and fails the test if one was not to be given.
func (s *stress) run() {
	t := s.t
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), *stressLimit)
	defer cancel()
	var readers, others sync.WaitGroup
	background, stop := context.WithCancel(ctx)
	for _, f := range s.fleet {
		for range stressReaders {
			readers.Go(func() { s.read(ctx, f) })
		}
		for range stressWriters {
			others.Go(func() { s.write(background, f) })
		}
		others.Go(func() { s.faults.run(background, f.proxy) })
	}
	others.Go(func() { s.sabotage(background) })
	readers.Wait()
	stop()
	others.Wait()

	t.Logf("%d reads, %d writes in %s; faults: %s", s.reads.Load(), s.writes.Load(), time.Since(began).Round(time.Millisecond), s.faults.summary())
	t.Logf("%d batch loads,%s", s.batches.Load(), statsLine(s.stats()))
	if t.Failed() {
		t.FailNow()
	}
	require.GreaterOrEqual(t, s.reads.Load(), s.enough, "not within %s", *stressLimit)
	s.requireCurrent()
}

// stress is a database, and Caches before it that have their Redis in common, each through a proxy of its own.
type stress struct {
	t      *testing.T
	enough int64 // answers
	direct *redis.Client
	fleet  []*stressMember
	rows   [stressKeys]stressRow
	faults stressFaults

	reads, writes, batches atomic.Int64
}

// stressMember is one Cache of the fleet.
type stressMember struct {
	cache *readthrough.Cache
	proxy *redistest.Proxy
	rt    *readthrough.ReadThrough[int, stressValue]
	// retries is how often its client sends a command again. Where it never does, what a Set has written can be held to
	// the end of that Set.
	retries int
}

// stressRow is a row of the database. A write counts its version up.
type stressRow struct {
	version atomic.Int64
	floor   atomic.Int64 // the version at the last Invalidate, Delete or Set that has returned
	// loose are the versions of each Set whose commands may still be under way, and may come at any time: it has
	// failed, or go-redis has perhaps sent it twice. Redis has no means to tell that they are late.
	loose sync.Map
	// setting is held by a Set from its write to the database to its return, and shared by other writers: of two
	// writers that overlap, the one that wrote first may set last, and nothing else is promised.
	setting sync.RWMutex
}

// stressValue is what the Caches hold of a row.
type stressValue struct {
	Key     int
	Version int64
	Set     bool // by a Set, not by a load
}

var (
	errNoRow   = errors.New("no such row")
	errNoLoad  = errors.New("the database is busy")
	stressBase = []readthrough.CacheOption{
		readthrough.WithTTL(40 * time.Millisecond), readthrough.WithJitter(0.5), readthrough.WithStale(60 * time.Millisecond),
		readthrough.WithEarlyRefresh(1), readthrough.WithNotFound(30*time.Millisecond, errNoRow),
		readthrough.WithLeaseTTL(10 * time.Millisecond), readthrough.WithLeaseWait(50 * time.Millisecond),
		readthrough.WithLoadTimeout(time.Second), readthrough.WithRedisTimeout(60 * time.Millisecond), readthrough.WithBreaker(5, 20*time.Millisecond),
	}
)

// deleted reports whether a version of a row says that there is no such row.
func deleted(version int64) bool { return version%8 == 7 }

func newStress(t *testing.T, server *redistest.Server, enough int64, more ...readthrough.CacheOption) *stress {
	s := &stress{t: t, enough: enough, direct: server.Client()}
	for i, opts := range [][]readthrough.Option{
		{readthrough.WithPatience(2 * time.Millisecond), readthrough.WithBatchLoader(s.loadMany)},
		{readthrough.WithGather(time.Millisecond, 8), readthrough.WithBatchLoader(s.loadMany)},
		{readthrough.WithLoadLimit(3), readthrough.WithTTLFor(stressTTL)},
		{readthrough.WithStale(0), readthrough.WithLoadLimit(2), readthrough.WithPatience(time.Millisecond), readthrough.WithBatchLoader(s.loadMany)},
	} {
		proxy, retries := redistest.StartProxy(t, server.Addr()), -1
		if i < 2 {
			retries = *stressRetries
		}
		client := server.Client(func(o *redis.Options) {
			o.Addr, o.MaxRetries, o.ContextTimeoutEnabled = proxy.Addr(), retries, i%2 == 0
			o.DialTimeout, o.ReadTimeout, o.DialerRetries = 200*time.Millisecond, 200*time.Millisecond, 1
			o.DisableIdentity = true
			o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		})
		cache, err := readthrough.NewCache(client, slices.Concat(stressBase, more)...)
		require.NoError(t, err)
		t.Cleanup(func() {
			var unreached *readthrough.WriteError // by a budget this small, on a busy machine
			if err := cache.Close(); !errors.As(err, &unreached) {
				require.NoError(t, err)
			}
		})
		rt, err := readthrough.New(cache, "row", s.load, readthrough.Int, opts...)
		require.NoError(t, err)
		s.fleet = append(s.fleet, &stressMember{cache, proxy, rt, retries})
	}
	return s
}

// stressTTL stores not all values, and some for a short time.
func stressTTL(v stressValue) time.Duration {
	return time.Duration(v.Version%5) * 10 * time.Millisecond
}

// load is the loader. It takes its time before and after it reads the row, and fails now and then.
func (s *stress) load(ctx context.Context, k int) (stressValue, error) {
	stall(ctx, 30, 3*time.Millisecond)
	v := stressValue{Key: k, Version: s.rows[k].version.Load()}
	stall(ctx, 30, 8*time.Millisecond) // some loads outlast their lease
	switch {
	case rand.IntN(100) == 0:
		return v, errNoLoad
	case deleted(v.Version):
		return v, errNoRow
	}
	return v, ctx.Err()
}

func (s *stress) loadMany(ctx context.Context, ks []int) (map[int]stressValue, error) {
	s.batches.Add(1)
	rows := make(map[int]stressValue, len(ks))
	for _, k := range ks {
		if v, err := s.load(ctx, k); err == nil {
			rows[k] = v
		} else if !errors.Is(err, errNoRow) {
			return nil, err
		}
	}
	return rows, nil
}

// stall takes a random time up to limit, in so many percent of the cases, unless ctx ends.
func stall(ctx context.Context, percent int, limit time.Duration) {
	if rand.IntN(100) >= percent {
		return
	}
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// someKey returns a key, the first ones more often.
func someKey() int { return rand.IntN(1 + rand.IntN(stressKeys)) }

func someKeys(n int) []int {
	ks := make([]int, n)
	for i := range ks {
		ks[i] = someKey()
	}
	return ks
}

// answer is what a read got, and what was so when it began.
type answer struct {
	call  string
	k     int
	floor int64 // no older version may be got
	value stressValue
	err   error
}

// read reads until there have been enough answers.
func (s *stress) read(ctx context.Context, f *stressMember) {
	for ctx.Err() == nil && !s.t.Failed() && s.reads.Load() < s.enough {
		callCtx, cancel := ctx, context.CancelFunc(func() {})
		if rand.IntN(20) == 0 { // a caller that leaves
			callCtx, cancel = context.WithTimeout(ctx, rand.N(4*time.Millisecond))
		}
		for _, a := range s.call(callCtx, f.rt) {
			s.check(a)
		}
		cancel()
	}
}

// call makes one of the calls that read, and returns its answers.
func (s *stress) call(ctx context.Context, rt *readthrough.ReadThrough[int, stressValue]) []answer {
	k := someKey()
	a := answer{call: "Get", k: k, floor: s.rows[k].floor.Load()}
	switch n := rand.IntN(100); {
	case n < 15:
		ks := someKeys(8)
		floors := s.floors(ks)
		results, _ := rt.GetMany(ctx, ks)
		answers := make([]answer, len(results))
		for i, r := range results {
			answers[i] = answer{"GetMany", ks[i], floors[i], r.Value, r.Err}
		}
		return answers
	case n < 18:
		a.call, a.floor = "Refresh", s.rows[k].version.Load() // it loads after it was called
		a.value, a.err = rt.Refresh(ctx, k)
	case n < 25:
		a.call = "Peek"
		a.value, a.err = rt.Peek(ctx, k)
	case n < 35:
		a.call = "GetInfo"
		var info readthrough.Info
		a.value, info, a.err = rt.GetInfo(ctx, k)
		a.call += " " + info.Source.String()
	default:
		a.value, a.err = rt.Get(ctx, k)
	}
	return []answer{a}
}

func (s *stress) floors(ks []int) []int64 {
	floors := make([]int64, len(ks))
	for i, k := range ks {
		floors[i] = s.rows[k].floor.Load()
	}
	return floors
}

// check fails the test if an answer is one that was not to be given.
func (s *stress) check(a answer) {
	row, now := &s.rows[a.k], s.rows[a.k].version.Load()
	switch {
	case errors.Is(a.err, errNoRow):
		for v := a.floor; v <= now; v++ {
			if deleted(v) {
				s.reads.Add(1)
				return
			}
		}
		s.t.Errorf("%s: %s %d: no row, but there was one from version %d to %d", violation, a.call, a.k, a.floor, now)
	case errors.Is(a.err, errNoLoad), errors.Is(a.err, context.DeadlineExceeded), errors.Is(a.err, context.Canceled),
		errors.Is(a.err, readthrough.ErrMiss), errors.Is(a.err, readthrough.ErrUnavailable):
	case a.err != nil:
		s.t.Errorf("%s %d: %v", a.call, a.k, a.err)
	case a.value.Key != a.k || a.value.Version > now:
		s.t.Errorf("%s: %s %d: %+v was never written", violation, a.call, a.k, a.value)
	default:
		s.reads.Add(1)
		if _, loose := row.loose.Load(a.value.Version); a.value.Version < a.floor && !(a.value.Set && loose) {
			s.t.Errorf("%s: %s %d: %+v, but version %d was invalidated before the call (it is %d now)", violation, a.call, a.k, a.value, a.floor, now)
		}
	}
}

// write writes to rows until ctx ends, and says so to a Cache.
func (s *stress) write(ctx context.Context, f *stressMember) {
	for ctx.Err() == nil && !s.t.Failed() {
		s.writes.Add(1)
		k := someKey()
		switch n := rand.IntN(100); {
		case n < 30:
			s.update(k, 1, func() error { return f.rt.Invalidate(ctx, k) })
		case n < 40: // without a write
			s.update(k, 0, func() error { return f.rt.Invalidate(ctx, k) })
		case n < 55:
			key, _ := f.rt.RedisKey(k)
			s.update(k, 1, func() error { return f.cache.Delete(ctx, key) })
		case n < 75:
			s.set(ctx, f, k)
		case n < 90: // promises nothing, and must harm nothing
			s.rows[k].version.Add(1)
			_ = f.rt.Expire(ctx, k)
		default:
			s.rows[k].version.Add(1)
			_, _ = f.rt.Refresh(ctx, k)
		}
		stall(ctx, 90, 6*time.Millisecond)
	}
}

// update writes to a row and invalidates it. What has returned without an error is the floor of later reads.
func (s *stress) update(k int, more int64, invalidate func() error) {
	row := &s.rows[k]
	row.setting.RLock()
	defer row.setting.RUnlock()
	version := row.version.Add(more)
	if invalidate() == nil {
		row.raise(version)
	}
}

// set writes to a row and sets what was written.
func (s *stress) set(ctx context.Context, f *stressMember, k int) {
	row := &s.rows[k]
	row.setting.Lock()
	defer row.setting.Unlock()
	version := row.version.Add(1)
	if deleted(version) {
		version = row.version.Add(1)
	}
	row.loose.Store(version, true)
	if f.rt.Set(ctx, k, stressValue{k, version, true}) == nil {
		row.raise(version)
		if f.retries < 0 {
			row.loose.Delete(version)
		}
	}
}

func (r *stressRow) raise(version int64) {
	for old := r.floor.Load(); version > old && !r.floor.CompareAndSwap(old, version); old = r.floor.Load() {
	}
}

// stats returns the sums of what the Caches have counted.
func (s *stress) stats() (sum readthrough.Stats) {
	for _, f := range s.fleet {
		addStats(&sum, f.cache.Stats())
	}
	return sum
}

// requireExercised fails the test if it has tested next to nothing.
func (s *stress) requireExercised() {
	sum := s.stats()
	for what, n := range map[string]int64{
		"hits": sum.Hits, "stale hits": sum.StaleHits, "negative hits": sum.NegativeHits, "fills": sum.Fills, "refused fills": sum.RefusedFills,
		"refreshes": sum.Refreshes, "waits for another caller": sum.Collapsed, "waits for another process": sum.Shared,
		"failed round trips": sum.RedisErrors, "batches": s.batches.Load(),
	} {
		require.Positive(s.t, n, what)
	}
	for fault := range stressFaultKinds {
		require.Positive(s.t, s.faults.counts[fault].Load(), "fault %d", fault)
	}
}

// requireCurrent reads all rows from all Caches, once the network is whole again and all was invalidated.
func (s *stress) requireCurrent() {
	for k := range s.rows {
		require.Eventually(s.t, func() bool { return s.fleet[0].rt.Invalidate(s.t.Context(), k) == nil }, time.Minute, time.Millisecond)
		s.rows[k].raise(s.rows[k].version.Load())
		for _, f := range s.fleet {
			a := answer{call: "last Get", k: k, floor: s.rows[k].floor.Load(), err: errNoLoad}
			for errors.Is(a.err, errNoLoad) {
				a.value, a.err = f.rt.Get(s.t.Context(), k)
			}
			s.check(a)
		}
	}
}

// sabotage does what eviction, a flush or an operator does to a cache.
func (s *stress) sabotage(ctx context.Context) {
	for ctx.Err() == nil {
		key := fmt.Sprint("row:", someKey())
		switch rand.IntN(20) {
		case 0:
			_ = s.direct.ScriptFlush(ctx).Err()
		case 1:
			_ = s.direct.PExpire(ctx, key, 5*time.Millisecond).Err()
		case 2, 3, 4:
			_ = s.direct.Del(ctx, "{"+key+"}:lease").Err()
		default:
			_ = s.direct.Del(ctx, key).Err()
		}
		stall(ctx, 100, 20*time.Millisecond)
	}
}
