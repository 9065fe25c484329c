package migrate_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// page is the page that shows this service.
const page = "../../docs/migrating.md"

// blocks returns the blocks of the page in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	var found []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		found = append(found, match[1])
	}
	require.NotEmpty(t, found)
	return found
}

// TestPage_ShowsTheReleases holds the diffs of the page to the files.
func TestPage_ShowsTheReleases(t *testing.T) {
	t.Parallel()
	diff, err := exec.LookPath("diff")
	if err != nil {
		t.Skip(err)
	}
	shown := blocks(t, "diff")
	require.Len(t, shown, 2)
	for _, block := range shown {
		names := regexp.MustCompile(`(?m)^(?:---|\+\+\+) (\w+/users\.go)$`).FindAllStringSubmatch(block, -1)
		require.Len(t, names, 2)
		from, to := names[0][1], names[1][1]
		out, _ := exec.CommandContext(t.Context(), diff, "-U1", "--label", from, "--label", to, from, to).Output() // 1: they differ
		require.Equal(t, string(out), block)
	}
}

// prelude is what the blocks may take for granted.
const prelude = `package page

import (
	"context"
	"encoding/json"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/examples/migrate/store"
	"github.com/readthrough-go/readthrough/migrate/goredis"
)

type User = store.User

var (
	_ singleflight.Group
	_ = json.Marshal
	_ = time.Now
	_ context.Context
	_ = readthrough.Int[int]
	client redis.UniversalClient
	repo *store.Repo
	_ = goredis.Codec
)

func oldKey(int64) string { return "" }

`

// TestPage_BlocksCompile builds the blocks that need more than the library's own module.
func TestPage_BlocksCompile(t *testing.T) {
	t.Parallel()
	source := prelude
	for i, block := range blocks(t, "go examples") {
		if strings.HasPrefix(block, "func ") || strings.HasPrefix(block, "type ") {
			source += block
		} else {
			source += fmt.Sprintf("func block%d() {\n%s}\n", i, block)
		}
	}
	dir := t.TempDir()
	here, err := os.Getwd()
	require.NoError(t, err)
	file, overlay := filepath.Join(dir, "page.go"), filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "page", "page.go"): file}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, replace, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "./page").CombinedOutput()
	require.NoError(t, err, "%s", out)
}
