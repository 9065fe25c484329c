package redistest_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func say(t testing.TB, p *redistest.Proc, line string) {
	t.Helper()
	_, err := fmt.Fprintln(p.Stdin, line)
	require.NoError(t, err)
}

func hear(t testing.TB, p *redistest.Proc) string {
	t.Helper()
	line, err := p.ReadLine(soon)
	require.NoError(t, err)
	return line
}

func TestProcess_AnswersInProcessOfItsOwn(t *testing.T) {
	t.Parallel()
	p := redistest.Process(t, "echo", "GREETING=hello")

	say(t, p, "world")

	assert.Equal(t, "hello world", hear(t, p))
	assert.NotEqual(t, os.Getpid(), p.PID())
	require.NoError(t, p.Stdin.Close())
	assert.NoError(t, p.Wait())
	_, err := p.ReadLine(soon)
	assert.ErrorIs(t, err, io.EOF)
}

func TestProcess_AnswersWhenResumed(t *testing.T) {
	t.Parallel()
	p := redistest.Process(t, "echo")
	say(t, p, "ready")
	hear(t, p)

	p.Pause()
	say(t, p, "later")
	_, err := p.ReadLine(brief)

	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	p.Resume()
	assert.Equal(t, " later", hear(t, p))
}

func TestReadLine_KeepsHalfALineForTheNextCall(t *testing.T) {
	t.Parallel()
	p := redistest.Process(t, "echo")
	say(t, p, "half")
	_, err := p.ReadLine(brief)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)

	say(t, p, "rest")

	assert.Equal(t, "ha rest", hear(t, p))
}

func TestProcess_IsGoneWhenKilled(t *testing.T) {
	t.Parallel()
	p := redistest.Process(t, "echo")
	p.Pause()

	p.Kill()

	requireGone(t, p.PID())
	assert.Error(t, p.Wait())
}

func TestWait_TellsHowProcessEnded(t *testing.T) {
	t.Parallel()
	for line, code := range map[string]int{"fail": 7, "panic": 2} {
		r := record(t, func(tb redistest.TB) {
			p := redistest.Process(tb, "echo")
			say(t, p, line)
			var exit *exec.ExitError
			require.ErrorAs(t, p.Wait(), &exit)
			assert.Equal(t, code, exit.ExitCode())
		})
		if line == "panic" {
			assert.Contains(t, r.log(), "echo: panic: as told")
		}
	}
}

func TestProcess_LogsItsStandardErrorByLines(t *testing.T) {
	t.Parallel()
	r := record(t, func(tb redistest.TB) {
		p := redistest.Process(tb, "echo")
		say(t, p, "complain")
		require.NoError(t, p.Stdin.Close())
		require.NoError(t, p.Wait())
	})
	assert.Equal(t, "echo: first\necho: second", r.log())
}

func TestProcess_EndsWithItsTest(t *testing.T) {
	t.Parallel()
	var pid int
	record(t, func(tb redistest.TB) { pid = redistest.Process(tb, "echo").PID() })
	requireGone(t, pid)
}

func TestProcess_FailsForUnknownEntry(t *testing.T) {
	t.Parallel()
	r := record(t, func(tb redistest.TB) { redistest.Process(tb, "nobody") })
	assert.Contains(t, r.failed, `no entry "nobody"`)
}
