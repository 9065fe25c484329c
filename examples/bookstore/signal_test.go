//go:build unix

package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestServerStopsCleanlyOnSignal(t *testing.T) {
	for name, sig := range map[string]os.Signal{"interrupt": os.Interrupt, "terminate": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			program, output := startProgram(t, tmp, "-serve", "127.0.0.1:0")
			url := readURL(t, output)
			assertServes(t, url+mobyDickPath)

			require.NoError(t, program.Process.Signal(sig))

			rest, err := io.ReadAll(output)
			require.NoError(t, err)
			assert.NoError(t, program.Wait(), "exit code")
			assert.Contains(t, string(rest), "stopped")
			left, err := os.ReadDir(tmp)
			require.NoError(t, err)
			assert.Empty(t, left, "a temporary folder was left behind")
		})
	}
}

// startProgram runs this program as a process of its own, with tmp for its
// temporary files. The process is killed at the end of the test if it is still
// there.
func startProgram(t testing.TB, tmp string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	program := exec.CommandContext(t.Context(), self, args...)
	program.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+tmp, "REDIS_URL=")
	program.Stderr = t.Output()
	stdout, err := program.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	return program, bufio.NewReader(stdout)
}

// readURL waits for the line that says where the program serves.
func readURL(t testing.TB, output *bufio.Reader) string {
	t.Helper()
	line, err := output.ReadString('\n')
	require.NoError(t, err)
	url := regexp.MustCompile(`url=(\S+)`).FindStringSubmatch(line)
	require.NotNil(t, url, line)
	return url[1]
}

func assertServes(t testing.TB, url string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	answer, err := client.Get(url)
	require.NoError(t, err)
	defer answer.Body.Close()
	assert.Equal(t, http.StatusOK, answer.StatusCode)
}
