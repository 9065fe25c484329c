// Package test runs the outbox on SQLite, PostgreSQL and MariaDB. It is a module of its own, so that
// the drivers are not among what the users of outbox require.
package test
