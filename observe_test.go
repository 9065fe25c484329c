package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"regexp"
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

func TestCacheStatus_DescribesInfo(t *testing.T) {
	for want, info := range map[string]readthrough.Info{
		`c; hit; ttl=59`:                        {Source: readthrough.SourceHit, TTL: 59 * time.Second},
		`c; hit`:                                {Source: readthrough.SourceHit, TTL: readthrough.NoExpiry},
		`c; hit; ttl=-2`:                        {Source: readthrough.SourceStale, TTL: -2 * time.Second},
		`c; hit; ttl=7; detail=negative`:        {Source: readthrough.SourceNegative, TTL: 7 * time.Second},
		`c; fwd=miss; ttl=300; stored`:          {Source: readthrough.SourceLoaded, TTL: 5 * time.Minute, Stored: true},
		`c; fwd=miss; ttl=300`:                  {Source: readthrough.SourceLoaded, TTL: 5 * time.Minute},
		`c; fwd=miss; stored`:                   {Source: readthrough.SourceLoaded, TTL: readthrough.NoExpiry, Stored: true},
		`c; fwd=miss; ttl=1; collapsed`:         {Source: readthrough.SourceShared, TTL: time.Second},
		`c; fwd=miss; ttl=1; stored; collapsed`: {Source: readthrough.SourceShared, TTL: time.Second, Stored: true},
		`c; fwd=miss`:                           {},
	} {
		require.Equal(t, want, info.CacheStatus("c"))
		require.Regexp(t, cacheMember, want, "the table itself")
	}
}

// The grammar of a cacheMember of Cache-Status, from RFC 9211 section 2 and RFC 8941 section 3: a
// token or a string, with parameters whose values here are integers, tokens, or true by being left
// out.
var (
	token       = `[A-Za-z*][-!#$%&'*+.^_|~0-9A-Za-z` + "`" + `:/]*`
	quoted      = `"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"`
	cacheMember = regexp.MustCompile(`^(` + token + `|` + quoted + `)(; *[a-z*][a-z0-9_.*-]*(=(-?[0-9]{1,15}|` + token + `))?)*$`)
)

func TestCacheStatus_WritesNameAsTokenOrQuoted(t *testing.T) {
	for name, want := range map[string]string{
		"user":               `user`,
		"User-9_x.y:z/1":     `User-9_x.y:z/1`,
		"*!#$%&'*+.^|~`":     "*!#$%&'*+.^|~`",
		"9lives":             `"9lives"`,
		"-user":              `"-user"`,
		":a":                 `":a"`,
		"":                   `""`,
		"two words":          `"two words"`,
		`say "hi"`:           `"say \"hi\""`,
		`back\slash`:         `"back\\slash"`,
		"a,b":                `"a,b"`,
		"a;hit":              `"a;hit"`,
		"a=b":                `"a=b"`,
		"line\r\nSet-Cookie": `"line??Set-Cookie"`,
		"tab\tdel\x7f":       `"tab?del?"`,
		"grün":               `"gr?n"`,
		"bad\xff":            `"bad?"`,
	} {
		got := readthrough.Info{}.CacheStatus(name)
		require.Equal(t, want+"; fwd=miss", got)
		require.Regexp(t, cacheMember, got)
	}
}

func FuzzCacheStatusIsWellFormed(f *testing.F) {
	f.Add("user", uint8(1), int64(time.Minute), true)
	f.Add("a \"b\"\r\n", uint8(5), int64(-1), false)
	f.Fuzz(func(t *testing.T, name string, source uint8, ttl int64, stored bool) {
		info := readthrough.Info{Source: readthrough.Source(source), TTL: time.Duration(ttl), Stored: stored}
		require.Regexp(t, cacheMember, info.CacheStatus(name))
	})
}
