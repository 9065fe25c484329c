package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// shardingProxy returns the address of a proxy before some servers, as twemproxy is: it sends each
// command to the server that the hash of its first key says. With tags, only what is in braces is
// hashed.
func shardingProxy(t *testing.T, tags bool, servers ...*redistest.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var conns sync.WaitGroup
	conns.Go(func() { // ends when the listener is closed
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { // ends when the client or a server hangs up
				defer conn.Close()
				_ = proxy(conn, tags, servers)
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		conns.Wait()
	})
	return l.Addr().String()
}

// proxy answers the commands of one connection.
func proxy(conn net.Conn, tags bool, servers []*redistest.Server) error {
	backends := make([]*bufio.ReadWriter, len(servers))
	for i, s := range servers {
		backend, err := net.Dial("tcp", s.Addr())
		if err != nil {
			return err
		}
		defer backend.Close()
		backends[i] = bufio.NewReadWriter(bufio.NewReader(backend), bufio.NewWriter(backend))
	}
	for client := bufio.NewReader(conn); ; {
		raw, words, err := readReply(client) // commands are arrays, as replies can be
		if err != nil {
			return err
		}
		var key string
		switch strings.ToLower(words[0]) {
		case "eval", "evalsha":
			key = words[3]
		case "get", "set", "unlink", "del", "getrange":
			key = words[1]
		default:
			if _, err := io.WriteString(conn, "-ERR unsupported command\r\n"); err != nil {
				return err
			}
			continue
		}
		if _, after, ok := strings.Cut(key, "{"); tags && ok {
			key, _, _ = strings.Cut(after, "}")
		}
		backend := backends[int(crc32.ChecksumIEEE([]byte(key)))%len(backends)]
		if _, err := backend.WriteString(raw); err != nil {
			return err
		}
		if err := backend.Flush(); err != nil {
			return err
		}
		reply, _, err := readReply(backend.Reader)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return err
		}
	}
}

// readReply reads one reply of RESP2, or a command, and returns its bytes and its strings.
func readReply(r *bufio.Reader) (raw string, words []string, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", nil, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch {
	case line[0] == '$' && n >= 0:
		body := make([]byte, n+2)
		_, err = io.ReadFull(r, body)
		return line + string(body), []string{string(body[:n])}, err
	case line[0] == '*':
		raw = line
		for range n {
			element, more, err := readReply(r)
			if err != nil {
				return "", nil, err
			}
			raw, words = raw+element, append(words, more...)
		}
		return raw, words, nil
	}
	return line, []string{line[1:]}, nil
}

func TestCache_SaysThatProxySplitsKeyAndLease(t *testing.T) {
	t.Parallel()
	type rows = readthrough.ReadThrough[int, int]
	for name, read := range map[string]func(ctx context.Context, c *readthrough.Cache, r *rows, ids []int) error{
		"Get": func(ctx context.Context, _ *readthrough.Cache, r *rows, ids []int) error {
			return each(ids, func(id int) error { _, err := r.Get(ctx, id); return err })
		},
		"Peek": func(ctx context.Context, _ *readthrough.Cache, r *rows, ids []int) error {
			return each(ids, func(id int) error { _, err := r.Peek(ctx, id); return missIsNone(err) })
		},
		"GetMany": func(ctx context.Context, _ *readthrough.Cache, r *rows, ids []int) error {
			_, err := r.GetMany(ctx, ids)
			return err
		},
		"raw": func(ctx context.Context, c *readthrough.Cache, r *rows, ids []int) error {
			return each(ids, func(id int) error {
				_, err := readthrough.Get[int](ctx, c, readthrough.Must(r.RedisKey(id)))
				return missIsNone(err)
			})
		},
	} {
		for _, safe := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, %t", name, safe), func(t *testing.T) {
				t.Parallel()
				servers := []*redistest.Server{redistest.Start(t), redistest.Start(t)}
				for _, tags := range []bool{false, true} {
					client := redis.NewClient(&redis.Options{Addr: shardingProxy(t, tags, servers...), MaxRetries: -1, ContextTimeoutEnabled: true})
					defer client.Close()
					found := make(findings, 10)
					opts := []readthrough.CacheOption{readthrough.WithObserver(found)}
					if safe {
						opts = append(opts, readthrough.WithFailoverSafety())
					}
					cache := fleet(t, 1, func() redis.UniversalClient { return client }, opts...)[0]
					var version atomic.Int64
					r := wrapper(t, cache, func(context.Context, int) (int, error) { return int(version.Load()), nil })
					ids := upTo(100)
					for range 2 { // the second time from what the first has stored, where that is found
						_, err := r.GetMany(t.Context(), ids)
						require.NoError(t, err)
					}
					require.NoError(t, read(t.Context(), cache, r, ids))
					version.Add(1)
					require.NoError(t, r.Invalidate(t.Context(), ids...))
					for _, id := range ids {
						v, err := r.Get(t.Context(), id)
						require.NoError(t, err)
						require.Equal(t, 1, v, "nothing stale is served, be it split or not")
					}
					if !tags {
						found.requireOne(t, cache, `hash_tag: "{}"`)
						continue
					}
					for _, id := range ids { // with the setting that the finding names
						_, err := r.Peek(t.Context(), id)
						require.NoError(t, err)
					}
					require.NoError(t, cache.Close())
					require.Empty(t, found)
				}
			})
		}
	}
}

// each calls f for the ids until it fails.
func each(ids []int, f func(id int) error) error {
	for _, id := range ids {
		if err := f(id); err != nil {
			return err
		}
	}
	return nil
}

// missIsNone returns err unless it says that nothing was found.
func missIsNone(err error) error {
	if errors.Is(err, readthrough.ErrMiss) {
		return nil
	}
	return err
}
