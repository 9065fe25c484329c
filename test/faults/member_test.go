package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

const (
	memberEntry = "fleet member"
	memberEnv   = "READTHROUGH_TEST_MEMBER"
	// patient has Open's client wait as long as the member's cache does.
	patient = "dial_timeout=30s&read_timeout=30s&write_timeout=30s&pool_timeout=30s"
)

func init() { redistest.Register(memberEntry, runMember) }

// memberConfig is what a process of the fleet is told when it starts. What is zero is left at its
// default.
type memberConfig struct {
	URL                      string
	Row                      int // the only one that its loader and its orders are about
	TTL, LeaseTTL, LeaseWait time.Duration
	LocalLease               time.Duration // zero: it keeps no copies
}

func (c memberConfig) key() string { return fmt.Sprintf("row:%d", c.Row) }

// patientURL returns the URL whose client waits as long as the member's cache does.
func (c memberConfig) patientURL() string {
	if strings.Contains(c.URL, "?") {
		return c.URL + "&" + patient
	}
	return c.URL + "?" + patient
}

func (c memberConfig) lease() string { return fmt.Sprintf("{row:%d}:lease", c.Row) }

// order is a line from the test to a member, report a line back. The database of the fleet is the
// test: a member's loader reports that it was called, and returns what the test then says.
type order struct {
	ID    int
	Do    string // get, watch, set, invalidate, stats, or load: the answer to a load
	Times int    // of get and watch: how many goroutines do it
	Value string // of set and load, and the least that watch waits for
}

type report struct {
	ID     int            // of the order that is done; zero: the loader was called
	Values map[string]int // how many goroutines got which value
	Stats  readthrough.Stats
	Err    string
}

