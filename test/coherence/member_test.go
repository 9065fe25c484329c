//go:build linux

package coherence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// coherenceEntry is the name of the child program that takes part in histories.
const coherenceEntry = "coherence"

func init() { redistest.Register(coherenceEntry, takePart) }

// memberOrder is what a process is told: to take part in a history, or to let the load that it
// holds go on.
type memberOrder struct {
	GoOn    bool
	History int
	Mix     string
	Process int
	Seed    uint64
}

// memberReport is what a process says: that a load of it holds its lease and waits to be stopped,
// or what its part in a history was.
type memberReport struct {
	Held       bool
	History    int
	Operations []historyOp
	Stats      readthrough.Stats
	Batches    int64  // calls of the batch loader
	LostLeases int64  // that sabotage has taken from a load
	Failed     string // what must not have happened
}

const (
	coherenceKeys    = 2
	coherenceClients = 5  // in each process
	operationsEach   = 25 // of each client
	// patientRedis keeps a busy machine from being taken for a Redis that is down: with an
	// Invalidate whose fate is unknown there would be less to check.
	patientRedis = time.Minute
)

// fleetMember is one process of the fleet.
type fleetMember struct {
	cache, database *redis.Client
	holding         chan struct{} // has room for one load at a time
	goOn            chan struct{}

	mu  sync.Mutex
	out *json.Encoder
}

// takePart runs a child process until its input ends.
func takePart() int {
	m := &fleetMember{
		cache: memberClient("CACHE"), database: memberClient("DATABASE"),
		holding: make(chan struct{}, 1), goOn: make(chan struct{}),
		out: json.NewEncoder(os.Stdout),
	}
	m.cache.AddHook(slowNetwork{})
	in := json.NewDecoder(os.Stdin)
	var parts sync.WaitGroup
	for {
		var o memberOrder
		switch err := in.Decode(&o); {
		case errors.Is(err, io.EOF):
			parts.Wait()
			return 0
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
			return 1
		case o.GoOn:
			m.goOn <- struct{}{}
		default:
			parts.Go(func() { m.say(m.run(o)) })
		}
	}
}

// memberClient gives up on nothing: a command that is sent again would count twice.
func memberClient(env string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: os.Getenv(env), MaxRetries: -1, PoolSize: 100,
		DialTimeout: patientRedis, ReadTimeout: patientRedis, WriteTimeout: patientRedis, PoolTimeout: patientRedis,
	})
}

func (m *fleetMember) say(r memberReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.out.Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// hold stays in a load, lease in hand, until the process has been stopped and woken up again. One
// load at a time does.
func (m *fleetMember) hold() {
	select {
	case m.holding <- struct{}{}:
	default:
		return
	}
	m.say(memberReport{Held: true})
	<-m.goOn
	<-m.holding
}

// slowNetwork has the commands of a load come late, and their answers later: what is decided on an
// answer is then decided on what was so a while ago. The lookups and invalidations of others
// overtake them.
type slowNetwork struct{}

func (slowNetwork) DialHook(next redis.DialHook) redis.DialHook { return next }

func (slowNetwork) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (slowNetwork) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if slices.ContainsFunc(cmds, ofLoad) {
			dawdle(10, 2*time.Millisecond)
			defer dawdle(40, 5*time.Millisecond)
		}
		return next(ctx, cmds)
	}
}

// ofLoad reports whether cmd is one that acquires a lease, or a script.
func ofLoad(cmd redis.Cmder) bool {
	return cmd.Name() == "set" || strings.HasPrefix(cmd.Name(), "eval")
}

// dawdle takes up to limit, in so many percent of the cases. To take a random time is its purpose:
// no event is waited for.
func dawdle(percent int, limit time.Duration) {
	if rand.IntN(100) < percent {
		time.Sleep(rand.N(limit))
	}
}

// historyPart is a process's part in one history. Its cache is one of its own.
type historyPart struct {
	*fleetMember
	memberOrder
	mix  mix
	rows *readthrough.ReadThrough[int, int64]

	batches, lostLeases atomic.Int64
}

