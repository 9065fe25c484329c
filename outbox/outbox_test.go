package outbox

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// statements is an Execer that keeps what it is to execute.
type statements struct {
	texts []string
	args  int
	err   error
}

func (s *statements) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	s.texts = append(s.texts, query)
	s.args += len(args)
	return nil, s.err
}

func TestAdd_IsOneStatementWithoutParameters(t *testing.T) {
	var tx statements
	require.NoError(t, Add(t.Context(), &tx, "shop:user:42", "it's"))
	require.NoError(t, Table("shop.outbox").Add(t.Context(), &tx, "k"))
	require.NoError(t, Add(t.Context(), &tx))
	assert.Equal(t, []string{
		`INSERT INTO readthrough_outbox (kind, name) VALUES (0, 'shop:user:42'), (0, 'it%27s')`,
		`INSERT INTO shop.outbox (kind, name) VALUES (0, 'k')`,
	}, tx.texts)
	assert.Zero(t, tx.args)
}

func TestAdd_SplitsWhatIsTooLongForStatement(t *testing.T) {
	var tx statements
	long := strings.Repeat("\x80", maxKey)
	keys := make([]string, 20)
	for i := range keys {
		keys[i] = long
	}

	require.NoError(t, Add(t.Context(), &tx, keys...))

	rows := 0
	for _, text := range tx.texts {
		rows += strings.Count(text, "(0, '")
		assert.Less(t, len(text), 1_000_000) // the default of SQLITE_MAX_SQL_LENGTH
	}
	assert.Equal(t, len(keys), rows)
	assert.Greater(t, len(tx.texts), 1)
}

func TestAdd_RefusesWhatIsNoKeyBeforeItWrites(t *testing.T) {
	for _, key := range []string{"", strings.Repeat("k", maxKey+1)} {
		var tx statements
		require.ErrorContains(t, Add(t.Context(), &tx, "good", key), "outbox: add: ")
		assert.Empty(t, tx.texts)
	}
}

func TestAdd_ReturnsErrorOfDatabase(t *testing.T) {
	tx := statements{err: errors.New("no such table")}
	err := Add(t.Context(), &tx, "k")
	require.ErrorIs(t, err, tx.err)
	assert.EqualError(t, err, "outbox: add: no such table")
}

func TestTable_RefusesWhatIsNoName(t *testing.T) {
	for _, name := range []Table{"", "a b", "a;DROP TABLE users", "1a", "a.b.c", "a.", ".a", `"a"`, "a-b", "tablé", "a\n"} {
		var tx statements
		require.Error(t, name.Add(t.Context(), &tx, "k"), "%q", name)
		assert.Empty(t, tx.texts)
		assert.Panics(t, func() { name.Schema(SQLite) }, "%q", name)
		_, err := newSettings([]Option{WithTable(name)})
		assert.Error(t, err, "%q", name)
	}
}

// FuzzEscape holds that whatever a key is, its literal cannot end early in any SQL, and is read
// back as the key.
func FuzzEscape(f *testing.F) {
	for _, key := range []string{"shop:user:42", `'); DROP TABLE users; --`, `\'`, "\x00", "\xbf'", "%", "?$1:x@p", "\u2019", "a+b c"} {
		f.Add(key)
	}
	harmless := regexp.MustCompile(`^[A-Za-z0-9_.~$&+=:@%-]*$`)
	f.Fuzz(func(t *testing.T, key string) {
		name := escape(key)
		require.Regexp(t, harmless, name)
		require.LessOrEqual(t, len(name), 3*len(key))
		got, err := unescape(name)
		if key == "" {
			require.ErrorIs(t, err, errEmptyKey)
			return
		}
		require.NoError(t, err)
		require.Equal(t, key, got)
	})
}

// TestSQL_IsAsBefore compares all statements with those that were tried on real servers.
func TestSQL_IsAsBefore(t *testing.T) {
	var b strings.Builder
	for d := SQLite; d < dialects; d++ {
		s := sqlStore{table: "shop.outbox"}
		fetch := s.lockQuery(d, 10)
		if d == SQLite {
			fetch = s.claimQuery(10)
		}
		for _, text := range []string{
			"-- " + d.String(), s.table.Schema(d), s.nextQuery(d), s.pendingQuery(d), fetch,
			s.removal(d, []int64{3, 5}), s.postponement(d, []int64{3, 5}, time.Second),
		} {
			b.WriteString(text + "\n")
		}
	}
	const golden = "testdata/statements.sql"
	if os.Getenv("READTHROUGH_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), b.String())
}

func TestOptions_RefuseWhatIsOutOfRange(t *testing.T) {
	for name, opt := range map[string]Option{
		"nil":                   nil,
		"WithDialect":           WithDialect(dialects),
		"WithDialect: there":    WithDialect(0),
		"WithBatchSize: 0":      WithBatchSize(0),
		"WithBatchSize: 1001":   WithBatchSize(1001),
		"WithPollInterval":      WithPollInterval(0),
		"WithBackoff: not 1 ms": WithBackoff(0, time.Second),
		"WithBackoff":           WithBackoff(time.Second, time.Millisecond),
		"WithOnEvent":           WithOnEvent(nil),
		"WithWakeUps":           WithWakeUps(nil),
		"not made of letters":   WithTable("'"),
	} {
		_, err := NewRelay(new(sql.DB), cacheFunc(nil), opt)
		require.ErrorContains(t, err, "outbox: NewRelay: ", name)
		assert.ErrorContains(t, err, name)
	}
	_, err := NewRelay(nil, cacheFunc(nil))
	assert.Error(t, err)
	_, err = NewRelay(new(sql.DB), nil)
	assert.Error(t, err)
	assert.Error(t, Run(t.Context(), nil, nil))
}

func TestNames_AreWords(t *testing.T) {
	assert.Equal(t, "SQLite MySQL PostgreSQL unknown unknown",
		strings.Join([]string{SQLite.String(), MySQL.String(), PostgreSQL.String(), Dialect(0).String(), dialects.String()}, " "))
	assert.Equal(t, "relayed failed error unknown",
		strings.Join([]string{EventRelayed.String(), EventFailed.String(), EventError.String(), EventKind(99).String()}, " "))
	assert.Panics(t, func() { Schema(0) })
}
