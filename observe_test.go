package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func TestObserver_IsToldNoValues(t *testing.T) {
	seen := &recorder{kinds: map[readthrough.EventKind]readthrough.Event{}}
	var log bytes.Buffer
	cache, _ := newCache(t, readthrough.WithObserver(seen), readthrough.WithPrefix("p"),
		readthrough.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	failure := errors.New("database down")
	rows := wrapper(t, cache, func(_ context.Context, id int) (string, error) {
		if id == 2 {
			return "", failure
		}
		return "s3cr3t", nil
	})
	for _, id := range []int{1, 1, 2} {
		_, _ = rows.Get(t.Context(), id)
	}
	require.NoError(t, cache.Close())
	require.Equal(t, readthrough.Event{Wrapper: "row", Key: "p:row:1", Kind: readthrough.EventHit}, seen.kinds[readthrough.EventHit])
	require.Equal(t, failure, seen.kinds[readthrough.EventLoadError].Err)
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "database down")
	require.NotContains(t, log.String(), "s3cr3t")
	require.Equal(t, "unknown", readthrough.EventKind(200).String())

}

func TestInfo_SaysWhereValueCameFrom(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: time.Second}
		fleet := []*rows{b.process(t, db), b.process(t, db)}
		first := asking(t.Context(), fleet[0], 1)
		joined := asking(t.Context(), fleet[0], 1)
		other := asking(t.Context(), fleet[1], 1)

		require.Equal(t, readthrough.Info{Source: readthrough.SourceLoaded, TTL: ttl, Stored: true}, (<-first).info)
		require.Equal(t, readthrough.Info{Source: readthrough.SourceShared, TTL: ttl, Stored: true}, (<-joined).info)
		got := (<-other).info
		require.Equal(t, readthrough.SourceShared, got.Source)
		require.False(t, got.Stored, "by another process")
		require.Equal(t, ttl, got.Age+got.TTL)
		require.Less(t, got.Age, 100*time.Millisecond, "it polls")

		pass(3*time.Second - got.Age)
		require.Equal(t, readthrough.Info{Source: readthrough.SourceHit, Age: 3 * time.Second, TTL: ttl - 3*time.Second}, ask(t.Context(), fleet[1], 1).info)
		pass(ttl - time.Second)
		require.Equal(t, readthrough.Info{Source: readthrough.SourceStale, Age: ttl + 2*time.Second, TTL: -2 * time.Second}, ask(t.Context(), fleet[1], 1).info)
	})
}

func TestInfo_DescribesNegativeEntry(t *testing.T) {
	errNone := errors.New("none")
	inBubble(t, func(t *testing.T, b *bubble) {
		rt := b.process(t, &database{err: errNone}, readthrough.WithNotFound(3*time.Second, errNone))
		got := ask(t.Context(), rt, 1)
		require.Equal(t, errNone, got.err)
		require.Equal(t, readthrough.Info{Source: readthrough.SourceLoaded, TTL: 3 * time.Second, Stored: true}, got.info)
		pass(time.Second)
		got = ask(t.Context(), rt, 1)
		require.Equal(t, errNone, got.err)
		require.Equal(t, readthrough.Info{Source: readthrough.SourceNegative, Age: time.Second, TTL: 2 * time.Second}, got.info)
	})
}

func TestInfo_DescribesValueThatNeverExpires(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		rt := b.process(t, &database{version: 1}, readthrough.WithTTL(readthrough.NoExpiry))
		require.Equal(t, readthrough.Info{Source: readthrough.SourceLoaded, TTL: readthrough.NoExpiry, Stored: true}, ask(t.Context(), rt, 1).info)
		pass(10_000 * time.Hour)
		require.Equal(t, readthrough.Info{Source: readthrough.SourceHit, Age: 10_000 * time.Hour, TTL: readthrough.NoExpiry}, ask(t.Context(), rt, 1).info)
	})
}

func TestInfo_DescribesWhatIsNotStored(t *testing.T) {
	for name, row := range map[string]struct {
		opt  readthrough.Option
		down bool
		ttl  time.Duration
	}{
		"too large":     {opt: readthrough.WithMaxEntryBytes(1), ttl: ttl},
		"Redis is down": {opt: readthrough.WithTTL(ttl), down: true, ttl: ttl},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				if row.down {
					b.redis.SetError("LOADING Redis is loading the dataset in memory")
				}
				rt := b.process(t, &database{version: 70_000}, row.opt)
				got := ask(t.Context(), rt, 1)
				require.NoError(t, got.err)
				require.Equal(t, readthrough.Info{Source: readthrough.SourceLoaded, TTL: row.ttl}, got.info)
			})
		})
	}
}

func TestInfo_IsZeroAfterFailedCall(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		rt := b.process(t, &database{version: 1, err: errDown})
		got := ask(t.Context(), rt, 1)
		require.ErrorIs(t, got.err, errDown)
		require.Equal(t, readthrough.Info{}, got.info)

		strings := readthrough.Must(readthrough.New(b.cache(t), "s", func(context.Context, string) (int, error) { return 1, nil }, readthrough.String))
		_, info, err := strings.GetInfo(t.Context(), "")
		require.ErrorIs(t, err, readthrough.ErrEmptyKey)
		require.Equal(t, readthrough.Info{}, info)
	})
}

func TestSource_HasName(t *testing.T) {
	for source, name := range map[readthrough.Source]string{
		readthrough.SourceNone: "none", readthrough.SourceHit: "hit", readthrough.SourceStale: "stale",
		readthrough.SourceNegative: "negative", readthrough.SourceLoaded: "loaded", readthrough.SourceShared: "shared",
		readthrough.Source(200): "none",
	} {
		require.Equal(t, name, source.String())
	}
}

// Shared means the load of another call wherever it is said: in Stats, in events and as a Source.
func TestShared_IsTheLoadOfAnotherCall(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		db := &database{version: 1, takes: time.Second}
		seen := &recorder{kinds: map[readthrough.EventKind]readthrough.Event{}}
		one, two := b.process(t, db, readthrough.WithObserver(seen)), b.process(t, db)
		first := asking(t.Context(), one, 1)
		joined, other := asking(t.Context(), one, 1), asking(t.Context(), two, 1)
		require.Equal(t, readthrough.SourceLoaded, (<-first).info.Source)
		require.Equal(t, readthrough.SourceShared, (<-joined).info.Source)
		require.Equal(t, readthrough.SourceShared, (<-other).info.Source)
		require.Equal(t, [2]int64{1, 1}, [2]int64{one.Stats().Shared, one.Stats().Collapsed})
		require.Equal(t, [2]int64{1, 0}, [2]int64{two.Stats().Shared, two.Stats().Collapsed})
		require.Equal(t, time.Second, seen.kinds[readthrough.EventShared].Took)
		require.Equal(t, time.Second, seen.kinds[readthrough.EventCollapsed].Took)
	})
}