func (m *fleetMember) run(o memberOrder) memberReport {
	p := &historyPart{fleetMember: m, memberOrder: o, mix: mixNamed(o.Mix)}
	r := memberReport{History: o.History}
	var err error
	if r.Operations, r.Stats, err = p.run(); err != nil {
		r.Failed = err.Error()
	}
	r.Batches, r.LostLeases = p.batches.Load(), p.lostLeases.Load()
	return r
}

func (p *historyPart) run() ([]historyOp, readthrough.Stats, error) {
	opts := append([]readthrough.CacheOption{
		readthrough.WithRedisTimeout(patientRedis),
		readthrough.WithLoadTimeout(patientRedis),
		readthrough.WithLeaseTTL(10 * time.Millisecond), // the shortest
		readthrough.WithTTL(20 * time.Millisecond),
		readthrough.WithBatchLoader(p.loadMany), // for GetMany and WithGather
	}, p.mix.opts...)
	cache, err := readthrough.NewCache(p.cache, opts...)
	if err != nil {
		return nil, readthrough.Stats{}, err
	}
	if p.rows, err = readthrough.New(cache, fmt.Sprintf("history-%d", p.History), p.load, readthrough.Int); err != nil {
		return nil, readthrough.Stats{}, errors.Join(err, cache.Close())
	}
	clients := make([]*historyClient, coherenceClients)
	errs := make([]error, coherenceClients)
	var wg sync.WaitGroup
	for i := range clients {
		id := p.Process*coherenceClients + i
		clients[i] = &historyClient{historyPart: p, id: id, rng: rand.New(rand.NewPCG(p.Seed, uint64(id)))}
		wg.Go(func() { errs[i] = clients[i].run() })
	}
	wg.Wait()
	stats := cache.Stats() // Close would add loads of nobody that it cuts short
	errs = append(errs, cache.Close())
	var ops []historyOp
	for _, c := range clients {
		ops = append(ops, c.done...)
	}
	return ops, stats, errors.Join(errs...)
}

// rowKey returns where the database keeps the version of a row.
func (p *historyPart) rowKey(k int) string { return fmt.Sprintf("row-%d-%d", p.History, k) }

// load is the loader: it takes its time before and after it reads the row.
func (p *historyPart) load(ctx context.Context, k int) (int64, error) {
	dawdle(50, 3*time.Millisecond)
	v, err := p.database.Get(ctx, p.rowKey(k)).Int64()
	if errors.Is(err, redis.Nil) {
		err = nil // version 0: never written
	}
	if rand.IntN(100) < 2 {
		p.hold()
	}
	dawdle(50, 3*time.Millisecond)
	return v, err
}

func (p *historyPart) loadMany(ctx context.Context, ks []int) (map[int]int64, error) {
	p.batches.Add(1)
	rows := make(map[int]int64, len(ks))
	for _, k := range ks {
		v, err := p.load(ctx, k)
		if err != nil {
			return nil, err
		}
		rows[k] = v
	}
	return rows, nil
}

// historyClient makes one call after the other, and notes what each did.
type historyClient struct {
	*historyPart
	id   int
	rng  *rand.Rand
	done []historyOp
}

func (c *historyClient) run() error {
	ctx := context.Background()
	for len(c.done) < operationsEach {
		dawdle(20, 3*time.Millisecond)
		k := c.rng.IntN(1 + c.rng.IntN(coherenceKeys)) // the first keys are hot
		if err := c.act(ctx, c.mix.pick(c.rng), k); err != nil {
			return fmt.Errorf("client %d, key %d: %w", c.id, k, err)
		}
	}
	return nil
}

