//go:build linux && !race

package coherence

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

// TestStress_ExposesMutants is why the stress can be believed. The two mutants that are missing here take it longer:
// up to some 100,000 reads.
func TestStress_ExposesMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the tests anew")
	}
	t.Parallel()
	redistest.Start(t) // skips, or fails, where there is no Redis
	binary := buildMutants(t)
	for _, m := range mutations {
		if strings.Contains(m.mutant, "for those who came after") || mixOfMutant(m.mutant) != "" {
			continue
		}
		t.Run(m.mutant, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, "-test.run=^TestStress_NoRead", "-stress.reads=400000", "-stress.limit=50s")
			cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), mutantEnv+"="+m.mutant)
			out, _ := cmd.CombinedOutput() // that it fails is not enough: it must say why
			require.Contains(t, string(out), violation)
		})
	}
}
