//go:build linux && !race

package readthrough_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// mutant is the library with one rule of the protocol switched off.
type mutant struct {
	name  string
	edits []edit
}

// edit replaces, in one file, what occurs in it exactly once.
type edit struct{ file, old, new string }

var mutants = []mutant{
	{"join rule off: an entry that was found is for those who came after it was asked for, too", []edit{
		{"settle.go", "before = r.sent", "before = flight.Everyone"},
	}},
	{"join rule off: an accepted fill is for those who came after it was sent, too", []edit{
		{"settle.go", "before = r.sent", "if before = r.sent; r.fill.bytes != nil { before = flight.Everyone }"},
		{"internal/flight/flight.go", "f.now++\n\tf.unlist()", "f.now++"}, // else nobody can come then
	}},
	{"join rule off: a refused fill is for those who came during the load, too", []edit{
		{"internal/lease/course.go", "if kept {", "if kept || !failed {"},
	}},
	{"token check off: a fill is accepted whoever holds the lease", []edit{
		{"internal/lease/script.go", "fill = newScript(`\nif redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n", "fill = newScript(`\n"},
	}},
	{"lease deletion off in Invalidate", []edit{
		{"internal/lease/lease.go", `"unlink", key, Key(key)`, `"unlink", key`},
	}},
	{"lease deletion off in Set", []edit{
		{"internal/lease/script.go", "if KEYS[1] ~= KEYS[2] then redis.call('DEL', KEYS[1]) end\n", ""},
	}},
}

// TestCoherenceCheckFindsEachMutant is why TestHistoriesAreCoherent can be
// believed: with any rule of the protocol switched off, it fails.
func TestCoherenceCheckFindsEachMutant(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the tests anew for each mutant")
	}
	redistest.Start(t) // skips, or fails, where there is no Redis
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			began := time.Now()
			binary := m.build(t)
			built := time.Since(began)
			out := runMutant(t, binary)
			_, found, _ := strings.Cut(out, violation)
			found, _, _ = strings.Cut(found, "coherence_") // the next line of the log
			require.NotEmpty(t, found, "no violation was found:\n%s", out)
			t.Logf("built in %s, found in %s%s", built.Round(time.Millisecond), (time.Since(began) - built).Round(time.Millisecond), found)
		})
	}
}

// build builds the test binary with the mutant's edits laid over the sources.
func (m *mutant) build(t *testing.T) string {
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	replace := make(map[string]string)
	for _, e := range m.edits {
		source, err := os.ReadFile(e.file)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(source), e.old), "%q in %s", e.old, e.file)
		mutated := filepath.Join(dir, filepath.Base(e.file))
		require.NoError(t, os.WriteFile(mutated, []byte(strings.Replace(string(source), e.old, e.new, 1)), 0o600))
		replace[filepath.Join(root, e.file)] = mutated
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.test")
	require.NoError(t, os.WriteFile(overlayFile, overlay, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlayFile, "-ldflags", "-s -w", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// runMutant runs the check until it fails, or has run its histories, and returns what it said.
func runMutant(t *testing.T, binary string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary,
		"-test.run=^TestHistoriesAreCoherent$", "-test.v", "-test.timeout=3m", "-coherence.histories=1000")
	cmd.Dir = t.TempDir()
	out, _ := cmd.CombinedOutput() // that it fails is not enough: it must say why
	return string(out)
}
