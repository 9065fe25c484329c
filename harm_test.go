package readthrough_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
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
