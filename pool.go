package readthrough

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Open returns a pooled client of the Redis that url names, with limits that suit a cache. It does not dial, so a service
// starts while Redis is down. The caller closes the client.
//
//	redis://user:password@host:6379/0                         one server; rediss:// with TLS
//	unix://user:password@/path/to/redis.sock?db=0             one server, by its socket
//	redis-cluster://user:password@h1:6379,h2,h3               a cluster, by some of its nodes; rediss-cluster:// with TLS
//	redis-sentinel://user:password@h1:26379,h2/0?master=name  the master Sentinel names; rediss-sentinel:// with TLS
//
// The port is 6379 by default, of a sentinel 26379. IPv6 addresses go in brackets, and special characters in the user and
// password are percent-encoded. Sentinels and master get the same user and password, unless the query has a username or
// password for the master. TLS verifies every server by the name of the first host.
//
// Every query option of go-redis's ParseURL, ParseClusterURL and ParseFailoverURL works and wins over the limits below.
// As there, a duration without a unit is in seconds, 0 for none; a number that is 0 means the default, and max_retries=-1
// none. Reads from replicas are refused: they may still have what was invalidated. min_idle_conns dials in the background.
//
//	dial_timeout             1s        one attempt for a connection, where go-redis makes five and waits between them
//	read_, write_timeout     500ms     what hangs is given up; an earlier deadline of the command's context wins
//	max_retries              1         enough to replace a connection that the server has dropped
//	(reload of the nodes)    5s        on a cluster: how soon a failover is noticed; go-redis looks each minute
//	max_redirects            3         on a cluster, instead of max_retries: the dead node again, another node, MOVED
//	min_, max_retry_backoff  5ms 50ms  a retry still fits in the time that a cache may take
//	pool_size                20        connections per server, not per CPU: the server's maxclients is for all processes
//	pipeline_pool_size       10        connections for pipelines on top of these, opened as needed
//	pool_timeout             500ms     to wait for a free connection: no longer than the read that occupies it
//	conn_max_idle_time       5m        less than the usual load balancer or firewall takes to forget a connection
//
// The deadline of its context bounds every command (ContextTimeoutEnabled). A new connection costs one round trip, HELLO,
// and another for a database other than 0 or a client_name: CLIENT SETINFO and CLIENT MAINT_NOTIFICATIONS are not sent.
// An error says what is wrong with url, and repeats no part of it but the names of options: so no password.
func Open(url string) (redis.UniversalClient, error) {
	options, err := parseRedisURL(url)
	if err != nil {
		return nil, fmt.Errorf("readthrough: open: %w", err)
	}
	return connect(options), nil
}

// Default returns the client that the whole process shares, which the first call opens as [Open] does: from $REDIS_URL,
// else redis://localhost:6379. An error is not kept: the next call tries again. Only [CloseDefault] should close it.
func Default() (redis.UniversalClient, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.client != nil {
		return shared.client, nil
	}
	client, err := Open(cmp.Or(os.Getenv("REDIS_URL"), "redis://localhost:6379"))
	if err != nil {
		return nil, fmt.Errorf("%w (the URL is $REDIS_URL)", err)
	}
	shared.client = client
	return client, nil
}

// CloseDefault closes the client of [Default], if there is one. A later Default opens anew.
func CloseDefault() error {
	shared.Lock()
	client := shared.client
	shared.client = nil
	shared.Unlock() // before Close, so that no Default waits for it
	if client == nil {
		return nil
	}
	if err := client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) { // ErrClosed: someone closed it directly
		return fmt.Errorf("readthrough: close the default client: %w", err)
	}
	return nil
}

var shared struct {
	sync.Mutex
	client redis.UniversalClient
}

// clusterReload is how often a client of a cluster looks who the masters are. Go-redis looks each minute, and after a
// MOVED, but not when a master has died.
const clusterReload = 5 * time.Second

// connect sets the limits for which URLs have no option, and creates the client.
func connect(options any) redis.UniversalClient {
	silent := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch o := options.(type) {
	case *redis.ClusterOptions:
		o.ContextTimeoutEnabled, o.DisableIdentity, o.MaintNotificationsConfig = true, true, silent
		o.ClusterStateReloadInterval = clusterReload
		return redis.NewClusterClient(o)
	case *redis.FailoverOptions:
		return redis.NewFailoverClient(o) // it never asks for maintenance notifications
	}
	o := options.(*redis.Options)
	o.ContextTimeoutEnabled, o.DisableIdentity, o.MaintNotificationsConfig, o.DialerRetries = true, true, silent, 1
	return redis.NewClient(o)
}

