package readthrough

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/readthrough-go/readthrough/internal/wire/entry"
)

// Source says where a value came from.
type Source uint8

// The sources of a value.
const (
	SourceNone     Source = iota // there is no value: the call failed
	SourceHit                    // Redis had it
	SourceStale                  // Redis had it, past its TTL
	SourceNegative               // Redis had it as not found
	SourceLoaded                 // the loader, called for this call
	SourceShared                 // the loader, called for another call, here or in another process
)

// String is the source in a word.
func (s Source) String() string {
	switch s {
	case SourceHit:
		return "hit"
	case SourceStale:
		return "stale"
	case SourceNegative:
		return "negative"
	case SourceLoaded:
		return "loaded"
	case SourceShared:
		return "shared"
	}
	return "none"
}

// Info says where the value of a GetInfo came from, and how old it is.
type Info struct {
	Source Source
	Age    time.Duration // since it was loaded
	TTL    time.Duration // until it is stale; negative if it is, NoExpiry if it never will be
	Stored bool          // this process has just stored it in Redis
}

// CacheStatus renders i as a member of the Cache-Status header (RFC 9211), for a
// cache of the given name. A name that is no token of HTTP is quoted.
func (i Info) CacheStatus(name string) string {
	status := cacheName(name)
	switch i.Source {
	case SourceHit, SourceStale, SourceNegative:
		status += "; hit"
	default:
		status += "; fwd=miss"
	}
	if i.Source != SourceNone && i.TTL != NoExpiry {
		status += fmt.Sprintf("; ttl=%d", int64(math.Floor(i.TTL.Seconds())))
	}
	if i.Stored {
		status += "; stored"
	}
	switch i.Source {
	case SourceShared:
		status += "; collapsed"
	case SourceNegative:
		status += "; detail=negative"
	}
	return status
}

// cacheName is name as an item of a structured field (RFC 8941): a token, or else a
// string, in which what a string cannot hold is replaced.
func cacheName(name string) string {
	isToken := name != ""
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '*'
		inside := r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'+-.^_`|~:/", r)
		isToken = isToken && (letter || inside && i > 0)
	}
	if isToken {
		return name
	}
	var quoted strings.Builder
	quoted.WriteByte('"')
	for _, r := range name {
		switch {
		case r < ' ' || r > '~':
			r = '?'
		case r == '"' || r == '\\':
			quoted.WriteByte('\\')
		}
		quoted.WriteRune(r)
	}
	quoted.WriteByte('"')
	return quoted.String()
}

// GetInfo is Get that also tells where the value came from: for the Age and
// Cache-Status headers of HTTP, say.
func (rt *ReadThrough[K, V]) GetInfo(ctx context.Context, k K) (V, Info, error) {
	var info Info
	v, err := rt.get(ctx, k, &info)
	return v, info, err
}

// fill describes a value that came from source with the header e. A nil Info is
// one that nobody asked for.
func (i *Info) fill(source Source, e *entry.Entry, stored bool) {
	if i == nil {
		return
	}
	now := time.Now()
	*i = Info{Source: source, Age: max(now.Sub(e.LoadedAt), 0), TTL: NoExpiry, Stored: stored}
	if !e.FreshUntil.IsZero() {
		i.TTL = e.FreshUntil.Sub(now)
	}
}
