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

const readmePrelude = `package readmecheck

import (
	"context"
	"database/sql"
	"encoding/gob"
	"encoding/json"
	"net/http"
	"bytes"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/readthrough-go/readthrough"
)

var (
	_ = errors.Is
	_ = strconv.Itoa
	_ = json.NewEncoder
	_ http.Handler
	_ = sql.ErrNoRows
	_ = gob.NewEncoder
	_ = bytes.NewReader
	_ = miniredis.Run
	_ = redis.Nil
	_ = time.Now
	_ testing.TB
	ctx context.Context
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

// TestReadmeCompiles builds every Go block of the README.
func TestReadmeCompiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.NotEmpty(t, blocks)
	source := readmePrelude
	for i, block := range blocks {
		if code := block[1]; strings.HasPrefix(code, "func ") || strings.HasPrefix(code, "type ") {
			source += code
		} else {
			source += fmt.Sprintf("func block%d() {\n%s\n_ = err\n}\n", i, code)
		}
	}
	dir := t.TempDir()
	file, overlay := filepath.Join(dir, "blocks.go"), filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	root, err := os.Getwd()
	require.NoError(t, err)
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "internal", "readmecheck", "blocks.go"): file}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, replace, 0o600))
	out, err := exec.Command("go", "build", "-overlay", overlay, "./internal/readmecheck").CombinedOutput()
	require.NoError(t, err, "%s", out)
}
