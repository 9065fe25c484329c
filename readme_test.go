package readthrough_test

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

// pagePrelude is what the Go blocks of a page may take for granted.
const pagePrelude = `package page

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

var (
	_ = errors.Is
	_ = fmt.Sprint
	_ = slog.New
	_ = strconv.Itoa
	_ = json.NewEncoder
	_ http.Handler
	_ = sql.ErrNoRows
	_ = gob.NewEncoder
	_ = bytes.NewReader
	_ = miniredis.Run
	_ = readthroughtest.New
	_ = redis.Nil
	_ = time.Now
	_ testing.TB
	ctx context.Context
	err error
	repo Repo
	cache *readthrough.Cache
	users *readthrough.ReadThrough[int64, User]
)

type User struct{ ID int64; Name string }
type Price struct{ Cents int; Until time.Time }
type Repo struct{}

func (Repo) FindUser(context.Context, int64) (User, error) { return User{}, nil }
func (Repo) FindUsers(context.Context, []int64) (map[int64]User, error) { return nil, nil }
func (Repo) SaveUser(context.Context, User) error { return nil }
func (Repo) FindPrice(context.Context, string, string) (Price, error) { return Price{}, nil }
`

// pages lists the files whose Go blocks are compiled.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, docs)
	return append([]string{"README.md", "CONTRIBUTING.md"}, docs...)
}

// goBlocks returns the Go blocks of a page.
func goBlocks(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, match[1])
	}
	return blocks
}

// isProgram reports whether a block is a whole program, which takes nothing for granted.
func isProgram(block string) bool { return strings.HasPrefix(block, "package main\n") }

// pageSource makes one Go file of the blocks of a page that are no whole programs: declarations as
// they are, statements in a function each.
func pageSource(blocks []string) string {
	source := pagePrelude
	for i, block := range blocks {
		switch {
		case isProgram(block):
		case strings.HasPrefix(block, "func ") || strings.HasPrefix(block, "type "):
			source += block
		default:
			source += fmt.Sprintf("func block%d() {\n%s}\n", i, block)
		}
	}
	return source
}

// TestPages_GoBlocksCompile builds every Go block of the README and of docs.
func TestPages_GoBlocksCompile(t *testing.T) {
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	replace := make(map[string]string)
	var packages []string
	add := func(name, source string) {
		file := filepath.Join(dir, name+".go")
		require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
		replace[filepath.Join(root, "internal", "pages", name, name+".go")] = file
		packages = append(packages, "./internal/pages/"+name)
	}
	for _, page := range pages(t) {
		name := strings.ToLower(strings.TrimSuffix(filepath.Base(page), ".md"))
		blocks := goBlocks(t, page)
		if len(blocks) > 0 {
			add(name, pageSource(blocks))
		}
		for i, block := range blocks {
			if isProgram(block) {
				add(fmt.Sprintf("%s_program%d", name, i), block)
			}
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	overlayFile := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(overlayFile, overlay, 0o600))
	// Without -o, which would leave out all but programs, and of several packages go keeps nothing.
	args := append([]string{"build", "-overlay", overlayFile}, packages...)
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestReadme_BeginsWithAWholeProgram holds that what a newcomer copies first compiles alone.
func TestReadme_BeginsWithAWholeProgram(t *testing.T) {
	blocks := goBlocks(t, "README.md")
	require.NotEmpty(t, blocks)
	require.True(t, isProgram(blocks[0]), "%s", blocks[0])
}
