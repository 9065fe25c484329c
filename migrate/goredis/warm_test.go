package goredis_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/migrate/goredis"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load returns a loader of v that counts.
func load[V any](v V, loads *atomic.Int64) readthrough.Loader[int, V] {
	return func(context.Context, int) (V, error) {
		if loads != nil {
			loads.Add(1)
		}
		return v, nil
	}
}

// oldKey is the key of the old cache, such as the services use.
func oldKey(id int) string { return "user:" + strconv.Itoa(id) }

// warmed wraps a loader of "database" that is warmed with strings of the codec.
func warmed(t *testing.T, c *readthrough.Cache, client redis.UniversalClient, loads *atomic.Int64) *readthrough.ReadThrough[int, profile] {
	t.Helper()
	rt, err := readthrough.New(c, "user.v2", goredis.Warm(client, goredis.Codec, oldKey, load(profile{Name: "database"}, loads)), readthrough.Int)
	require.NoError(t, err)
	return rt
}

// set has the library store a profile at the old key of 1.
func set(t *testing.T, client redis.UniversalClient, name string) *cache.Cache {
	t.Helper()
	old := cache.New(&cache.Options{Redis: client})
	require.NoError(t, old.Set(&cache.Item{Ctx: t.Context(), Key: oldKey(1), Value: profile{Name: name}}))
	return old
}

func requireName(t *testing.T, rt *readthrough.ReadThrough[int, profile], name string, source readthrough.Source) {
	t.Helper()
	v, info, err := rt.GetInfo(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, name, v.Name)
	require.Equal(t, source, info.Source, "%v", info.Source)
}

func TestWarm_TakesOldEntryInPlaceOfLoad(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	var loads atomic.Int64
	rt := warmed(t, fake.Cache, fake.Client, &loads)
	old := set(t, fake.Client, "old")

	requireName(t, rt, "old", readthrough.SourceLoaded)
	requireName(t, rt, "old", readthrough.SourceHit)
	require.Zero(t, loads.Load())
	var v profile
	require.NoError(t, old.Get(t.Context(), oldKey(1), &v), "the old processes go on")
	require.Equal(t, "old", v.Name)

	require.NoError(t, errors.Join(old.Delete(t.Context(), oldKey(1)), rt.Invalidate(t.Context(), 1)))
	requireName(t, rt, "database", readthrough.SourceLoaded)
	require.EqualValues(t, 1, loads.Load())
	require.ErrorIs(t, old.Get(t.Context(), oldKey(1), &v), cache.ErrCacheMiss)
}

func TestWarm_LoadsWhatIsNotThereOrNotReadable(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	var loads atomic.Int64
	rt := warmed(t, fake.Cache, fake.Client, &loads)
	for i, entry := range []any{nil, "", "\x81\xa1n\xa3Ada\x09", "no msgpack\x00", map[string]any{"a": "hash"}} {
		require.NoError(t, fake.Client.Del(t.Context(), oldKey(1)).Err())
		switch entry := entry.(type) {
		case string:
			require.NoError(t, fake.Client.Set(t.Context(), oldKey(1), entry, 0).Err())
		case map[string]any:
			require.NoError(t, fake.Client.HSet(t.Context(), oldKey(1), entry).Err())
		}
		require.NoError(t, rt.Invalidate(t.Context(), 1))
		requireName(t, rt, "database", readthrough.SourceLoaded)
		require.EqualValues(t, i+1, loads.Load())
	}
	set(t, fake.Client, "old")
	require.NoError(t, rt.Invalidate(t.Context(), 1))
	requireName(t, rt, "old", readthrough.SourceLoaded)
}

// TestWarm_ReadsWhatOwnCodeStored holds that the codec is the user's choice.
func TestWarm_ReadsWhatOwnCodeStored(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	require.NoError(t, fake.Client.Set(t.Context(), oldKey(1), `{"Name":"json"}`, 0).Err())
	rt, err := readthrough.New(fake.Cache, "user.v2", goredis.Warm(fake.Client, readthrough.JSON, oldKey, load(profile{}, nil)), readthrough.Int)
	require.NoError(t, err)
	requireName(t, rt, "json", readthrough.SourceLoaded)
}

