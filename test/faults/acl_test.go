package faults

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// smallest is the access that docs/redis.md says is enough for a Cache with the prefix "app".
var smallest = []string{"~app:*", "+get", "+set", "+unlink", "+eval", "+evalsha", "+del", "+pexpire", "+pttl", "+getrange", "+setrange", "+role"}

// login makes a user of server with the rules.
func login(t *testing.T, server *redistest.Server, rules ...string) (username, password string) {
	t.Helper()
	args := []any{"acl", "setuser", "cache", "reset", "on", ">password"}
	for _, rule := range rules {
		args = append(args, rule)
	}
	require.NoError(t, server.Client().Do(t.Context(), args...).Err())
	return "cache", "password"
}

// as returns a client that logs in as a user with the rules.
func as(t *testing.T, server *redistest.Server, rules ...string) func() redis.UniversalClient {
	username, password := login(t, server, rules...)
	return func() redis.UniversalClient {
		return server.Client(func(o *redis.Options) { o.Username, o.Password, o.DisableIdentity = username, password, true })
	}
}

// callAll calls what sends a command, and each in each way.
func callAll(t *testing.T, cache *readthrough.Cache) {
	t.Helper()
	ctx := t.Context()
	errNone := errors.New("none")
	rows := readthrough.Must(readthrough.New(cache, "row", func(ctx context.Context, id int) (int, error) {
		if id < 0 {
			return 0, errNone
		}
		if id == 3 { // so long that the lease is renewed
			select {
			case <-time.After(400 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		return id, nil
	}, readthrough.Int, readthrough.WithStale(time.Hour), readthrough.WithLeaseTTL(300*time.Millisecond)))
	for range 2 {
		for id := range 4 {
			v, err := rows.Get(ctx, id)
			require.NoError(t, err)
			require.Equal(t, id, v)
		}
		_, err := rows.Get(ctx, -1) // releases the lease without an entry
		require.ErrorIs(t, err, errNone)
		_, err = rows.Refresh(ctx, 1)
		require.NoError(t, err)
		require.NoError(t, rows.Set(ctx, 2, 2))
		require.NoError(t, rows.SetMany(ctx, maps.All(map[int]int{1: 1, 2: 2})))
		require.NoError(t, rows.Expire(ctx, 1, 2, 8))
		_, err = rows.Get(ctx, 1)
		require.NoError(t, err)
		require.NoError(t, rows.Invalidate(ctx, 0, 3, 9))
		require.NoError(t, cache.Delete(ctx, "app:row:2"))
		require.NoError(t, readthrough.Set(ctx, cache, "app:raw", 1, readthrough.NoExpiry))
		_, err = readthrough.Get[int](ctx, cache, "app:raw")
		require.NoError(t, err)
	}
	_, err := rows.GetMany(ctx, upTo(20))
	require.NoError(t, err)
}

func TestCache_NeedsNoMoreThanTheDocumentedAccess(t *testing.T) {
	t.Parallel()
	requireContent := func(t *testing.T, server *redistest.Server, cache *readthrough.Cache) {
		callAll(t, cache)
		s := cache.Stats()
		require.Zero(t, s.RedisErrors)
		require.Positive(t, s.Fills)
		require.Zero(t, s.RefusedFills)
		require.Positive(t, s.StaleHits, "what was expired is served")
		require.Zero(t, s.RefusedCommands)
		refused, err := server.Client().ACLLog(t.Context(), 10).Result()
		require.NoError(t, err)
		require.Empty(t, refused)
	}
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		requireContent(t, server, fleet(t, 1, as(t, server, smallest...), readthrough.WithPrefix("app"), unhurried)[0])
	})
	t.Run("failover safety", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		client := as(t, server, append(slices.Clone(smallest), "+info")...)
		requireContent(t, server, fleet(t, 1, client, readthrough.WithPrefix("app"), unhurried, readthrough.WithFailoverSafety())[0])
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, 1, 0)
		server := cluster.Masters()[0]
		username, password := login(t, server, append(smallest, "+cluster|slots", "+command")...)
		requireContent(t, server, fleet(t, 1, func() redis.UniversalClient {
			return cluster.Client(func(o *redis.ClusterOptions) {
				o.Username, o.Password, o.DisableIdentity = username, password, true
			})
		}, readthrough.WithPrefix("app"), unhurried)[0])
	})
}

