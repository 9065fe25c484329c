package outbox

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPage_ShowsCodeOfExamples holds that the code on the page is that of examples, which compile.
func TestPage_ShowsCodeOfExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/outbox.md")
	require.NoError(t, err)
	var examples strings.Builder
	for _, name := range []string{"example_test.go", "notify_example_test.go", "pgxoutbox/example_test.go"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		examples.Write(text)
	}
	blocks := regexp.MustCompile("(?s)```golang\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		assert.Contains(t, examples.String(), block[1])
	}
}
