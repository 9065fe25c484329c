package readthrough_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

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
