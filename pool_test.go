package readthrough_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

func openURL(tb testing.TB, url string) redis.UniversalClient {
	tb.Helper()
	client, err := readthrough.Open(url)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// singleOptions are those of a client of one server, or of a sentinel's master.
func singleOptions(tb testing.TB, url string) *redis.Options {
	tb.Helper()
	client, ok := openURL(tb, url).(*redis.Client)
	require.True(tb, ok, "%s is not one server", url)
	return client.Options()
}

func clusterOptions(tb testing.TB, url string) *redis.ClusterOptions {
	tb.Helper()
	client, ok := openURL(tb, url).(*redis.ClusterClient)
	require.True(tb, ok, "%s is not a cluster", url)
	return client.Options()
}

func TestOpenReadsServerFromURL(t *testing.T) {
	type want struct {
		network, addr, user, password string
		db                            int
		tls                           string // the server name; empty: no TLS
	}
	for url, w := range map[string]want{
		"redis://h:7000":               {network: "tcp", addr: "h:7000"},
		"REDIS://h:7000":               {network: "tcp", addr: "h:7000"},
		"redis://h":                    {network: "tcp", addr: "h:6379"},
		"redis://h/":                   {network: "tcp", addr: "h:6379"},
		"redis://h:/":                  {network: "tcp", addr: "h:6379"},
		"redis://my_host-1.internal/3": {network: "tcp", addr: "my_host-1.internal:6379", db: 3},
		"redis://h?db=4":               {network: "tcp", addr: "h:6379", db: 4},
		"redis://h/3?db=0":             {network: "tcp", addr: "h:6379"},
		"redis://u:p@h":                {network: "tcp", addr: "h:6379", user: "u", password: "p"},
		"redis://:p@h":                 {network: "tcp", addr: "h:6379", password: "p"},
		"redis://u@h":                  {network: "tcp", addr: "h:6379", user: "u"},
		"redis://u:@h":                 {network: "tcp", addr: "h:6379", user: "u"},
		"redis://:a@b@h":               {network: "tcp", addr: "h:6379", password: "a@b"},
		"redis://:a:b@h":               {network: "tcp", addr: "h:6379", password: "a:b"},
		"redis://:a,b@h":               {network: "tcp", addr: "h:6379", password: "a,b"},
		"redis://%C3%BC%3A:%2F%3F%23%40%25%20%26+@h":          {network: "tcp", addr: "h:6379", user: "ü:", password: "/?#@% &+"},
		"redis://10.0.0.1:7000":                               {network: "tcp", addr: "10.0.0.1:7000"},
		"redis://[::1]:7000":                                  {network: "tcp", addr: "[::1]:7000"},
		"redis://:p@[2001:db8::1]/1":                          {network: "tcp", addr: "[2001:db8::1]:6379", password: "p", db: 1},
		"redis://[fe80::1%25eth0]:7000":                       {network: "tcp", addr: "[fe80::1%eth0]:7000"},
		"rediss://h:7000/1":                                   {network: "tcp", addr: "h:7000", db: 1, tls: "h"},
		"unix:///run/redis.sock":                              {network: "unix", addr: "/run/redis.sock"},
		"unix://u:p@/run/a%20b@c.sock?db=5":                   {network: "unix", addr: "/run/a b@c.sock", user: "u", password: "p", db: 5},
		"redis-sentinel://h1/2?master=m":                      {network: "tcp", addr: "FailoverClient", db: 2},
		"redis-sentinel://h1:1,h2:2,[::1]?master_name=m&db=3": {network: "tcp", addr: "FailoverClient", db: 3},
		"rediss-sentinel://h1,h2?master=m":                    {network: "tcp", addr: "FailoverClient", tls: "h1"},
		// One password is for Redis and the sentinels, two are as in go-redis.
		"redis-sentinel://u:p@h1?master=m":                       {network: "tcp", addr: "FailoverClient", user: "u", password: "p"},
		"redis-sentinel://u:p@h1?master=m&password=q":            {network: "tcp", addr: "FailoverClient", password: "q"},
		"redis-sentinel://u:p@h1?master=m&username=v&password=q": {network: "tcp", addr: "FailoverClient", user: "v", password: "q"},
		"redis-sentinel://u:p@h1?master=m&password=":             {network: "tcp", addr: "FailoverClient"},
	} {
		t.Run(url, func(t *testing.T) {
			o := singleOptions(t, url)
			got := want{o.Network, o.Addr, o.Username, o.Password, o.DB, ""}
			if o.TLSConfig != nil {
				got.tls = o.TLSConfig.ServerName
			}
			assert.Equal(t, w, got)
		})
	}
}

func TestOpenReadsClusterFromURL(t *testing.T) {
	type want struct {
		addrs          []string
		user, password string
		tls            bool
	}
	for url, w := range map[string]want{
		"redis-cluster://h1:7000":                           {addrs: []string{"h1:7000"}},
		"redis-cluster://h1:7000,h2:7001":                   {addrs: []string{"h1:7000", "h2:7001"}},
		"redis-cluster://u:p@h1,h2:7001,[::1],[::2]:7002/0": {addrs: []string{"h1:6379", "h2:7001", "[::1]:6379", "[::2]:7002"}, user: "u", password: "p"},
		"redis-cluster://:a,b@h1,h2/":                       {addrs: []string{"h1:6379", "h2:6379"}, password: "a,b"},
		"redis-cluster://h1?addr=h2:7001&addr=h3":           {addrs: []string{"h1:6379", "h2:7001", "h3:6379"}},
		"rediss-cluster://h1,h2":                            {addrs: []string{"h1:6379", "h2:6379"}, tls: true},
	} {
		t.Run(url, func(t *testing.T) {
			o := clusterOptions(t, url)
			assert.Equal(t, w, want{o.Addrs, o.Username, o.Password, o.TLSConfig != nil})
		})
	}
}

// poolLimits are the limits that go-redis's two types of options share.
type poolLimits struct {
	dial, read, write, pool, minBackoff, maxBackoff, idle time.Duration
	dials, retries, redirects, size, pipelines, minIdle   int
	ctx, silent                                           bool
}

func limitsOf(tb testing.TB, url string) poolLimits {
	tb.Helper()
	silent := func(disableIdentity bool, c *maintnotifications.Config) bool {
		return disableIdentity && c != nil && c.Mode == maintnotifications.ModeDisabled
	}
	switch client := openURL(tb, url).(type) {
	case *redis.ClusterClient:
		o := client.Options()
		return poolLimits{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.MinRetryBackoff, o.MaxRetryBackoff,
			o.ConnMaxIdleTime, o.DialerRetries, o.MaxRetries, o.MaxRedirects, o.PoolSize, o.PipelinePoolSize, o.MinIdleConns,
			o.ContextTimeoutEnabled, silent(o.DisableIdentity, o.MaintNotificationsConfig)}
	case *redis.Client:
		o := client.Options()
		return poolLimits{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.MinRetryBackoff, o.MaxRetryBackoff,
			o.ConnMaxIdleTime, o.DialerRetries, o.MaxRetries, 0, o.PoolSize, o.PipelinePoolSize, o.MinIdleConns,
			o.ContextTimeoutEnabled, silent(o.DisableIdentity, o.MaintNotificationsConfig)}
	default:
		tb.Fatalf("%s: %T", url, client)
		return poolLimits{}
	}
}

var documentedLimits = poolLimits{
	dial: time.Second, read: 500 * time.Millisecond, write: 500 * time.Millisecond, pool: 500 * time.Millisecond,
	minBackoff: 5 * time.Millisecond, maxBackoff: 50 * time.Millisecond, idle: 5 * time.Minute,
	dials: 1, retries: 1, size: 20, pipelines: 10, ctx: true, silent: true,
}

func TestOpenSetsDocumentedLimits(t *testing.T) {
	cluster := documentedLimits
	cluster.retries, cluster.redirects = -1, 3 // -1: the redirects are the retries
	for url, want := range map[string]poolLimits{
		"redis://h":                   documentedLimits,
		"rediss://h":                  documentedLimits,
		"unix:///s":                   documentedLimits,
		"redis-sentinel://h?master=m": documentedLimits,
		"redis-cluster://h1,h2":       cluster,
		"redis://h?read_timeout=&pool_size=&max_retries=0":                      documentedLimits, // go-redis's ways to say: the default
		"redis-sentinel://h?master=m&context_timeout_enabled=&dialer_retries=0": documentedLimits,
		"redis-cluster://h?pool_size=0&max_redirects=0":                         cluster,
	} {
		assert.Equal(t, want, limitsOf(t, url), url)
	}
}

func TestOpenLetsURLOverrideLimits(t *testing.T) {
	const all = "dial_timeout=3s&read_timeout=2s&write_timeout=4&pool_timeout=5s&min_retry_backoff=6ms&max_retry_backoff=7ms" +
		"&conn_max_idle_time=1h&max_retries=9&pool_size=11&pipeline_pool_size=12"
	want := poolLimits{
		dial: 3 * time.Second, read: 2 * time.Second, write: 4 * time.Second, pool: 5 * time.Second,
		minBackoff: 6 * time.Millisecond, maxBackoff: 7 * time.Millisecond, idle: time.Hour,
		dials: 1, retries: 9, size: 11, pipelines: 12, ctx: true, silent: true,
	}
	cluster, sentinel := want, want
	cluster.redirects, cluster.dials = 8, 2
	sentinel.dials, sentinel.ctx, sentinel.silent = 2, false, false
	assert.Equal(t, want, limitsOf(t, "redis://h?"+all))
	assert.Equal(t, want, limitsOf(t, "unix:///s?"+all))
	assert.Equal(t, cluster, limitsOf(t, "redis-cluster://h1,h2?max_redirects=8&dialer_retries=2&"+all))
	assert.Equal(t, sentinel, limitsOf(t,
		"redis-sentinel://h1,h2?master=m&dialer_retries=2&context_timeout_enabled=false&disableIdentity=false&"+all))
}

func TestOpenOverridesOneLimitAndKeepsTheOthers(t *testing.T) {
	for query, change := range map[string]func(*poolLimits){
		"read_timeout=2s":                       func(l *poolLimits) { l.read = 2 * time.Second },
		"read_timeout=9s&read_timeout=2s":       func(l *poolLimits) { l.read = 2 * time.Second },
		"read_timeout=0":                        func(l *poolLimits) { l.read = 0 },
		"max_retries=-1":                        func(l *poolLimits) { l.retries = 0 },
		"idle_timeout=7s":                       func(l *poolLimits) { l.idle = 7 * time.Second },
		"idle_timeout=7s&conn_max_idle_time=8s": func(l *poolLimits) { l.idle = 8 * time.Second },
		"pipeline_pool_size=-1":                 func(l *poolLimits) { l.pipelines = -1 },
	} {
		want := documentedLimits
		change(&want)
		assert.Equal(t, want, limitsOf(t, "redis://h?"+query), query)
	}
}

func TestOpenKnowsOptionsWithoutLimits(t *testing.T) {
	o := singleOptions(t, "rediss://h?skip_verify=true&client_name=a%20b@c&protocol=2&max_conn_age=1h&pool_fifo=1")
	assert.True(t, o.TLSConfig.InsecureSkipVerify)
	assert.Equal(t, "a b@c", o.ClientName)
	assert.Equal(t, 2, o.Protocol)
	assert.Equal(t, time.Hour, o.ConnMaxLifetime)
	assert.True(t, o.PoolFIFO)
	assert.Equal(t, 7, clusterOptions(t, "redis-cluster://h?failing_timeout_seconds=7&read_only=false").FailingTimeoutSeconds)
}

const secret = "s3cr3t"

// assertKeepsSecret looks for more than the secret: half a password is half found.
func assertKeepsSecret(tb testing.TB, err error) {
	tb.Helper()
	for _, piece := range []string{secret, "s3cr", "cr3t", "%73"} {
		assert.NotContains(tb, err.Error(), piece)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		_, leaks := e.(*url.Error) // it has the whole URL
		assert.False(tb, leaks, "a url.Error is inside")
	}
}

func TestOpenNamesWhatIsWrongAndKeepsPassword(t *testing.T) {
	for _, tt := range []struct{ url, names string }{
		{"", "does not begin with one of redis://"},
		{"s3cr3t", "does not begin with one of redis://"},
		{":s3cr3t@h:6379", "does not begin with one of redis://"},
		{"u:s3cr3t@h:6379", "does not begin with one of redis://"},
		{"redis:u:s3cr3t@h", "does not begin with one of redis://"},
		{"redis:/u:s3cr3t@h", "does not begin with one of redis://"},
		{"http://u:s3cr3t@h", "does not begin with one of redis://"},
		{"s3cr3t://h", "does not begin with one of redis://"},
		{"redis-://:s3cr3t@h", "does not begin with one of redis://"},
		{"unix-cluster://:s3cr3t@h", "does not begin with one of redis://"},
		{"redis-sentinels://:s3cr3t@h", "does not begin with one of redis://"},
		{" redis://:s3cr3t@h", "does not begin with one of redis://"},

		{"redis://:s3cr3t@h ", "space, control character or #"},
		{"redis://:s3cr3t @h", "space, control character or #"},
		{"redis://:s3cr3t@h\n", "space, control character or #"},
		{"redis://:s3cr3t\x7f@h", "space, control character or #"},
		{"redis-cluster://:s3cr3t@h1, h2", "space, control character or #"},
		{"redis://:#s3cr3t@h", "space, control character or #"},
		{"redis://:s3cr3t@h#s3cr3t", "space, control character or #"},

		{"redis://:s3cr3t%@h", "user, password or path is not well percent-encoded"},
		{"redis://:%zzs3cr3t@h", "user, password or path is not well percent-encoded"},
		{"redis://%s3cr3t:x@h", "user, password or path is not well percent-encoded"},
		{"redis://:s3cr3t^@h", "user, password or path is not well percent-encoded"},
		{"redis://:s3cr3t@h/%s3cr3t", "user, password or path is not well percent-encoded"},
		{"redis://:s3cr3t@h?client_name=%s3cr3t", "query is not well percent-encoded"},
		{"redis://:s3cr3t@h?db=1;s3cr3t", "query is not well percent-encoded, or has a ;"},

		{"redis://", "host 1 of 1 is empty"},
		{"redis:///1", "host 1 of 1 is empty"},
		{"redis://:s3cr3t@", "host 1 of 1 is empty"},
		{"redis://:s3cr3t@:6379", "host 1 of 1 is empty"},
		{"redis-cluster://", "host 1 of 1 is empty"},
		{"redis-cluster://:s3cr3t@h1,", "host 2 of 2 is empty"},
		{"redis-cluster://:s3cr3t@h1,,h3", "host 2 of 3 is empty"},
		{"redis-cluster://:s3cr3t@h1,:7000", "host 2 of 2 is empty"},
		{"redis-sentinel://:s3cr3t@,h2?master=m", "host 1 of 2 is empty"},
		{"redis-cluster://:s3cr3t@h1?addr=", "host 2 of 2 is empty"},
		{"redis-cluster://:s3cr3t@h1?addr=s3cr3t:s3cr3t", "host 2 of 2 has a port"},
		{"redis://:s3cr3t@h:", ""},
		{"redis://h:s3cr3t", "host 1 of 1 has a port that is not a number from 1 to 65535"},
		{"redis://u:s3cr3t", "host 1 of 1 has a port that is not a number from 1 to 65535"},
		{"redis://:s3cr3t@h:0", "host 1 of 1 has a port"},
		{"redis://:s3cr3t@h:65536", "host 1 of 1 has a port"},
		{"redis://:s3cr3t@h:-1", "host 1 of 1 has a port"},
		{"redis://:s3cr3t@[::1]:s3cr3t", "host 1 of 1 has a port"},
		{"redis-cluster://:s3cr3t@h1:1,h2:s3cr3t", "host 2 of 2 has a port"},
		{"redis://:s3cr3t@h:1:2", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@::1", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@::1:6379", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@[::1", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@[::1]s3cr3t", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@[::s3cr3t]", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@[::1%25<s3cr3t>]", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@h%73", "host 1 of 1 is not host:port"},
		{"redis://:s3cr3t@h!s3cr3t", "host 1 of 1 is not host:port"},
		{"redis-sentinel://:s3cr3t@h1,ü?master=m", "host 2 of 2 is not host:port"},
		{"redis://:s3cr3t@h1,h2", "several hosts need redis-cluster:// or redis-sentinel://"},

		// A password that is not encoded gets into other parts.
		{"redis://:a/s3cr3t@h", "is there a / or ? in the password?"},
		{"redis://u:/s3cr3t@h:6379/0", "is there a / or ? in the password?"},
		{"redis://u/:s3cr3t@h", "is there a / or ? in the password?"},
		{"redis://u:1/s3cr3t@h:6379/0", "is there a / or ? in the password?"},
		{"redis://u:1?s3cr3t@h:6379/0", "is there a / or ? in the password?"},
		{"redis://u:1?secret=s3cr3t@h:6379/0", "is there a / or ? in the password?"},
		{"redis://u:1?s3cr3t&x=y@h:6379/0", "is there a / or ? in the password?"},
		{"redis-cluster://u:1/s3cr3t@h1,h2", "is there a / or ? in the password?"},
		{"redis-sentinel://u:1/s3cr3t@h1,h2/0?master=m", "is there a / or ? in the password?"},
		{"unix://u:a/s3cr3t@/sock", "is there a / or ? in the password?"},

		{"redis://:s3cr3t@h/s3cr3t", "path is not the number of a database"},
		{"redis://:s3cr3t@h/1/s3cr3t", "path is not the number of a database"},
		{"redis://:s3cr3t@h/-1", "path is not the number of a database"},
		{"redis-sentinel://:s3cr3t@h/s3cr3t?master=m", "path is not the number of a database"},
		{"redis-sentinel://:s3cr3t@h/-1?master=m", "path is not the number of a database"},
		{"redis-cluster://:s3cr3t@h/1", "on a cluster, only 0 is"},
		{"redis-cluster://:s3cr3t@h/s3cr3t", "on a cluster, only 0 is"},
		{"redis://:s3cr3t@h?db=s3cr3t", "option db has a value that does not fit it"},
		{"redis://:s3cr3t@h?db=-1", "option db is not from 0"},
		{"redis-cluster://:s3cr3t@h?db=1", "option db is unknown"},

		{"unix://:s3cr3t@", "a socket has no host, and an absolute path"},
		{"unix://:s3cr3t@/", "a socket has no host, and an absolute path"},
		{"unix://run/s3cr3t.sock", "a socket has no host, and an absolute path"},
		{"unix://:s3cr3t@./run/redis.sock", "a socket has no host, and an absolute path"},
		{"unix://:s3cr3t@/sock?db=s3cr3t", "option db has a value"},

		{"redis://:s3cr3t@h?reed_timeout=1s", "option reed_timeout is unknown"},
		{"redis://:s3cr3t@h?addr=h2:6379", "option addr is unknown"},
		{"redis://:s3cr3t@h?skip_verify=true", "option skip_verify is unknown"},
		{"redis://:s3cr3t@h?master=m", "option master is unknown"},
		{"redis-cluster://:s3cr3t@h?master=m", "option master is unknown"},
		{"redis-sentinel://:s3cr3t@h?master=m&reed_timeout=1s", "option reed_timeout is unknown"},
		{"redis://h?s3cr3t", "an option is unknown (it is not shown"},
		{"redis://h?s3cr3t=1", "an option is unknown (it is not shown"},
		{"redis://h?%73ecret", "an option is unknown (it is not shown"},
		{"redis://h?=s3cr3t", "an option is unknown (it is not shown"},
		{"redis://h?password=s3cr3t", "option password is unknown"},
		{"redis://:s3cr3t@h?read_timeout=s3cr3t", "option read_timeout has a value that does not fit it"},
		{"redis://:s3cr3t@h?pool_size=s3cr3t", "option pool_size has a value that does not fit it"},
		{"redis://:s3cr3t@h?pool_fifo=s3cr3t", "option pool_fifo has a value that does not fit it"},
		{"redis-cluster://:s3cr3t@h?read_timeout=s3cr3t", "option read_timeout has a value"},
		{"redis-sentinel://:s3cr3t@h?master=m&read_timeout=s3cr3t", "option read_timeout has a value"},

		{"redis://:s3cr3t@h?pool_size=-1", "option pool_size is not from 0 to 10000"},
		{"redis://:s3cr3t@h?pool_size=2147483648", "option pool_size is not from 0 to 10000"},
		{"redis-cluster://:s3cr3t@h?pool_size=10001", "option pool_size is not from 0 to 10000"},
		{"redis://:s3cr3t@h?min_idle_conns=2147483648", "option min_idle_conns is not from 0 to 10000"},
		{"redis://:s3cr3t@h?pipeline_pool_size=-2", "option pipeline_pool_size is not from -1 to 10000"},

		{"redis-sentinel://u:s3cr3t@h", "the name of the master is missing: ?master=name"},
		{"redis-sentinel://u:s3cr3t@h?master=", "the name of the master is missing: ?master=name"},
		{"redis-sentinel://h?password=s3cr3t", "the name of the master is missing: ?master=name"},

		{"redis-sentinel://:s3cr3t@h?master=m&replica_only=true", "option replica_only reads from replicas"},
		{"redis-sentinel://:s3cr3t@h?master=m&route_by_latency=1", "option route_by_latency reads from replicas"},
		{"redis-sentinel://:s3cr3t@h?master=m&route_randomly=true", "option route_randomly reads from replicas"},
		{"redis-cluster://:s3cr3t@h?read_only=true", "option read_only reads from replicas"},
		{"redis-cluster://:s3cr3t@h?route_by_latency=false&route_by_latency=true", "option route_by_latency reads"},
	} {
		t.Run(tt.url, func(t *testing.T) {
			if tt.names == "" {
				openURL(t, tt.url)
				return
			}
			client, err := readthrough.Open(tt.url)
			require.ErrorContains(t, err, tt.names)
			assert.ErrorContains(t, err, "readthrough: open: ")
			assert.Nil(t, client)
			assertKeepsSecret(t, err)
		})
	}
}

func TestOpenDoesNotShowOptionThatIsAPieceOfThePassword(t *testing.T) {
	for _, url := range []string{
		"redis://u:1?hunter=x&a=b@h", // the password is 1?hunter=x&a=b
		"redis://:hunter@h?hunter=1",
		"redis://h?hunter",
		"redis://h?hunter=",
	} {
		_, err := readthrough.Open(url)
		require.ErrorContains(t, err, "an option is unknown", url)
		assert.NotContains(t, err.Error(), "hunter", url)
	}
}

func FuzzOpen(f *testing.F) {
	for _, s := range [][2]string{
		{"", ""}, {"redis://:", "@h:6379/0"}, {"rediss://u:a/", "@h"}, {"redis://h?read_timeout=", ""}, {"redis://h?", "=1"},
		{"unix://", "@/run/redis.sock?db=1"}, {"redis-cluster://:", "@h1:1,[::1]:2,h3?max_redirects=2"}, {"redis://[", "]:1"},
		{"redis-sentinel://h1,h2:2/0?password=", "&master=m&pool_size=5"}, {"redis://h:1/%", ""}, {"redis://h#", "%"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		u := before + secret + after
		if query, _ := url.QueryUnescape(u); strings.Contains(query, "min_idle") || strings.Contains(u, "%") && query == "" {
			t.Skip("it would dial") // or it cannot be told
		}
		client, err := readthrough.Open(u)
		if err != nil {
			assertKeepsSecret(t, err)
			return
		}
		assertNoConnections(t, client)
		assert.NoError(t, client.Close())
	})
}

// assertNoConnections finds those that are being made in the background, too. A cluster client cannot be asked: it makes
// some to answer, and has none before.
func assertNoConnections(tb testing.TB, client redis.UniversalClient) {
	tb.Helper()
	if single, ok := client.(*redis.Client); ok {
		require.Zero(tb, single.PoolStats().TotalConns)
	}
}

// The backlog of a listener is in the order of the dials: had Open dialed, the first connection would be its.
func TestOpenDoesNotDial(t *testing.T) {
	for scheme, query := range map[string]string{
		"redis": "", "rediss": "", "redis-cluster": "", "rediss-cluster": "", "redis-sentinel": "?master=m", "unix": "",
	} {
		t.Run(scheme, func(t *testing.T) {
			network, addr := "tcp", "127.0.0.1:0"
			if scheme == "unix" {
				network, addr = "unix", filepath.Join(t.TempDir(), "s")
			}
			listener, err := net.Listen(network, addr)
			require.NoError(t, err)
			defer listener.Close()

			client := openURL(t, scheme+"://"+listener.Addr().String()+query)
			assertNoConnections(t, client)

			mine, err := net.Dial(network, listener.Addr().String())
			require.NoError(t, err)
			defer mine.Close()
			_, err = mine.Write([]byte("mine"))
			require.NoError(t, err)
			accepted, err := listener.Accept()
			require.NoError(t, err)
			defer accepted.Close()
			require.NoError(t, accepted.SetReadDeadline(time.Now().Add(10*time.Second)))
			first := make([]byte, len("mine"))
			_, err = io.ReadFull(accepted, first)
			require.NoError(t, err)
			assert.Equal(t, "mine", string(first))
		})
	}
}

func TestFirstCommandMakesOneConnectionWithOneRoundTrip(t *testing.T) {
	m := miniredis.RunT(t)
	client := openURL(t, "redis://"+m.Addr())
	assert.Zero(t, m.TotalConnectionCount())

	require.NoError(t, client.Ping(t.Context()).Err())

	assert.Equal(t, 1, m.TotalConnectionCount())
	assert.Equal(t, 2, m.CommandCount(), "HELLO and PING")
}

func TestOpenWithPasswordAndDatabaseReachesServer(t *testing.T) {
	m := miniredis.RunT(t)
	m.RequireUserAuth("app", "p@ss/word")
	client := openURL(t, "redis://app:p%40ss%2Fword@"+m.Addr()+"/2")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	got, err := m.DB(2).Get("k")
	require.NoError(t, err)
	assert.Equal(t, "v", got)
}

func TestOpenUnixSocketReachesDatabase(t *testing.T) {
	m := miniredis.RunT(t)
	path := filepath.Join(t.TempDir(), "redis.sock")
	forward(t, path, m.Addr())
	client := openURL(t, "unix://"+path+"?db=2")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	got, err := m.DB(2).Get("k")
	require.NoError(t, err)
	assert.Equal(t, "v", got)
}

// forward serves the socket at path by the server at addr: miniredis has no socket.
func forward(tb testing.TB, path, addr string) {
	tb.Helper()
	listener, err := net.Listen("unix", path)
	require.NoError(tb, err)
	var wg sync.WaitGroup
	tb.Cleanup(func() { _ = listener.Close(); wg.Wait() })
	wg.Go(func() { // ends with the listener
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				_ = in.Close()
				return
			}
			wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() }) // these two end with either connection
			wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
}

func TestOpenClusterReachesNode(t *testing.T) {
	m := miniredis.RunT(t)
	m.RequireAuth("p")
	client := openURL(t, "redis-cluster://:p@"+m.Addr()+","+m.Addr()+"/0")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	m.CheckGet(t, "k", "v")
}

func TestOpenSentinelReachesMasterWithSamePassword(t *testing.T) {
	master, sentinel := miniredis.RunT(t), miniredis.RunT(t)
	master.RequireAuth("p")
	sentinel.RequireAuth("p")
	require.NoError(t, sentinel.Server().Register("SENTINEL", func(c *server.Peer, _ string, args []string) {
		switch {
		case strings.EqualFold(args[0], "get-master-addr-by-name") && args[1] == "m":
			c.WriteStrings([]string{master.Host(), master.Port()})
		default:
			c.WriteLen(0)
		}
	}))
	client := openURL(t, "redis-sentinel://:p@"+sentinel.Addr()+"/2?master=m")

	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	got, err := master.DB(2).Get("k")
	require.NoError(t, err)
	assert.Equal(t, "v", got)
}

// The client does not tell its sentinels. That none of them can be reached, it says of each.
func TestOpenReadsSentinelsFromURL(t *testing.T) {
	client := openURL(t, "redis-sentinel://127.1.2.3,127.1.2.3:1,[::1]:2?master=none&max_retries=-1&addr=127.1.2.3:3")

	err := client.Ping(t.Context()).Err()

	for _, addr := range []string{"127.1.2.3:26379", "127.1.2.3:1", "[::1]:2", "127.1.2.3:3"} {
		assert.ErrorContains(t, err, "dial tcp "+addr+": ")
	}
}

func TestContextDeadlineBoundsCommandOfHungServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connections, and nobody answers
	require.NoError(t, err)
	defer listener.Close()
	client := openURL(t, "redis://"+listener.Addr().String()+"?read_timeout=5s")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()

	start := time.Now()
	err = client.Ping(ctx).Err()

	require.Error(t, err)
	assert.Less(t, time.Since(start), 2*time.Second)
}