// unhurried waits longer for Redis than a busy machine takes.
var unhurried = readthrough.WithRedisTimeout(5 * time.Second)

// refused is the errors of all EventRefusedCommand.
type refused struct {
	mu   sync.Mutex
	errs []error
}

func (r *refused) Observe(_ context.Context, e readthrough.Event) {
	if e.Kind != readthrough.EventRefusedCommand {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, e.Err)
}

// said returns what was said, each thing once.
func (r *refused) said() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

// TestCache_DoesWithoutWhatRedisRefuses takes commands from the user one by one, and several at a
// time. Nothing is an error, nothing is stale, no lease is left behind, and each thing is said once.
func TestCache_DoesWithoutWhatRedisRefuses(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args     []string // of the server
		rules    []string
		unstored bool // what is loaded cannot be stored
		said     int
	}{
		"nothing":                               {rules: nil},
		"scripts":                               {rules: []string{"-@scripting"}, said: 2}, // of fills, and of Expire
		"EVAL, renamed":                         {args: []string{"--rename-command", "EVAL", ""}, said: 2},
		"scripts and UNWATCH":                   {rules: []string{"-@scripting", "-unwatch"}, said: 2},
		"scripts and UNLINK":                    {rules: []string{"-@scripting", "-unlink"}, said: 3},
		"scripts and transactions":              {rules: []string{"-@scripting", "-@transaction"}, unstored: true, said: 3},
		"scripts and WATCH":                     {rules: []string{"-@scripting", "-watch"}, unstored: true, said: 3},
		"scripts and EXEC":                      {rules: []string{"-@scripting", "-exec"}, unstored: true, said: 3},
		"scripts, transactions and UNLINK":      {rules: []string{"-@scripting", "-@transaction", "-unlink"}, unstored: true, said: 4},
		"EVALSHA":                               {rules: []string{"-evalsha"}},
		"UNLINK":                                {rules: []string{"-unlink"}, said: 1},
		"UNLINK, renamed":                       {args: []string{"--rename-command", "UNLINK", ""}, said: 1},
		"DEL":                                   {rules: []string{"-del"}, said: 1},
		"PEXPIRE":                               {rules: []string{"-pexpire"}, said: 1},
		"GETRANGE":                              {rules: []string{"-getrange"}, said: 1},
		"SETRANGE":                              {rules: []string{"-setrange"}, said: 1},
		"GETRANGE and SETRANGE, renamed":        {args: []string{"--rename-command", "GETRANGE", "", "--rename-command", "SETRANGE", ""}, said: 1},
		"PTTL":                                  {rules: []string{"-pttl"}, said: 1},
		"all that a Cache can do without":       {rules: []string{"-@all", "+get", "+set", "+del"}, unstored: true, said: 4},
		"all that it can do without but UNLINK": {rules: []string{"-@all", "+get", "+set", "+unlink"}, unstored: true, said: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, row.args...)
			said := new(refused)
			client := as(t, server, append([]string{"~app:*", "+@all"}, row.rules...)...)
			a := fleet(t, 1, client, readthrough.WithPrefix("app"), readthrough.WithObserver(said))[0]
			others := fleet(t, 2, client, readthrough.WithPrefix("app"))
			requireCoherent(t, server.Client(), a, others[0], row.unstored)
			callAll(t, others[1])
			require.Zero(t, others[1].Stats().RefusedFills, "nobody takes a lease from it")
			for _, cache := range append(others, a) {
				require.Zero(t, cache.Stats().RedisErrors)
				require.Zero(t, cache.Stats().PendingInvalidations)
			}
			require.Len(t, said.said(), row.said, "%v", said.said())
			require.EqualValues(t, row.said, a.Stats().RefusedCommands)
		})
	}
}

