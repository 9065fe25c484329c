package test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
	"github.com/readthrough-go/readthrough/outbox"
)

const (
	memberEntry = "outbox member"
	memberEnv   = "READTHROUGH_TEST_MEMBER"
)

// The orders of a member.
const (
	doUpdate = "update" // a transaction of a write and an Add, not committed
	doCommit = "commit" // the same, committed
	doRelay  = "relay"  // a relay whose cache never answers
)

func init() { redistest.Register(memberEntry, runMember) }

// memberConfig is what a process is told: what it does before it says so and waits to be killed.
type memberConfig struct {
	Base base
	Do   string
	Key  string
}

// runMember runs a process until it is killed.
func runMember() int {
	var conf memberConfig
	err := json.Unmarshal([]byte(os.Getenv(memberEnv)), &conf)
	if err == nil {
		err = conf.run()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func (c memberConfig) run() error {
	db, err := sql.Open(c.Base.Driver, c.Base.DSN)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if c.Do == doRelay {
		return outbox.Run(ctx, db, cacheFunc(func(context.Context, ...string) error { return waitToBeKilled() }))
	}
	tx, err := rename(ctx, db, c.Key)
	if err == nil && c.Do == doCommit {
		err = tx.Commit()
	}
	if err != nil {
		return err
	}
	return waitToBeKilled()
}

func waitToBeKilled() error {
	fmt.Println("done")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

// crash has a process do its order, and kills it there with SIGKILL.
func crash(t *testing.T, conf memberConfig) {
	t.Helper()
	text, err := json.Marshal(conf)
	require.NoError(t, err)
	p := redistest.Process(t, memberEntry, memberEnv+"="+string(text))
	line, err := p.ReadLine(soon)
	require.NoError(t, err)
	require.Equal(t, "done", line)
	p.Kill()
}

func TestRelay_InvalidatesForWriterKilledAfterCommit(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		s := newScene(t, b)
		s.requireName(old)

		crash(t, memberConfig{Base: b, Do: doCommit, Key: s.key})
		s.requireName(old) // what the writer could not prevent
		require.Equal(t, 1, s.rows())
		relay(t, s.db, s.cache)

		eventually(t, func() bool { return s.rows() == 0 })
		assert.False(t, s.redis.Exists(s.key))
		s.requireName(now)
	})
}

func TestRelay_FindsNothingOfWriterKilledBeforeCommit(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		s := newScene(t, b)
		s.requireName(old)

		crash(t, memberConfig{Base: b, Do: doUpdate, Key: s.key})
		r, _ := relay(t, s.db, s.cache)
		add(t, s.db, "another")
		r.Notify()

		eventually(t, func() bool { return r.Stats().Relayed == 1 })
		assert.Zero(t, s.rows())
		assert.True(t, s.redis.Exists(s.key))
		s.requireName(old) // as it is in the database
	})
}

func TestRelay_TakesOverBatchOfKilledRelay(t *testing.T) {
	onEach(t, func(t *testing.T, b base) {
		s := newScene(t, b)
		s.requireName(old)
		tx, err := rename(t.Context(), s.db, s.key)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())

		crash(t, memberConfig{Base: b, Do: doRelay})
		require.Equal(t, 1, s.rows())
		if b.Dialect == outbox.SQLite {
			var wait int64
			require.NoError(t, s.db.QueryRowContext(t.Context(),
				"SELECT due_at - CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) FROM readthrough_outbox").Scan(&wait))
			assert.LessOrEqual(t, wait, int64(15_000))
			assert.Positive(t, wait, "a claim lasts 15 s")
			mustExec(t, s.db, "UPDATE readthrough_outbox SET due_at = due_at - 15000") // 15 s later
		}
		relay(t, s.db, s.cache)

		eventually(t, func() bool { return s.rows() == 0 })
		s.requireName(now)
	})
}
