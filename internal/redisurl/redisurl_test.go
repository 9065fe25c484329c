package redisurl

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpen_ReadsServerFromURL(t *testing.T) {
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

func TestOpen_ReadsClusterFromURL(t *testing.T) {
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

func TestOpen_NamesWhatIsWrongAndKeepsPassword(t *testing.T) {
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
			client, err := Open(tt.url)
			require.ErrorContains(t, err, tt.names)
			assert.NotContains(t, err.Error(), "readthrough", "the root adds its name")
			assert.Nil(t, client)
			assertKeepsSecret(t, err)
		})
	}
}

func TestOpen_DoesNotShowOptionThatIsAPieceOfThePassword(t *testing.T) {
	for _, url := range []string{
		"redis://u:1?hunter=x&a=b@h", // the password is 1?hunter=x&a=b
		"redis://:hunter@h?hunter=1",
		"redis://h?hunter",
		"redis://h?hunter=",
	} {
		_, err := Open(url)
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
		client, err := Open(u)
		if err != nil {
			assertKeepsSecret(t, err)
			return
		}
		assertNoConnections(t, client)
		assert.NoError(t, client.Close())
	})
}
