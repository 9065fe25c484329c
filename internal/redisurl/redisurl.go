// Package redisurl opens Redis clients from URLs, with limits that suit a cache.
//
// It translates a URL into one for go-redis's own parsers, so that every query option of theirs
// works, and adds the limits that the URL does not set. It looks for every mistake before go-redis
// does, to name it: the errors of net/url and go-redis quote the URL, and a password with a / or ?
// that is not encoded may have ended up in any part of it. No error of this package repeats
// anything of a URL but the names of options.
package redisurl

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Open returns a client of the Redis that rawURL names. It does not dial.
func Open(rawURL string) (redis.UniversalClient, error) {
	options, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	return newClient(options), nil
}

var (
	schemes = []string{
		"redis", "rediss", "unix", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel",
	}
	defaultPorts = map[string]string{"": "6379", "cluster": "6379", "sentinel": "26379"} // by kind
	hostName     = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// redisURL is a URL in its parts.
type redisURL struct {
	base   string   // redis, rediss or unix: the scheme for go-redis's parser
	kind   string   // cluster, sentinel or nothing
	target *url.URL // the URL for go-redis's parser
	query  url.Values
	hosts  []string
}

// parse returns the *redis.Options, *redis.ClusterOptions or *redis.FailoverOptions of rawURL.
func parse(rawURL string) (options any, err error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	if scheme = strings.ToLower(scheme); !slices.Contains(schemes, scheme) {
		return nil, fmt.Errorf("the URL does not begin with one of %s://", strings.Join(schemes, "://, "))
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

// translate makes a URL for go-redis of the authority and the tail, which is path and query, and
// parses it.
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
	options, err = u.parseTarget(u.target.String())
	// With hosts and options known to be good, only the path is left. go-redis takes any on a
	// cluster.
	db := strings.Trim(u.target.Path, "/")
	if err != nil || u.base != "unix" && strings.HasPrefix(db, "-") || u.kind == "cluster" && strings.Trim(db, "0") != "" {
		return nil, errors.New("the path is not the number of a database (on a cluster, only 0 is)")
	}
	return options, nil
}

// setHosts fills u.hosts from the hosts of the authority and the addr options.
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
		u.hosts = append(u.hosts, u.query["addr"]...) // go-redis takes all hosts but the first from addr
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

// parseHost returns s as host:port. Its errors continue a sentence about the host.
func parseHost(s, defaultPort string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil { // either s has no port, or it is no host:port
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

// parseTarget calls the parser of go-redis for u's kind.
func (u *redisURL) parseTarget(target string) (options any, err error) {
	switch u.kind {
	case "cluster":
		return redis.ParseClusterURL(target)
	case "sentinel":
		return redis.ParseFailoverURL(target)
	}
	return redis.ParseURL(target)
}
