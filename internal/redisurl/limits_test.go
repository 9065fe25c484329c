package redisurl

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/assert"
)

// poolLimits holds the limits that go-redis's two types of options share.
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

func TestOpen_SetsDocumentedLimits(t *testing.T) {
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

func TestOpen_LetsURLOverrideLimits(t *testing.T) {
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

func TestOpen_OverridesOneLimitAndKeepsTheOthers(t *testing.T) {
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

func TestOpen_KnowsOptionsWithoutLimits(t *testing.T) {
	o := singleOptions(t, "rediss://h?skip_verify=true&client_name=a%20b@c&protocol=2&max_conn_age=1h&pool_fifo=1")
	assert.True(t, o.TLSConfig.InsecureSkipVerify)
	assert.Equal(t, "a b@c", o.ClientName)
	assert.Equal(t, 2, o.Protocol)
	assert.Equal(t, time.Hour, o.ConnMaxLifetime)
	assert.True(t, o.PoolFIFO)
	assert.Equal(t, 7, clusterOptions(t, "redis-cluster://h?failing_timeout_seconds=7&read_only=false").FailingTimeoutSeconds)
}