// holdGet holds the first GET of a key back once Redis has answered it.
type holdGet struct {
	key            string
	answered, goOn chan struct{}
	done           atomic.Bool
}

func (h *holdGet) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *holdGet) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "get" && cmd.Args()[1] == h.key && h.done.CompareAndSwap(false, true) {
			close(h.answered)
			<-h.goOn
		}
		return err
	}
}

func (h *holdGet) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestWarm_StoresNothingThatWasDeletedMeanwhile holds the order of the two deletions: a load that has
// seen the old entry before them is refused.
func TestWarm_StoresNothingThatWasDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	old := set(t, fake.Client, "old")
	hold := &holdGet{key: oldKey(1), answered: make(chan struct{}), goOn: make(chan struct{})}
	fake.Client.(*redis.Client).AddHook(hold)
	var loads atomic.Int64
	rt := warmed(t, fake.Cache, fake.Client, &loads)

	got := make(chan profile)
	go func() { // ends with its Get
		v, _ := rt.Get(context.Background(), 1)
		got <- v
	}()
	<-hold.answered
	require.NoError(t, errors.Join(old.Delete(t.Context(), oldKey(1)), rt.Invalidate(t.Context(), 1)))
	close(hold.goOn)
	require.Equal(t, "old", (<-got).Name, "who asked before the write may have what was before it")
	requireName(t, rt, "database", readthrough.SourceLoaded)
	require.EqualValues(t, 1, rt.Stats().RefusedFills)
}

// TestWarm_WaitsForHungRedisOnce holds that loads go on when Redis does not answer.
func TestWarm_WaitsForHungRedisOnce(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	require.NoError(t, err)
	client := redis.NewClient(&redis.Options{Addr: listener.Addr().String(), ReadTimeout: time.Second, MaxRetries: -1})
	t.Cleanup(func() { require.NoError(t, errors.Join(client.Close(), listener.Close())) })
	load := goredis.Warm(client, goredis.Codec, oldKey, load(profile{Name: "database"}, nil))
	began := time.Now()
	for range 20 {
		v, err := load(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "database", v.Name)
	}
	require.Less(t, time.Since(began), time.Second)
	require.Greater(t, time.Since(began), 90*time.Millisecond)
}

// TestWarm_AsksAgainAfterOutage holds that a Redis that is back is asked a second later, and that a
// caller who leaves is no outage.
func TestWarm_AsksAgainAfterOutage(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	set(t, fake.Client, "old")
	load := goredis.Warm(fake.Client, goredis.Codec, oldKey, load(profile{Name: "database"}, nil))
	name := func(ctx context.Context) string {
		v, err := load(ctx, 1)
		require.NoError(t, err)
		return v.Name
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	_ = name(left)
	require.Equal(t, "old", name(t.Context()))

	fake.Down()
	require.Equal(t, "database", name(t.Context()))
	fake.Up()
	require.Equal(t, "database", name(t.Context()), "Redis is left alone for a second")
	require.Eventually(t, func() bool { return name(t.Context()) == "old" }, 5*time.Second, 50*time.Millisecond)
}

// TestOldAndNew_NeedKeysOfTheirOwn shows what happens at one key: each takes the other's entry for
// broken, and a string is misread.
func TestOldAndNew_NeedKeysOfTheirOwn(t *testing.T) {
	t.Parallel()
	fake := readthroughtest.New(t)
	old := cache.New(&cache.Options{Redis: fake.Client})
	rt, err := readthrough.New(fake.Cache, "user", load("Ada", nil), readthrough.Int)
	require.NoError(t, err)
	_, err = rt.Get(t.Context(), 1) // the key is user:1, as the old cache's
	require.NoError(t, err)
	var p profile
	require.Error(t, old.Get(t.Context(), oldKey(1), &p))
	var s string
	require.NoError(t, old.Get(t.Context(), oldKey(1), &s))
	require.NotEqual(t, "Ada", s, "the header is taken for part of the string")

	require.NoError(t, old.Set(&cache.Item{Ctx: t.Context(), Key: oldKey(1), Value: "old"}))
	_, err = rt.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrMiss)
	require.EqualValues(t, 1, rt.Stats().Corrupt)
}