// soundLimits are query options: so one table serves the three parsers of go-redis, which fill three unrelated types.
var soundLimits = map[string]string{
	"dial_timeout": "1s", "dialer_retries": "1", "read_timeout": "500ms", "write_timeout": "500ms",
	"max_retries": "1", "max_redirects": "3", "min_retry_backoff": "5ms", "max_retry_backoff": "50ms",
	"pool_size": "20", "pipeline_pool_size": "10", "pool_timeout": "500ms", "conn_max_idle_time": "5m",
	"context_timeout_enabled": "true", "disableIdentity": "true",
}

// numberRanges has what go-redis does not check: it panics, perhaps at the first command only, or takes all memory.
var numberRanges = map[string]struct{ min, max int }{
	"pool_size": {0, 10_000}, "pipeline_pool_size": {-1, 10_000}, "max_concurrent_dials": {0, 10_000},
	"min_idle_conns": {0, 10_000}, "max_idle_conns": {0, 10_000}, "max_active_conns": {0, 10_000},
	"max_retries": {-1, 100}, "max_redirects": {-1, 100}, "dialer_retries": {0, 100},
	"pipeline_read_buffer_size": {0, 64 << 20}, "pipeline_write_buffer_size": {0, 64 << 20}, "db": {0, 1 << 30},
}

var (
	redisSchemes = strings.Fields("redis rediss unix redis-cluster rediss-cluster redis-sentinel rediss-sentinel")
	replicaReads = regexp.MustCompile(`^(read_only|replica_only|route_by_latency|route_randomly)=(true|1)$`)
	defaultPorts = map[string]string{"": "6379", "cluster": "6379", "sentinel": "26379"}
	hostName     = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	optionName   = regexp.MustCompile(`^[a-z_]+$`)
	newNames     = map[string]string{
		"idle_timeout": "conn_max_idle_time", "max_conn_age": "conn_max_lifetime", "master": "master_name",
	}
)

// redisURL is a URL in its parts. None of them gets into an error, nor does an error of net/url or go-redis, which quote
// them: a password with a / or ? that is not encoded may have ended up in any part.
type redisURL struct {
	base   string   // redis, rediss or unix: the scheme for go-redis's parser
	kind   string   // cluster, sentinel or nothing
	target *url.URL // what the parser is given
	query  url.Values
	hosts  []string
}

func parseRedisURL(raw string) (options any, err error) {
	scheme, rest, _ := strings.Cut(raw, "://")
	if scheme = strings.ToLower(scheme); !slices.Contains(redisSchemes, scheme) {
		return nil, fmt.Errorf("the URL does not begin with one of %s://", strings.Join(redisSchemes, "://, "))
	}
	if strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r == '#' || r == 0x7f }) {
		return nil, errors.New("the URL has a space, control character or # (in a password, %20 is a space and %23 a #)")
	}
	base, kind, _ := strings.Cut(scheme, "-")
	end := strings.IndexAny(rest+"/", "/?")
	authority, tail := rest[:end], rest[end:]
	options, err = (&redisURL{base: base, kind: kind}).translate(authority, tail)
	if err != nil && strings.Contains(tail, "@") {
		return nil, fmt.Errorf("%w; is there a / or ? in the password? (in it they are %%2F and %%3F)", err)
	}
	return options, err
}

// translate makes the URL into one for go-redis, and parses that. It looks for every mistake first, to name it.
func (u *redisURL) translate(authority, tail string) (options any, err error) {
	at := strings.LastIndex(authority, "@") + 1
	u.target, err = url.Parse(u.base + "://" + authority[:at] + "localhost" + tail)
	if err != nil {
		return nil, errors.New("the user, password or path is not well percent-encoded (a % itself is %25)")
	}
	if u.query, err = url.ParseQuery(u.target.RawQuery); err != nil {
		return nil, errors.New("the query is not well percent-encoded, or has a ;")
	}
	if err := cmp.Or(u.setHosts(authority[at:]), u.setOptions()); err != nil {
		return nil, err
	}
	u.target.Host, u.query["addr"] = u.hosts[0], u.hosts[1:]
	u.target.RawQuery = u.query.Encode()
	options, err = u.parse(u.target.String())
	// With hosts and options known to be good, all that is left is the path. go-redis takes any on a cluster.
	db := strings.Trim(u.target.Path, "/")
	if err != nil || u.base != "unix" && strings.HasPrefix(db, "-") || u.kind == "cluster" && strings.Trim(db, "0") != "" {
		return nil, errors.New("the path is not the number of a database (on a cluster, only 0 is)")
	}
	return options, nil
}