// TestFailoverSafety_CachesNothingWhereRedisRefusesItsScripts has an entry in Redis from before, with a
// stamp or without. It must not be served, nor be there for others once it was changed.
func TestFailoverSafety_CachesNothingWhereRedisRefusesItsScripts(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ args, rules []string }{
		"scripts":           {rules: []string{"-@scripting"}},
		"INFO":              {rules: []string{"-info"}},
		"INFO and UNLINK":   {rules: []string{"-info", "-unlink"}},
		"EVAL, for all":     {args: []string{"--rename-command", "EVAL", "", "--rename-command", "EVALSHA", ""}},
		"EVAL, not EVALSHA": {rules: []string{"-eval"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, row.args...)
			client := server.Client()
			all := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithFailoverSafety())[0]
			plain := fleet(t, 1, func() redis.UniversalClient { return client })[0]
			said := new(refused)
			restricted := fleet(t, 1, as(t, server, append([]string{"~*", "+@all"}, row.rules...)...),
				readthrough.WithFailoverSafety(), readthrough.WithObserver(said))[0]
			ctx, key := t.Context(), "row:1"
			rows := wrapper(t, restricted, constant(2))
			for change, f := range map[string]func() error{
				"Set":        func() error { return rows.Set(ctx, 1, 2) },
				"Invalidate": func() error { return rows.Invalidate(ctx, 1) },
			} {
				for _, other := range []*readthrough.Cache{all, plain} {
					require.NoError(t, readthrough.Set(ctx, other, key, 1, time.Hour))
					for range 3 {
						v, err := rows.Get(ctx, 1)
						require.NoError(t, err)
						require.Equal(t, 2, v)
						many, err := rows.GetMany(ctx, []int{1})
						require.NoError(t, err)
						require.Equal(t, 2, many[0].Value)
						_, err = rows.Peek(ctx, 1)
						require.ErrorIs(t, err, readthrough.ErrMiss)
					}
					require.NoError(t, f(), change)
					require.Zero(t, client.Exists(ctx, key).Val(), "%s deletes what another could serve", change)
					require.Empty(t, client.Keys(ctx, "*:lease").Val())
				}
			}
			require.Zero(t, rows.Stats().RedisErrors)
			require.EqualValues(t, 24, rows.Stats().Loads)
			for _, err := range said.said() {
				require.Regexp(t, "failover safety|DEL is sent", err.Error())
			}
			require.EqualValues(t, len(said.said()), restricted.Stats().RefusedCommands)
			require.LessOrEqual(t, len(said.said()), 2)
			require.NotEmpty(t, said.said())
		})
	}
}

// TestGet_WaitsNoLongerThanBudgetForTransaction has a client that does not mind deadlines.
func TestGet_WaitsNoLongerThanBudgetForTransaction(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := as(t, server, "~*", "+@all", "-@scripting")().(*redis.Client)
	hung := make(chan struct{})
	client.AddHook(tripHook(func(cmds []redis.Cmder, send func() error) error {
		if cmds[0].Name() == "watch" {
			<-hung
		}
		return send()
	}))
	cache := fleet(t, 1, func() redis.UniversalClient { return client }, readthrough.WithRedisTimeout(100*time.Millisecond))[0]
	rows := wrapper(t, cache, constant("loaded"))
	got := make(chan string, 1)
	go func() { // ends with its Get
		v, _ := rows.Get(context.Background(), 1)
		got <- v
	}()
	require.Equal(t, "loaded", receive(t, got))
	close(hung)
}

