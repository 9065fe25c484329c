// Package redistest gives tests real redis-server processes: one server ([Start]), a cluster ([StartCluster]), or a
// master with its sentinels ([StartSentinel]). They can be paused, resumed, killed and restarted, which is what a
// cache has to survive and what no imitation of Redis shows. [Process] adds a second process of the fleet: the test
// binary itself, started once more.
//
// [StartProxy] puts a proxy before a server, [Cluster.Proxies] one before each node, which delay, hold, drop and
// duplicate packets and cut connections. [Server.User] makes ACL users.
//
// Everything listens on free ports of the loopback interface, keeps nothing on disk beyond the test's TempDir, and
// ends with the test: by Cleanup, or, on Linux, by the kernel when the test process dies before its Cleanup ran.
//
// Redis 7.0 or later is needed. Where there is no redis-server on PATH a test that needs one is skipped; with
// READTHROUGH_REQUIRE_REDIS=1 in the environment, as in CI, it fails instead.
package redistest
