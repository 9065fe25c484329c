//go:build linux && !race

package coherence

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// mutation switches a rule of the protocol off, or a part of one: in a file of the library, the old
// text, which occurs in it exactly once, becomes the new one. Either is Go statements, or lines of
// a Lua script. Mutations of the same mutant are switched together.
type mutation struct {
	mutant   string
	language language
	file     string // from the root of the module
	old, new string
}

type language int

const (
	inGo language = iota
	inLua
)

var mutations = []mutation{
	{"join rule off: an entry that was found is for those who came after it was asked for, too", inGo,
		"internal/lease/protocol.go", "return sent", "if began == 0 { return 127 }\nreturn sent"}, // later than any mark of a flight

	{"join rule off: an accepted fill is for those who came after it was sent, too", inGo,
		"internal/lease/protocol.go", "return sent", "if began > 0 { return 127 }\nreturn sent"},
	{"join rule off: an accepted fill is for those who came after it was sent, too", inGo,
		"internal/flight/flight.go", "f.now++\n\tf.unlist()", "f.now++"}, // else nobody can come then

	{"join rule off: a refused fill is for those who came during the load, too", inGo,
		"internal/lease/protocol.go", "p.Audience = BeforeLoad\n\tif kept {\n\t\tp.Audience = BeforeSend\n\t}",
		"p.Audience = BeforeLoad\n\tif kept || !failed {\n\t\tp.Audience = BeforeSend\n\t}"},

	{"join rule off: who came during the load is answered before the fill is, too", inGo,
		"internal/fill/finish.go", "r.flight.Answer(results[i], lease.SharedBefore(lease.BeforeLoad, r.began, r.sent))",
		"r.flight.Answer(results[i], lease.SharedBefore(lease.BeforeSend, r.began, r.sent))"},
	{"join rule off: who came during the load is answered before the fill is, too", inGo,
		"internal/fill/lease.go", "r.asked = took", "r.asked = 1 << 62"}, // so that nobody waits for the fill

	{"token check off: a fill is accepted whoever holds the lease", inLua,
		"internal/lease/script.go", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end -- the lease is lost", ""},

	{"lease deletion off in writes", inGo,
		"internal/lease/lease.go", "if !Protects(keys[i]) {\n\t\t\treturn change(i, again)\n\t\t}", "return change(i, again)"},

	// Of the rules of the local tier, those whose violation is found within seconds. The model in
	// internal/local finds them all.
	{"local: a fence waits for nobody", inGo, "internal/local/protocol.go",
		"return acknowledged && !f.young || now >= f.until", "return true"},
	{"local: a late member is removed at once", inLua, "internal/local/script.go",
		"redis.call('ZADD', t, redis.call('ZSCORE', t, m), '!' .. m)", ""},
}

// mutantEnv names the mutant that a mutated binary is. It is none of them without.
const mutantEnv = "READTHROUGH_TEST_MUTANT"

// TestHistories_ExposeEachMutant is why TestHistories_AreCoherent can be believed: with any rule of
// the protocol switched off, it fails. All mutants are one binary, so that it is built once.
func TestHistories_ExposeEachMutant(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the tests anew")
	}
	t.Parallel()
	redistest.Start(t) // skips, or fails, where there is no Redis
	binary := buildMutants(t)
	t.Run("no rule off", func(t *testing.T) {
		out, err := runMutant(t, binary, "", len(mixes))
		require.NoError(t, err, "the mutations do harm even where they are switched off:\n%s", out)
	})
	done := make(map[string]bool)
	for _, m := range mutations {
		if done[m.mutant] {
			continue
		}
		done[m.mutant] = true
		t.Run(m.mutant, func(t *testing.T) {
			began := time.Now()
			out, _ := runMutant(t, binary, m.mutant, 1000) // that it fails is not enough: it must say why
			_, found, _ := strings.Cut(out, violation)
			require.NotEmpty(t, found, "no violation was found:\n%s", out)
			found, _, _ = strings.Cut(found, "\n    history_test.go") // the next line of the log
			t.Logf("found in %s%s", time.Since(began).Round(time.Millisecond), found)
		})
	}
}

// runMutant runs the check until it fails, or has run so many histories, and returns what it said.
func runMutant(t *testing.T, binary, mutant string, histories int) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestHistories_AreCoherent$", "-test.v", "-test.timeout=3m",
		fmt.Sprint("-coherence.histories=", histories), "-coherence.mix="+mixOfMutant(mutant))
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), mutantEnv+"="+mutant)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mixOfMutant returns the mixes that can find a mutant, if not all can.
func mixOfMutant(mutant string) string {
	if mix, _, ofMix := strings.Cut(mutant, ": "); ofMix && mix == "local" {
		return mix
	}
	return ""
}

// buildMutants builds this test binary with all mutations laid over the sources, each behind a
// switch.
func buildMutants(t *testing.T) string {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := t.TempDir()
	replace := make(map[string]string)
	lay := func(file, source string) {
		laid := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		require.NoError(t, os.WriteFile(laid, []byte(source), 0o600))
		replace[filepath.Join(root, file)] = laid
	}
	for file, texts := range mutationsByText() {
		source, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		mutated := string(source)
		for old, alternatives := range texts {
			require.Equal(t, 1, strings.Count(string(source), old), "%q in %s", old, file)
			mutated = strings.Replace(mutated, old, switchOf(old, alternatives), 1)
		}
		lay(file, mutated)
		lay(filepath.Join(filepath.Dir(file), "mutant.go"), switchSource(t, mutated))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutants.test")
	require.NoError(t, os.WriteFile(overlayFile, overlay, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlayFile, "-ldflags", "-s -w", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// mutationsByText returns the mutations of each old text in each file.
func mutationsByText() map[string]map[string][]mutation {
	files := make(map[string]map[string][]mutation)
	for _, m := range mutations {
		if files[m.file] == nil {
			files[m.file] = make(map[string][]mutation)
		}
		files[m.file][m.old] = append(files[m.file][m.old], m)
	}
	return files
}

// switchOf returns source that does what old does, unless the binary is one of the mutants.
func switchOf(old string, alternatives []mutation) string {
	if alternatives[0].language == inLua { // within a string in backquotes
		cases := ""
		for _, m := range alternatives {
			cases += fmt.Sprintf("%q: `%s`, ", m.mutant, m.new)
		}
		return fmt.Sprintf("` + mutated(`%s`, map[string]string{%s}) + `", old, cases)
	}
	cases := ""
	for _, m := range alternatives {
		cases += fmt.Sprintf("case %q:\n%s\n", m.mutant, m.new)
	}
	return fmt.Sprintf("switch mutant {\n%sdefault:\n%s\n}", cases, old)
}

// switchSource returns a file for the package of source that says which mutant the binary is.
func switchSource(t *testing.T, source string) string {
	clause := regexp.MustCompile(`(?m)^package \w+$`).FindString(source)
	require.NotEmpty(t, clause)
	return clause + fmt.Sprintf(`
import "os"

var mutant = os.Getenv(%q)

func mutated(old string, alternatives map[string]string) string {
	if text, ok := alternatives[mutant]; ok {
		return text
	}
	return old
}
`, mutantEnv)
}
