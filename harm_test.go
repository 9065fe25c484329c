package readthrough_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

type panicky struct{}

func (panicky) Observe(context.Context, readthrough.Event) { panic("observer") }

func TestGet_RaisesPanicsOfUserCodeInTheCaller(t *testing.T) {
	cache, server := newCache(t, readthrough.WithObserver(panicky{}))
	rows := wrapper(t, cache, constant((*user)(nil)), readthrough.WithTTLFor(func(u *user) time.Duration { return time.Duration(len(u.Name)) }))
	func() {
		defer func() {
			p, ok := recover().(*readthrough.PanicError)
			require.True(t, ok)
			require.ErrorContains(t, p, "nil pointer")
		}()
		_, _ = rows.Get(t.Context(), 1)
	}()
	require.Empty(t, server.Keys())
}

func TestGet_DoesNotCacheAPanicWithANotFoundError(t *testing.T) {
	errNone := errors.New("none")
	cache, server := newCache(t)
	rows := wrapper(t, cache, func(context.Context, int) (int, error) { panic(errNone) }, readthrough.WithNotFound(time.Minute, errNone))
	require.Panics(t, func() { _, _ = rows.Get(t.Context(), 1) })
	require.Empty(t, server.Keys())
}

func TestDelete_RefusesFillsOfOlderLoads(t *testing.T) {
	cache, server := newCache(t)
	row := newRow("old")
	rows := wrapper(t, cache, row.load)
	for name, read := range map[string]func(context.Context, int) (string, error){"get": rows.Get, "refresh": rows.Refresh} {
		for how, forget := range map[string]func() error{
			"delete":     func() error { return cache.Delete(t.Context(), "row:1") },
			"invalidate": func() error { return rows.Invalidate(t.Context(), 1) },
		} {
			row.Store("old")
			early := make(chan string)
			go func() { v, _ := read(context.Background(), 1); early <- v }()
			<-row.reading
			row.Store("new")
			require.NoError(t, forget())
			row.goOn <- struct{}{}
			require.Equal(t, "old", <-early)
			require.False(t, server.Exists("row:1"), "%s, %s", name, how)
		}
	}
}

func TestNew_RefusesNamesWhoseKeysCouldMeet(t *testing.T) {
	cache, _ := newCache(t)
	load := func(context.Context, string) (int, error) { return 0, nil }
	readthrough.Must(readthrough.New(cache, "a", load, readthrough.String))
	_, err := readthrough.New(cache, "a:b", load, readthrough.String)
	require.ErrorContains(t, err, "a:b")
	readthrough.Must(readthrough.New(cache, "ab", load, readthrough.String))
}

func TestGet_CountsCallersWhoLeaveAsNoFailureOfTheLoader(t *testing.T) {
	cache, server := newCache(t)
	loading := make(chan struct{})
	rows := wrapper(t, cache, func(ctx context.Context, _ int) (int, error) {
		close(loading)
		<-ctx.Done()
		return 0, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-loading; cancel() }()
	_, err := rows.Get(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return len(server.Keys()) == 0 }, 5*time.Second, time.Millisecond)
	require.Zero(t, rows.Stats().LoadErrors)
}

func TestGet_GivesEachCallerOfAnUnstorableValueItsOwn(t *testing.T) {
	cache, _ := newCache(t)
	goOn := make(chan struct{})
	rows := wrapper(t, cache, func(context.Context, int) ([]string, error) {
		<-goOn
		return []string{strings.Repeat("x", 100)}, nil
	}, readthrough.WithMaxEntryBytes(10))
	got := make(chan []string, 2)
	for range 2 {
		go func() { v, _ := rows.Get(context.Background(), 1); got <- v }()
	}
	require.Eventually(t, func() bool { return rows.Stats().Misses == 2 }, 5*time.Second, time.Millisecond)
	close(goOn)
	one, two := <-got, <-got
	require.Equal(t, one, two)
	require.NotSame(t, &one[0], &two[0])
}

// wide takes 2 KiB in memory, and a byte as nil.
type wide struct{ Numbers [256]int64 }

// A read takes memory in proportion to what is stored, however its bytes came there.
func TestGet_TakesMemoryInProportion(t *testing.T) {
	const elements = 256 << 10 // of which each would take 2 KiB
	cache, server := newCache(t)
	header := entry.MagicV1 + "\x00" + "\x01\x8b\xcf\xe5\x68\x00" + "\xff\xff\xff\xff\xff\xff" + "\x00\x00" // which has no checksum
	nils := append([]byte{0xdd, 0, elements >> 16, 0, 0}, strings.Repeat("\xc0", elements)...)
	rt := wrapper(t, cache, constant([]wide(nil)))
	for name, read := range map[string]func() error{
		"Get":     func() error { _, err := rt.Get(t.Context(), 1); return err },
		"GetMany": func() error { _, err := rt.GetMany(t.Context(), []int{1, 2}); return err },
		"raw Get": func() error {
			_, err := readthrough.Get[[]wide](t.Context(), cache, "row:1")
			return ignore(err, readthrough.ErrMiss)
		},
		"in a map": func() error {
			_, err := readthrough.Get[map[string][]wide](t.Context(), cache, "row:3")
			return ignore(err, readthrough.ErrMiss)
		},
	} {
		require.NoError(t, server.Set("row:1", header+string(nils)))
		require.NoError(t, server.Set("row:3", header+"\x81\xa1k"+string(nils)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		require.NoError(t, read())
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), name)
	}
	require.EqualValues(t, 4, cache.Stats().Corrupt, "each is a miss")
}

// What no process would decode is not stored, and does not get in the way.
func TestGet_StoresNothingThatTakesMemoryOutOfProportion(t *testing.T) {
	type hollow struct {
		wide `msgpack:"-"`
		Name string `msgpack:",omitempty"`
	}
	for n, unstorable := range map[int]int64{1000: 0, 20_000: 1} {
		cache, server := newCache(t)
		rt := wrapper(t, cache, constant(make([]hollow, n)))
		v, err := rt.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, v, n)
		require.Equal(t, unstorable, rt.Stats().Unstorable)
		require.Len(t, server.Keys(), 1-int(unstorable))
	}
}

func TestGet_DecodesNothingAboveMaxEntryBytes(t *testing.T) {
	cache, server := newCache(t, readthrough.WithMaxEntryBytes(100))
	rt := wrapper(t, cache, constant("v"))
	require.NoError(t, server.Set("row:1", entry.MagicV1+"\x00aaaaaa"+"\xff\xff\xff\xff\xff\xff\x00\x00\xd9\x64"+strings.Repeat("x", 100)))
	_, err := rt.Peek(t.Context(), 1)
	require.ErrorIs(t, err, readthrough.ErrMiss)
	_, err = readthrough.Get[string](t.Context(), cache, "row:1")
	require.ErrorIs(t, err, readthrough.ErrMiss)
	v, err := rt.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "v", v)
	require.EqualValues(t, 3, cache.Stats().Corrupt)
	v, err = rt.Peek(t.Context(), 1)
	require.NoError(t, err, "it was overwritten")
	require.Equal(t, "v", v)
}
