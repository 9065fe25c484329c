// Package lua runs scripts in Redis: by their hash once it has been sent the text, and by the text
// where it has forgotten that. It also tells the replies of a Redis, or a proxy, that refuses them.
package lua

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Script is a Lua script and the name that Redis knows it by.
type Script struct{ Source, sha1 string }

// New returns the Script of that text.
func New(source string) Script { return Script{source, redis.NewScript(source).Hash()} }

// Sent remembers which scripts one Redis was sent by their text. It is safe for concurrent use.
type Sent struct{ hashes sync.Map }

// Words returns the words of the command that runs sc: with its text if Redis was not sent that
// before, or if byText says that the hash is of no use, and with its hash otherwise.
func (s *Sent) Words(sc Script, byText bool, keys []string, args ...any) []any {
	words := append(make([]any, 0, 3+len(keys)+len(args)), "eval", sc.Source, len(keys))
	if _, before := s.hashes.LoadOrStore(sc.sha1, true); before && !byText {
		words[0], words[1] = "evalsha", sc.sha1
	}
	for _, key := range keys {
		words = append(words, key)
	}
	return append(words, args...)
}

// RefusedFor is how long what Redis has refused is not tried again.
const RefusedFor = 30 * time.Second

// refusals are pieces of the replies with which Redis, and proxies, refuse a command to whom they
// serve otherwise.
var refusals = []string{
	"can't run this command", "unknown command", "unknown redis command",
	"unsupported command", "is not allowed", "not supported", "is disabled", "is not available",
}

// IsRefusal reports whether the text of an error reply says that a command is refused: by one of
// these pieces, in either case, or one of more, in lower case.
func IsRefusal(reply string, more ...string) bool {
	reply = strings.ToLower(reply)
	says := func(piece string) bool { return strings.Contains(reply, piece) }
	return slices.ContainsFunc(refusals, says) || slices.ContainsFunc(more, says)
}
