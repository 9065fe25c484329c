package readthrough

import (
	"fmt"
	"math"
	"strings"
)

// CacheStatus renders i as a member of the Cache-Status header (RFC 9211), for a
// cache of the given name. A name that is no token of HTTP is quoted.
func (i Info) CacheStatus(name string) string {
	status := cacheName(name)
	switch i.Source {
	case SourceHit, SourceStale, SourceNegative, SourceLocal:
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