// requireCoherent reads and writes through two processes, none of which may wait for the other's
// lease: it would take an hour.
func requireCoherent(t *testing.T, client *redis.Client, a, b *readthrough.Cache, unstored bool) {
	t.Helper()
	ctx := t.Context()
	errDown := errors.New("database down")
	rows := &database{}
	rows.set("old", nil)
	opts := []readthrough.Option{readthrough.WithLeaseTTL(time.Hour), readthrough.WithLeaseWait(time.Hour), readthrough.WithStale(time.Hour)}
	reader, writer := wrapper(t, a, rows.load, opts...), wrapper(t, b, rows.load, opts...)
	requireGet := func(rt *readthrough.ReadThrough[int, string], want string, loads int) {
		t.Helper()
		before := rows.loads.Load()
		v, err := rt.Get(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, want, v)
		require.EqualValues(t, loads, rows.loads.Load()-before, "loads")
		leases, err := client.Keys(ctx, "*:lease").Result()
		require.NoError(t, err)
		require.Empty(t, leases)
	}
	again := 0 // loads of what was just loaded
	if unstored {
		again = 1
	}

	requireGet(reader, "old", 1)
	requireGet(writer, "old", again)
	rows.set("new", nil)
	require.NoError(t, writer.Invalidate(ctx, 1))
	requireGet(reader, "new", 1)

	// An older load is not stored.
	require.NoError(t, writer.Invalidate(ctx, 1))
	rows.set("newer", func() { require.NoError(t, writer.Invalidate(ctx, 1)) })
	requireGet(reader, "newer", 1)
	_, err := writer.Peek(ctx, 1)
	require.ErrorIs(t, err, readthrough.ErrMiss)

	require.NoError(t, writer.Set(ctx, 1, "set"))
	requireGet(reader, "set", 0)
	require.NoError(t, reader.Expire(ctx, 1))
	rows.set("newest", nil)
	_, info, err := reader.GetInfo(ctx, 1)
	require.NoError(t, err)
	require.NotEqual(t, readthrough.SourceHit, info.Source)

	rows.fail.Store(&errDown)
	for _, rt := range []*readthrough.ReadThrough[int, string]{reader, writer} {
		_, err := rt.Get(ctx, 2)
		require.ErrorIs(t, err, errDown)
	}
}

// database has one value for all rows.
type database struct {
	loads  atomic.Int64
	value  atomic.Pointer[string]
	during atomic.Pointer[func()] // the next load, after it has read
	fail   atomic.Pointer[error]
}

func (d *database) set(value string, during func()) {
	d.value.Store(&value)
	if during != nil {
		d.during.Store(&during)
	}
}

func (d *database) load(context.Context, int) (string, error) {
	d.loads.Add(1)
	if err := d.fail.Load(); err != nil {
		return "", *err
	}
	value := *d.value.Load()
	if during := d.during.Swap(nil); during != nil {
		(*during)()
	}
	return value, nil
}

// TestObserver_OfRefusedCommandEndsNoLoadNorRetry has an observer do harm where Redis begins to refuse a
// command: in the midst of a load, and of a retry.
func TestObserver_OfRefusedCommandEndsNoLoadNorRetry(t *testing.T) {
	t.Parallel()
	for how, harm := range map[string]func(goOn chan struct{}){
		"Goexit": func(chan struct{}) { runtime.Goexit() },
		"hangs":  func(goOn chan struct{}) { <-goOn },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			goOn, told := make(chan struct{}), make(chan struct{}, 10)
			cache := fleet(t, 1, as(t, server, "~*", "+@all", "-@scripting", "-unlink"), unhurried,
				readthrough.WithObserver(harmful(func(e readthrough.Event) {
					if e.Kind == readthrough.EventRefusedCommand {
						told <- struct{}{}
						harm(goOn)
					}
				})))[0]
			defer close(goOn)
			rows := wrapper(t, cache, constant("v"), readthrough.WithLoadLimit(1))
			for id := range 3 {
				got := make(chan string, 1)
				go func() { // ends with the test's receive, or with the process
					v, err := rows.Get(context.Background(), id)
					assert.NoError(t, err)
					got <- v
				}()
				require.Equal(t, "v", receive(t, got))
			}
			receive(t, told)
			require.NoError(t, cache.Delete(t.Context(), "row:1")) // by DEL, in the place of UNLINK
			require.Zero(t, cache.Stats().PendingInvalidations)
		})
	}
}

// harmful is an Observer made of a function.
type harmful func(readthrough.Event)

func (f harmful) Observe(_ context.Context, e readthrough.Event) { f(e) }
