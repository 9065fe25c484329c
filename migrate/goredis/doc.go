// Package goredis is for services that move from github.com/go-redis/cache/v9, or from code of their
// own that keeps bare values in Redis, to readthrough: it reads what these have stored, so that the
// cache is not cold on the first day. docs/migrating.md of the repository has the steps.
//
// An entry of readthrough has a header, which says until when it is fresh, and is protected by a lease
// beside it; an entry of go-redis/cache is the bare value. Neither can read the other's, so the new
// entries need keys of their own, and both can be in one Redis while old and new processes run at
// once. A readthrough.Codec is given only the value within an entry, never what is at another key.
// Hence two parts: [Codec] knows the bytes of go-redis/cache, and [Warm] is a loader that looks at the
// old key before it asks the database.
package goredis
