package readthrough_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// unstored are the reasons for which a value is not stored: it begins with "no".
func unstored() map[string]readthrough.Option {
	return map[string]readthrough.Option{
		"WithTTLFor": readthrough.WithTTLFor(func(v string) time.Duration {
			if strings.HasPrefix(v, "no") {
				return 0
			}
			return ttl
		}),
		"WithMaxEntryBytes": readthrough.WithMaxEntryBytes(100),
	}
}

func TestUnstored_ReplacesNoNewerEntryButDropsOlder(t *testing.T) {
	for name, option := range unstored() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				row := "old"
				load := func(context.Context, int) (string, error) { return row, nil }
				first, second := wrapper(t, b.cache(t), load, option), wrapper(t, b.cache(t), load, option)
				get := func(want string, source readthrough.Source) {
					t.Helper()
					v, info, err := second.GetInfo(t.Context(), 1)
					require.NoError(t, err)
					require.Equal(t, want, v)
					require.Equal(t, source, info.Source, info.Source.String())
				}
				unkept := "no" + strings.Repeat("-", 200)
				for how, outdate := range map[string]func(){
					"it becomes stale": func() { pass(ttl) },
					"Expire":           func() { require.NoError(t, first.Expire(t.Context(), 1)) },
				} {
					row = "old"
					_, err := first.Refresh(t.Context(), 1)
					require.NoError(t, err)
					row = unkept
					outdate()
					get("old", readthrough.SourceStale)
					pass(0) // the refresh
					get(unkept, readthrough.SourceLoaded)
					require.False(t, b.redis.Exists("row:1"), how)
				}
				row = "old"
				_, err := first.Refresh(t.Context(), 1)
				require.NoError(t, err)
				row = unkept
				_, err = first.Refresh(t.Context(), 1)
				require.NoError(t, err)
				get(unkept, readthrough.SourceLoaded)
			})
		})
	}
}

func TestUnstored_LeavesWhatWasSetDuringTheLoad(t *testing.T) {
	cache, _ := newCache(t)
	var rt *readthrough.ReadThrough[int, string]
	rt = wrapper(t, cache, func(ctx context.Context, _ int) (string, error) {
		return strings.Repeat("-", 200), rt.Set(ctx, 1, "newer")
	}, readthrough.WithMaxEntryBytes(100))
	_, err := rt.Get(t.Context(), 1)
	require.NoError(t, err)
	v, err := rt.Peek(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "newer", v)
}

func TestSet_OfWhatCannotBeStoredInvalidates(t *testing.T) {
	for name, option := range unstored() {
		t.Run(name, func(t *testing.T) {
			cache, server := newCache(t, readthrough.WithStale(time.Hour), readthrough.WithMaxEntryBytes(100))
			rt := wrapper(t, cache, constant("loaded"), option)
			unkept := "no" + strings.Repeat("-", 200)
			for how, set := range map[string]func() error{
				"Set": func() error { return rt.Set(t.Context(), 1, unkept) },
				"SetMany": func() error {
					return rt.SetMany(t.Context(), func(yield func(int, string) bool) { _ = yield(1, "fits") && yield(1, unkept) })
				},
				"raw Set": func() error { return readthrough.Set(t.Context(), cache, "row:1", unkept, time.Hour) },
			} {
				require.NoError(t, rt.Set(t.Context(), 1, "old"))
				err := set()
				if name == "WithMaxEntryBytes" || how == "raw Set" {
					require.ErrorContains(t, err, "WithMaxEntryBytes", how)
				} else {
					require.NoError(t, err, how)
				}
				require.False(t, server.Exists("row:1"), how)
			}
		})
	}
}

func TestSet_OfWhatCannotBeEncodedInvalidates(t *testing.T) {
	cache, server := newCache(t)
	rt := wrapper(t, cache, constant(any(1)))
	require.NoError(t, rt.Set(t.Context(), 1, "old"))
	require.ErrorContains(t, rt.Set(t.Context(), 1, make(chan int)), "unsupported chan int")
	require.False(t, server.Exists("row:1"))

	require.NoError(t, readthrough.Set(t.Context(), cache, "raw", 1, time.Hour))
	require.ErrorContains(t, readthrough.Set(t.Context(), cache, "raw", make(chan int), time.Hour), "unsupported chan int")
	require.False(t, server.Exists("raw"))

	server.SetError("LOADING")
	err := rt.Set(t.Context(), 1, make(chan int))
	var write *readthrough.WriteError
	require.ErrorAs(t, err, &write)
	require.Equal(t, []string{"row:1"}, write.Keys)
	require.ErrorContains(t, err, "unsupported chan int")
	server.SetError("")
	require.Eventually(t, func() bool { return cache.Stats().PendingInvalidations == 0 }, 10*time.Second, 5*time.Millisecond)
}

// An error of the whole batch says nothing of any key, whatever it wraps: only the very error of
// WithNotFound says that none of them is there.
// alike is a failure that is a not-found by its Is method.
type alike struct{}

func (alike) Error() string        { return "some of several" }
func (alike) Is(target error) bool { return target == sql.ErrNoRows }

func TestBatch_ErrorIsNoKeysAnswer(t *testing.T) {
	for name, failure := range map[string]error{
		"joined":  errors.Join(errors.New("deadlock"), sql.ErrNoRows),
		"wrapped": fmt.Errorf("settings: %w", sql.ErrNoRows),
		"alike":   alike{},
	} {
		t.Run(name, func(t *testing.T) {
			cache, server := newCache(t)
			rt := wrapper(t, cache, constant("one"), readthrough.WithNotFound(time.Hour, sql.ErrNoRows),
				readthrough.WithGather(time.Millisecond, 10),
				readthrough.WithBatchLoader(func(context.Context, []int) (map[int]string, error) { return nil, failure }))
			for _, ks := range [][]int{{1, 2}, {3}} {
				results, err := rt.GetMany(t.Context(), ks)
				require.NoError(t, err)
				for _, r := range results {
					require.Equal(t, failure, r.Err)
				}
			}
			_, err := rt.Get(t.Context(), 4)
			require.Equal(t, failure, err)
			require.Empty(t, server.Keys())
			require.EqualValues(t, 4, rt.Stats().LoadErrors)
		})
	}
	cache, server := newCache(t)
	rt := wrapper(t, cache, constant("one"), readthrough.WithNotFound(time.Hour, sql.ErrNoRows),
		readthrough.WithBatchLoader(func(context.Context, []int) (map[int]string, error) { return map[int]string{1: "one"}, nil }))
	results, err := rt.GetMany(t.Context(), []int{1, 2})
	require.NoError(t, err)
	require.Equal(t, []readthrough.Result[string]{{Value: "one"}, {Err: sql.ErrNoRows}}, results)
	require.Equal(t, []string{"row:1", "row:2"}, server.Keys(), "a key that was left out is an answer")
}
