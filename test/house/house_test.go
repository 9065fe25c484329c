// Package house holds the project to its structure: which package may import which, and
// how large a file, a function and a type may be.
package house

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/readthrough-go/readthrough"

// floors are the packages of the root module from the top down: a package imports only
// those of lower floors. What is not named here must be given its place.
var floors = [][]string{
	{"readthroughtest"},
	{"."},
	{"internal/fill", "internal/local"},
	{"internal/drain", "internal/flight", "internal/lease", "internal/mux", "internal/redisurl", "internal/retry", "internal/wire/value"},
	{"internal/lua", "internal/wire/entry", "internal/wire/wellformed", "internal/hook", "encrypt"},
	{"internal/clock"},
}

// forTests are the packages that no product code may import.
var forTests = []string{"internal/redistest"}

// exempt are the types that may have more fields than the others, each with the reason.
var exempt = map[string]string{
	"Stats": "a record of counters, one public name each",
}

const (
	maxFileLines     = 400
	maxFunctionLines = 45
	maxFields        = 12
	maxRootFiles     = 16
)

// source is a parsed file of product code.
type source struct {
	pkg  string // its folder
	name string
	file *ast.File
	set  *token.FileSet
}

// sources returns the product code of the root module.
func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []source
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			nested, _ := filepath.Glob(filepath.Join(p, "go.mod"))
			if rel != "." && (len(nested) > 0 || rel == "test" || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		all = append(all, source{path.Dir(rel), path.Base(rel), file, set})
		return err
	}))
	require.NotEmpty(t, all)
	return all
}

func TestImports_NeverRunUp(t *testing.T) {
	floor := make(map[string]int)
	for i, packages := range floors {
		for _, pkg := range packages {
			floor[pkg] = i
		}
	}
	arrows := make(map[string]bool)
	for _, s := range sources(t) {
		if slices.Contains(forTests, s.pkg) {
			continue
		}
		from, known := floor[s.pkg]
		require.True(t, known, "%s has no floor", s.pkg)
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			if imported != module && !strings.HasPrefix(imported, module+"/") {
				continue
			}
			to := cmp.Or(strings.TrimPrefix(strings.TrimPrefix(imported, module), "/"), ".")
			below, known := floor[to]
			require.True(t, known, "%s/%s imports %s, which is for tests or has no floor", s.pkg, s.name, imported)
			require.Greater(t, below, from, "%s imports %s: an arrow runs up", s.pkg, to)
			arrows[s.pkg+" -> "+to] = true
		}
	}
	require.NotEmpty(t, arrows)
	t.Log("imports:\n" + strings.Join(slices.Sorted(maps.Keys(arrows)), "\n"))
}

func TestFiles_AreShort(t *testing.T) {
	root := 0
	for _, s := range sources(t) {
		if s.pkg == "." {
			root++
		}
		lines := s.set.Position(s.file.FileEnd).Line
		require.LessOrEqual(t, lines, maxFileLines, "%s/%s", s.pkg, s.name)
	}
	require.LessOrEqual(t, root, maxRootFiles, "source files in the root")
}

func TestFunctions_NeedNoScrolling(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
			require.LessOrEqual(t, lines, maxFunctionLines, "%s/%s: %s", s.pkg, s.name, f.Name.Name)
		}
	}
}

func TestTypes_HaveFewFields(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if fields, ok := spec.Type.(*ast.StructType); ok && exempt[spec.Name.Name] == "" {
				require.LessOrEqual(t, fields.Fields.NumFields(), maxFields, "%s/%s: %s", s.pkg, s.name, spec.Name.Name)
			}
			return true
		})
	}
}