// runMember runs one process of the fleet until the test closes its input.
func runMember() int {
	if err := serveOrders(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// member is the process itself.
type member struct {
	row  int
	rows *readthrough.ReadThrough[int, string]
	news chan string // what the test answers to loads

	mu  sync.Mutex
	out *json.Encoder
}

func serveOrders() error {
	var conf memberConfig
	if err := json.Unmarshal([]byte(os.Getenv(memberEnv)), &conf); err != nil {
		return err
	}
	client, err := readthrough.Open(conf.patientURL())
	if err != nil {
		return err
	}
	defer client.Close()
	// A busy machine must not look like an outage.
	cache, err := readthrough.NewCache(client, append(conf.localOptions(), readthrough.WithRedisTimeout(soon))...)
	if err != nil {
		return err
	}
	m := &member{row: conf.Row, news: make(chan string), out: json.NewEncoder(os.Stdout)}
	if m.rows, err = readthrough.New(cache, "row", m.load, readthrough.Int, conf.options()...); err != nil {
		return err
	}

	var work sync.WaitGroup
	orders := json.NewDecoder(os.Stdin)
	for o := (order{}); orders.Decode(&o) == nil; o = (order{}) { // until the test closes the pipe
		if o.Do == "load" {
			m.news <- o.Value
			continue
		}
		work.Go(func() { m.report(m.carryOut(o)) })
	}
	work.Wait()
	return cache.Close()
}

func (c memberConfig) options() []readthrough.Option {
	opts := []readthrough.Option{readthrough.WithJitter(0), readthrough.WithLoadTimeout(10 * soon)}
	if c.TTL > 0 {
		opts = append(opts, readthrough.WithTTL(c.TTL))
	}
	if c.LeaseTTL > 0 {
		opts = append(opts, readthrough.WithLeaseTTL(c.LeaseTTL))
	}
	if c.LeaseWait > 0 {
		opts = append(opts, readthrough.WithLeaseWait(c.LeaseWait))
	}
	return opts
}

// load is the loader.
func (m *member) load(context.Context, int) (string, error) {
	m.report(report{})
	return <-m.news, nil
}

func (m *member) report(r report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.out.Encode(r); err != nil {
		panic(err) // the test has gone
	}
}

func (m *member) carryOut(o order) report {
	ctx := context.Background()
	r := report{ID: o.ID}
	var err error
	switch o.Do {
	case "get":
		r.Values, err = m.together(o.Times, func() (string, error) { return m.rows.Get(ctx, m.row) })
	case "watch":
		r.Values, err = m.together(o.Times, func() (string, error) { return m.watch(ctx, o.Value) })
	case "set":
		err = m.rows.Set(ctx, m.row, o.Value)
	case "invalidate":
		err = m.rows.Invalidate(ctx, m.row)
	case "stats":
		r.Stats = m.rows.Stats()
	default:
		err = fmt.Errorf("no such order: %q", o.Do)
	}
	if err != nil {
		r.Err = err.Error()
	}
	return r
}

// together runs read on n goroutines, and counts what they get.
func (m *member) together(n int, read func() (string, error)) (values map[string]int, failed error) {
	values = make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			v, err := read()
			mu.Lock()
			defer mu.Unlock()
			values[v]++
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	return values, failed
}

// watch reads a row that counts up until it is at last, or beyond: on a busy machine a value can
// come and go unseen.
func (m *member) watch(ctx context.Context, last string) (string, error) {
	end, err := strconv.Atoi(last)
	if err != nil {
		return last, err
	}
	for seen := 0; seen < end; {
		v, err := m.rows.Get(ctx, m.row)
		if err != nil {
			return v, err
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < seen {
			return v, fmt.Errorf("read %q after %d", v, seen)
		}
		seen = n
	}
	return last, nil
}

// processes is a fleet as the test sees it.
type processes struct {
	t       *testing.T
	redis   redis.UniversalClient // the test's own way to look at Redis
	members []*handle
	loads   chan *handle // who asks the database, that is the test
}

// handle is the test's end of a member.
type handle struct {
	*redistest.Proc
	fleet  *processes
	killed bool

	mu      sync.Mutex
	orders  int
	waiting map[int]chan report
}

// startProcesses starts a process for each conf; the first one's URL is where the test looks at
// Redis, too.
func startProcesses(t *testing.T, confs ...memberConfig) *processes {
	t.Helper()
	client, err := readthrough.Open(confs[0].patientURL())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	f := &processes{t: t, redis: client, loads: make(chan *handle, 10_000)}
	for _, conf := range confs {
		f.members = append(f.members, f.start(conf))
	}
	return f
}

func (f *processes) start(conf memberConfig) *handle {
	f.t.Helper()
	env, err := json.Marshal(conf)
	require.NoError(f.t, err)
	var listening sync.WaitGroup
	f.t.Cleanup(listening.Wait) // runs after the Cleanup that kills the process
	h := &handle{
		Proc:    redistest.Process(f.t, memberEntry, memberEnv+"="+string(env)),
		fleet:   f,
		waiting: make(map[int]chan report),
	}
	listening.Go(h.listen) // ends with the process
	f.t.Cleanup(func() {
		if h.killed || f.t.Failed() {
			return
		}
		// A member that found a data race says so by its exit code.
		require.NoError(f.t, h.Stdin.Close())
		require.NoError(f.t, h.Wait())
	})
	return h
}

// listen passes on what the member says, in the order in which it does: when the report of an order
// is there, so are the loads that the order has led to.
func (h *handle) listen() {
	for {
		line, err := h.ReadLine(10 * soon)
		if err != nil {
			return
		}
		var r report
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			h.fleet.t.Errorf("%v in %q", err, line)
			return
		}
		if r.ID == 0 {
			h.fleet.loads <- h
			continue
		}
		h.mu.Lock()
		h.waiting[r.ID] <- r
		h.mu.Unlock()
	}
}

// order gives an order, and returns where its report will be.
func (h *handle) order(o order) <-chan report {
	h.fleet.t.Helper()
	done := make(chan report, 1)
	h.mu.Lock()
	h.orders++
	o.ID = h.orders
	h.waiting[o.ID] = done
	h.mu.Unlock()
	require.NoError(h.fleet.t, json.NewEncoder(h.Stdin).Encode(o))
	return done
}

func (h *handle) get(times int) <-chan report {
	h.fleet.t.Helper()
	return h.order(order{Do: "get", Times: times})
}

// do gives an order and waits until it is carried out.
func (h *handle) do(o order) report {
	h.fleet.t.Helper()
	r := receive(h.fleet.t, h.order(o))
	require.Empty(h.fleet.t, r.Err)
	return r
}

func (h *handle) stats() readthrough.Stats {
	h.fleet.t.Helper()
	return h.do(order{Do: "stats"}).Stats
}

// kill ends the member with SIGKILL.
func (h *handle) kill() {
	h.fleet.t.Helper()
	h.killed = true
	h.Kill()
}

// awaitMisses waits until so many reads of the member have missed: they wait for the load by then,
// or soon will.
func (h *handle) awaitMisses(n int64) {
	h.fleet.t.Helper()
	require.Eventually(h.fleet.t, func() bool { return h.stats().Misses == n }, soon, 5*time.Millisecond)
}

// answer has the member's loader return v.
func (h *handle) answer(v string) {
	h.fleet.t.Helper()
	require.NoError(h.fleet.t, json.NewEncoder(h.Stdin).Encode(order{Do: "load", Value: v}))
}

// awaitLoad waits until the loader of some member is called.
func (f *processes) awaitLoad() *handle {
	f.t.Helper()
	return receive(f.t, f.loads)
}

// requireReport waits for the report of a get whose goroutines must all have got v.
func requireReport(t *testing.T, v string, times int, done <-chan report) {
	t.Helper()
	r := receive(t, done)
	require.Empty(t, r.Err)
	require.Equal(t, map[string]int{v: times}, r.Values)
}