func (c *historyClient) act(ctx context.Context, a opKind, k int) error {
	switch a {
	case opGet:
		return c.note(opGet, k, func() (int64, error) { return c.rows.Get(ctx, k) })
	case opRefresh:
		return c.note(opRefresh, k, func() (int64, error) { return c.rows.Refresh(ctx, k) })
	case opGetMany:
		return c.getMany(ctx)
	case opInvalidateAgain:
		return c.invalidate(ctx, k)
	case opExpire:
		return c.rows.Expire(ctx, k)
	case opSabotage:
		return c.sabotage(ctx, k)
	case opUpdateLeased:
		return c.update(ctx, k)
	}
	// A writer: the version that it wrote is the one it sets.
	v, err := c.write(ctx, k)
	if err != nil {
		return err
	}
	dawdle(30, 3*time.Millisecond)
	if a == opSetNew {
		return c.note(opSet, k, func() (int64, error) { return v, c.rows.Set(ctx, k, v) })
	}
	return c.invalidate(ctx, k)
}

// write changes the row.
func (c *historyClient) write(ctx context.Context, k int) (v int64, err error) {
	err = c.note(opWrite, k, func() (_ int64, err error) {
		v, err = c.database.Incr(ctx, c.rowKey(k)).Result()
		return v, err
	})
	return v, err
}

// update notes an Update as what it is for readers: a write, and an Invalidate after it.
func (c *historyClient) update(ctx context.Context, k int) error {
	var wrote int64
	err := c.rows.Update(ctx, k, func(ctx context.Context) error {
		dawdle(30, 3*time.Millisecond)
		_, err := c.write(ctx, k)
		dawdle(30, 3*time.Millisecond)
		wrote = machineTime()
		return err
	})
	c.done = append(c.done, historyOp{Key: k, Action: opInvalidate, Client: c.id, Call: wrote, Return: machineTime()})
	return err
}

// note makes a call and notes it.
func (c *historyClient) note(a opKind, k int, call func() (int64, error)) error {
	began := machineTime()
	v, err := call()
	c.done = append(c.done, historyOp{Key: k, Action: a, Version: v, Client: c.id, Call: began, Return: machineTime()})
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	return nil
}

func (c *historyClient) invalidate(ctx context.Context, k int) error {
	return c.note(opInvalidate, k, func() (int64, error) { return 0, c.rows.Invalidate(ctx, k) })
}

// getMany notes a GetMany as a Get of each key, all at the same time.
func (c *historyClient) getMany(ctx context.Context) error {
	ks := c.rng.Perm(coherenceKeys)
	began := machineTime()
	results, err := c.rows.GetMany(ctx, ks)
	returned := machineTime()
	for i, r := range results {
		err = errors.Join(err, r.Err)
		c.done = append(c.done, historyOp{Key: ks[i], Action: opGet, Version: r.Value, Client: c.id, Call: began, Return: returned})
	}
	return err
}

// sabotage does what eviction, a flush or an operator does to a cache.
func (c *historyClient) sabotage(ctx context.Context, k int) error {
	key, err := c.rows.RedisKey(k)
	if err != nil {
		return err
	}
	if strings.HasPrefix(c.mix.name, "local") {
		switch c.rng.IntN(100) {
		case 0, 1: // all processes lose the connections on which they hear of fences
			return c.cache.Do(ctx, "client", "kill", "type", "pubsub").Err()
		case 2:
			return c.cache.Del(ctx, []string{"{local}:state", "{local}:table"}[c.rng.IntN(2)]).Err()
		}
	}
	ofLease := c.rng.IntN(2) == 0
	if ofLease {
		key = "{" + key + "}:lease"
	}
	var there bool
	if c.rng.IntN(2) == 0 {
		n, failed := c.cache.Del(ctx, key).Result()
		there, err = n > 0, failed
	} else {
		there, err = c.cache.PExpire(ctx, key, time.Millisecond).Result()
	}
	if ofLease && there {
		c.lostLeases.Add(1)
	}
	return err
}

// machineTime returns nanoseconds on the monotonic clock that all processes of the machine share.
// Package time keeps its reading of that clock to itself.
func machineTime() int64 {
	const monotonic = 1 // CLOCK_MONOTONIC
	var now syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		panic(errno)
	}
	return now.Nano()
}