func (u *redisURL) setHosts(hosts string) error {
	u.hosts = strings.Split(hosts, ",")
	switch {
	case u.base == "unix" && hosts == "" && len(u.target.Path) > 1:
		return nil
	case u.base == "unix":
		return errors.New("the URL of a socket has no host, and an absolute path: unix:///path/to/redis.sock")
	case u.kind == "" && len(u.hosts) > 1:
		return errors.New("several hosts need redis-cluster:// or redis-sentinel://")
	case u.kind != "":
		u.hosts = append(u.hosts, u.query["addr"]...) // addr: where go-redis has all but the first
		u.query.Del("addr")
	}
	for i, host := range u.hosts {
		addr, err := parseHost(host, defaultPorts[u.kind])
		if err != nil {
			return fmt.Errorf("host %d of %d %w", i+1, len(u.hosts), err)
		}
		u.hosts[i] = addr
	}
	return nil
}

func parseHost(s, defaultPort string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil { // either it has no port, or it is no host:port
		host, port, err = net.SplitHostPort(s + ":" + defaultPort)
	}
	host, port = strings.Replace(host, "%25", "%", 1), cmp.Or(port, defaultPort) // %25: before an IPv6 zone
	ip, ipErr := netip.ParseAddr(host)
	n, portErr := strconv.ParseUint(port, 10, 16)
	switch {
	case err == nil && host == "":
		return "", errors.New("is empty")
	case err != nil, !hostName.MatchString(host) && (ipErr != nil || !hostName.MatchString(cmp.Or(ip.Zone(), "0"))):
		return "", errors.New("is not host:port, of a name or IP address (IPv6 in brackets)")
	case portErr != nil || n == 0:
		return "", errors.New("has a port that is not a number from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

func (u *redisURL) setOptions() error {
	for old, name := range newNames { // go-redis refuses an old name beside the new one
		if values := u.query[old]; values != nil && u.accepts(name, "") {
			u.query[name] = append(values, u.query[name]...)
			u.query.Del(old)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.query)) {
		value := u.query[name][len(u.query[name])-1] // go-redis, too, takes the last
		if err := u.checkOption(name, value); err != nil {
			return err
		}
		u.query.Set(name, value)
	}
	for name, limit := range soundLimits {
		value := u.query.Get(name)
		unset := value == "" || value == "0" && numberRanges[name].max > 0
		// On a cluster max_redirects are the retries, which those of max_retries would multiply.
		if unset && u.accepts(name, limit) && (u.kind != "cluster" || name != "max_retries") {
			u.query.Set(name, limit)
		}
	}
	if u.kind == "sentinel" && u.query.Get("master_name") == "" {
		return errors.New("the name of the master is missing: ?master=name")
	}
	// go-redis gives the user in the URL to the sentinels only. Most who write one mean Redis's.
	password, ok := u.target.User.Password()
	if ok && u.kind == "sentinel" && !u.query.Has("username") && !u.query.Has("password") {
		u.query["username"], u.query["password"] = []string{u.target.User.Username()}, []string{password}
	}
	return nil
}

func (u *redisURL) checkOption(name, value string) error {
	n, _ := strconv.Atoi(value)
	limits, limited := numberRanges[name]
	password, _ := u.target.User.Password()
	switch {
	case limited && u.accepts(name, value) && (n < limits.min || n > limits.max):
		return fmt.Errorf("option %s is not from %d to %d", name, limits.min, limits.max)
	case u.accepts(name, value) && replicaReads.MatchString(name+"="+value):
		return fmt.Errorf("option %s reads from replicas, which may still have what was invalidated", name)
	case u.accepts(name, value):
		return nil
	case u.accepts(name, ""):
		return fmt.Errorf("option %s has a value that does not fit it", name)
	case value == "", !optionName.MatchString(name), strings.Contains(password, name), strings.Contains(u.target.RawQuery, "@"):
		// It might be of a password: with a ? and a @ after it, or written as if it was an option.
		return errors.New("an option is unknown (it is not shown, as it might be of a password)")
	}
	return fmt.Errorf("option %s is unknown", name)
}

// accepts asks go-redis's own parser, in a URL with nothing else.
func (u *redisURL) accepts(name, value string) bool {
	probe := url.URL{Scheme: u.base, Host: "localhost", Path: "/0", RawQuery: url.Values{name: {value}}.Encode()}
	_, err := u.parse(probe.String())
	return err == nil
}

func (u *redisURL) parse(target string) (options any, err error) {
	switch u.kind {
	case "cluster":
		return redis.ParseClusterURL(target)
	case "sentinel":
		return redis.ParseFailoverURL(target)
	}
	return redis.ParseURL(target)
}
