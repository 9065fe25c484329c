package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// asProgram in the environment makes this test binary the program itself, so
// that a test can send it a signal and see its exit code.
const asProgram = "BOOKSTORE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// outcome is what one run of the program left.
type outcome struct {
	code           int
	stdout, stderr string
}

func runProgram(t testing.TB, ctx context.Context, redisURL string, args ...string) outcome {
	t.Helper()
	// Where the program keeps what it promises to remove.
	t.Setenv("TMPDIR", t.TempDir())
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, redisURL, &stdout, &stderr)
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	assert.Empty(t, left, "a temporary folder was left behind")
	return outcome{code, stdout.String(), stderr.String()}
}

func TestHelpExitsWithZero(t *testing.T) {
	got := runProgram(t, t.Context(), "", "-h")

	assert.Zero(t, got.code)
	assert.Contains(t, got.stderr, "-serve")
}

func TestUnknownFlagExitsWithTwo(t *testing.T) {
	got := runProgram(t, t.Context(), "", "-nonsense")

	assert.Equal(t, 2, got.code)
	assert.Contains(t, got.stderr, "-nonsense")
}

func TestUnexpectedArgumentExitsWithTwo(t *testing.T) {
	got := runProgram(t, t.Context(), "", "serve")

	assert.Equal(t, 2, got.code)
	assert.Contains(t, got.stderr, `unexpected argument "serve"`)
}

func TestBadRedisURLExitsWithOne(t *testing.T) {
	for name, url := range map[string]string{
		"no URL":          "not a url",
		"unknown scheme":  "http://:hunter2@127.0.0.1:6379",
		"bad port":        "redis://:hunter2@127.0.0.1:port",
		"nobody listens":  "redis://:hunter2@" + closedAddr(t),
		"bad database":    "redis://:hunter2@127.0.0.1:6379/first",
		"broken escaping": "redis://:hunter2%zz@127.0.0.1:6379",
	} {
		t.Run(name, func(t *testing.T) {
			got := runProgram(t, t.Context(), url)

			assert.Equal(t, 1, got.code)
			assert.Regexp(t, `^bookstore: REDIS_URL: .+`, got.stderr)
			assert.NotContains(t, got.stderr, "hunter2", "a credential in an error")
			assert.Empty(t, got.stdout)
		})
	}
}

func TestBusyPortExitsWithOne(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()

	got := runProgram(t, t.Context(), "", "-serve", ln.Addr().String())

	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.stderr, "bookstore: serve on "+ln.Addr().String())
	assert.Contains(t, got.stderr, "in use")
}

func TestFileThatIsNoDatabaseExitsWithOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letter.txt")
	letter := bytes.Repeat([]byte("Dear reader, "), 100)
	require.NoError(t, os.WriteFile(path, letter, 0o600))

	got := runProgram(t, t.Context(), "", "-db", path)

	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.stderr, path)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, letter, after, "the file was changed")
}

func TestInterruptedTourExitsWithOne(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	got := runProgram(t, ctx, "redis://"+miniredis.RunT(t).Addr())

	assert.Equal(t, 1, got.code)
	assert.Contains(t, got.stderr, "context canceled")
}

// closedAddr is an address of this machine on which nobody listens.
func closedAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}
