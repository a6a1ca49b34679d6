// Package lint is Quartet's house rules as a test: what a compiler does not
// see and a reviewer should not have to. The rules are few, each has its
// reason beside it, and none is about taste.
package lint

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Limits of the rules.
const (
	fileLinesMax    = 800 // a longer file hides a seam
	docLinesMin     = 15  // of a core package's comment
	modulePrefix    = "github.com/quartet-kv/quartet/"
	generatedMarker = "DO NOT EDIT."
)

// edges says which of our modules each may import: imports run to the left, and
// only deploy knows daemons.
var edges = map[string][]string{
	"proto":      {},
	"services":   {"proto"},
	"consensusd": {"proto", "services"},
	"stored":     {"proto", "services"},
	"leased":     {"proto", "services"},
	"gatewayd":   {"proto", "services"},
	"deploy":     {"proto", "services", "consensusd", "stored", "leased", "gatewayd"},
}

// core packages are those whose comment must explain promise, stages,
// invariants and ownership.
var core = []string{
	"services/inproc", "services/session", "services/bus", "services/consensus", "services/store", "services/lease", "services/keyspace",
	"consensusd/internal/node", "consensusd/internal/raftlog",
	"stored/internal/engine", "stored/internal/apply",
	"leased/internal/lessor", "gatewayd/internal/watch",
}

// bannedNames say nothing about what a folder or file holds.
var bannedNames = regexp.MustCompile(`^(common|utils?|helpers?|impl|managers?|misc|entity|entities)(_test)?(\.go)?$`)

// todo must name an owner, so that somebody can be asked.
var todo = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
var ownedTodo = regexp.MustCompile(`\bTODO\([a-z0-9-]+\):`)

// Check returns every violation of the house rules in the tree at root.
func Check(root string) ([]string, error) {
	t := tree{root: root, packages: make(map[string]*pkg)}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name != "." && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "quartet-data") {
				return filepath.SkipDir
			}
			if bannedNames.MatchString(d.Name()) {
				t.report(path, "folder name says nothing; name it after what it holds")
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		return t.file(path)
	})
	t.packageRules()
	return t.violations, err
}

type tree struct {
	root       string
	packages   map[string]*pkg // by folder
	violations []string
}

type pkg struct {
	commented bool
	docLines  int
	sources   int
}

func (t *tree) rel(path string) string {
	rel, err := filepath.Rel(t.root, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}

func (t *tree) report(path, format string, args ...any) {
	t.violations = append(t.violations, t.rel(path)+": "+fmt.Sprintf(format, args...))
}

func (t *tree) file(path string) error {
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.ParseComments)
	if err != nil {
		return err
	}
	t.imports(path, f)
	dir := t.rel(filepath.Dir(path))
	p := t.packages[dir]
	if p == nil {
		p = &pkg{}
		t.packages[dir] = p
	}
	test := strings.HasSuffix(path, "_test.go")
	if !test {
		p.sources++
		if f.Doc != nil {
			p.commented = true
			p.docLines += strings.Count(f.Doc.Text(), "\n")
		}
	}
	if bytes.Contains(src, []byte(generatedMarker)) && ast.IsGenerated(f) {
		p.commented = true
		return nil
	}
	if bannedNames.MatchString(filepath.Base(path)) {
		t.report(path, "file name says nothing; name it after what it holds")
	}
	if n := bytes.Count(src, []byte("\n")); n > fileLinesMax {
		t.report(path, "%d lines, more than %d: find the seam", n, fileLinesMax)
	}
	t.functions(path, f)
	t.lines(path, src)
	return nil
}

// imports holds the edges between modules, and test-only packages out of
// daemons.
func (t *tree) imports(path string, f *ast.File) {
	module, _, _ := strings.Cut(t.rel(path), "/")
	allowed, ok := edges[module]
	if !ok {
		return
	}
	for _, spec := range f.Imports {
		target, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), modulePrefix)
		if !ours {
			continue
		}
		other, _, _ := strings.Cut(target, "/")
		if other == module {
			continue
		}
		found := false
		for _, a := range allowed {
			found = found || a == other
		}
		if !found {
			t.report(path, "%s may not import %s (imports run proto ← services ← daemons ← deploy)", module, other)
		}
	}
}

// functions: init hides order and dependencies.
func (t *tree) functions(path string, f *ast.File) {
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			t.report(path, "init function; pass what it sets to a constructor")
		}
	}
}

func (t *tree) lines(path string, src []byte) {
	if t.rel(path) == "services/lint/lint.go" {
		return
	}
	scanner := bufio.NewScanner(bytes.NewReader(src))
	scanner.Buffer(nil, 1<<20)
	for n := 1; scanner.Scan(); n++ {
		line := scanner.Text()
		if todo.MatchString(line) && !ownedTodo.MatchString(line) {
			t.report(path, "line %d: a TODO needs an owner: TODO(name): …", n)
		}
	}
}

func (t *tree) packageRules() {
	for dir, p := range t.packages {
		if p.sources > 0 && !p.commented {
			t.report(filepath.Join(t.root, dir), "no package comment")
		}
	}
	for _, dir := range core {
		if p := t.packages[dir]; p != nil && p.docLines < docLinesMin {
			t.report(filepath.Join(t.root, dir), "package comment has %d lines; a core package explains promise, stages, invariants and ownership in at least %d", p.docLines, docLinesMin)
		} else if p == nil {
			t.report(filepath.Join(t.root, dir), "core package is missing; keep the list in services/lint true")
		}
	}
}
