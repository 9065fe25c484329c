package redisurl

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// soundLimits are the limits that a URL can override, as query options: so one table serves the
// three parsers of go-redis, which fill three unrelated types. docs/redis.md gives the reason of
// each.
var soundLimits = map[string]string{
	"dial_timeout": "1s", "dialer_retries": "1", "read_timeout": "500ms", "write_timeout": "500ms",
	"max_retries": "1", "max_redirects": "3", "min_retry_backoff": "5ms", "max_retry_backoff": "50ms",
	"pool_size": "20", "pipeline_pool_size": "10", "pool_timeout": "500ms", "conn_max_idle_time": "5m",
	"context_timeout_enabled": "true", "disableIdentity": "true",
}

// clusterReload is how often a client of a cluster asks who the masters are. go-redis asks each
// minute, and after a MOVED, but not when a master has died.
const clusterReload = 5 * time.Second

// numberRanges holds the ranges that go-redis does not check: out of range it panics, perhaps only
// at the first command, or takes all memory.
var numberRanges = map[string]struct{ min, max int }{
	"pool_size": {0, 10_000}, "pipeline_pool_size": {-1, 10_000}, "max_concurrent_dials": {0, 10_000},
	"min_idle_conns": {0, 10_000}, "max_idle_conns": {0, 10_000}, "max_active_conns": {0, 10_000},
	"max_retries": {-1, 100}, "max_redirects": {-1, 100}, "dialer_retries": {0, 100},
	"pipeline_read_buffer_size": {0, 64 << 20}, "pipeline_write_buffer_size": {0, 64 << 20}, "db": {0, 1 << 30},
}

var (
	replicaReads = regexp.MustCompile(`^(read_only|replica_only|route_by_latency|route_randomly)=(true|1)$`)
	optionName   = regexp.MustCompile(`^[a-z_]+$`)
	newNames     = map[string]string{ // of options that go-redis has renamed, by old name
		"idle_timeout": "conn_max_idle_time", "max_conn_age": "conn_max_lifetime", "master": "master_name",
	}
)

// newClient sets the limits for which URLs have no option, and creates the client.
func newClient(options any) redis.UniversalClient {
	silent := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch o := options.(type) {
	case *redis.ClusterOptions:
		o.ContextTimeoutEnabled, o.DisableIdentity, o.MaintNotificationsConfig = true, true, silent
		o.ClusterStateReloadInterval = clusterReload
		return redis.NewClusterClient(o)
	case *redis.FailoverOptions:
		return redis.NewFailoverClient(o) // which never asks for maintenance notifications
	}
	o := options.(*redis.Options)
	o.ContextTimeoutEnabled, o.DisableIdentity, o.MaintNotificationsConfig, o.DialerRetries = true, true, silent, 1
	return redis.NewClient(o)
}

// setOptions checks the query options and adds those that the URL lacks.
func (u *redisURL) setOptions() error {
	u.renameOptions()
	for _, name := range slices.Sorted(maps.Keys(u.query)) {
		value := u.query[name][len(u.query[name])-1] // go-redis, too, takes the last
		if err := u.checkOption(name, value); err != nil {
			return err
		}
		u.query.Set(name, value)
	}
	u.addLimits()
	if u.kind == "sentinel" {
		return u.setMaster()
	}
	return nil
}

// renameOptions gives options their new names, because go-redis refuses an old name beside the new
// one.
func (u *redisURL) renameOptions() {
	for old, name := range newNames {
		if values := u.query[old]; values != nil && u.accepts(name, "") {
			u.query[name] = append(values, u.query[name]...)
			u.query.Del(old)
		}
	}
}

// checkOption returns an error if the option cannot be used. It names an unknown option only if
// that cannot be a piece of a password.
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
	case value == "", !optionName.MatchString(name),
		strings.Contains(password, name), strings.Contains(u.target.RawQuery, "@"):
		// The password may have a ? before the name and the @ after it, or be written as an option.
		return errors.New("an option is unknown (it is not shown, as it might be of a password)")
	}
	return fmt.Errorf("option %s is unknown", name)
}

// addLimits adds those of soundLimits that the URL does not set and u's parser knows.
func (u *redisURL) addLimits() {
	for name, limit := range soundLimits {
		value := u.query.Get(name)
		unset := value == "" || value == "0" && numberRanges[name].max > 0
		// On a cluster max_redirects are the retries, which those of max_retries would multiply.
		if unset && u.accepts(name, limit) && (u.kind != "cluster" || name != "max_retries") {
			u.query.Set(name, limit)
		}
	}
}

// setMaster requires the name of the master that the sentinels are asked for, and gives it the user
// and password of the URL, which go-redis gives to the sentinels only.
func (u *redisURL) setMaster() error {
	if u.query.Get("master_name") == "" {
		return errors.New("the name of the master is missing: ?master=name")
	}
	password, ok := u.target.User.Password()
	if ok && !u.query.Has("username") && !u.query.Has("password") {
		u.query["username"], u.query["password"] = []string{u.target.User.Username()}, []string{password}
	}
	return nil
}

// accepts reports whether go-redis's own parser takes the option, in a URL with nothing else.
func (u *redisURL) accepts(name, value string) bool {
	query := url.Values{name: {value}}.Encode()
	probe := url.URL{Scheme: u.base, Host: "localhost", Path: "/0", RawQuery: query}
	_, err := u.parseTarget(probe.String())
	return err == nil
}
