package lint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quartet-kv/quartet/services/lint"
)

func TestHouseRules(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	violations, err := lint.Check(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

func TestEachRuleCatchesItsViolation(t *testing.T) {
	for name, c := range map[string]struct{ path, source, want string }{
		"edge":    {"leased/a.go", "// Package a is one.\npackage a\nimport _ \"github.com/quartet-kv/quartet/stored\"\n", "may not import stored"},
		"comment": {"stored/a.go", "package a\n", "no package comment"},
		"length":  {"stored/a.go", "// Package a is one.\npackage a\n" + strings.Repeat("\n", 801), "find the seam"},
		"file":    {"stored/util.go", "// Package a is one.\npackage a\n", "file name says nothing"},
		"folder":  {"stored/helpers/a.go", "// Package a is one.\npackage a\n", "folder name says nothing"},
		"init":    {"stored/a.go", "// Package a is one.\npackage a\nfunc init() {}\n", "init function"},
		"todo":    {"stored/a.go", "// Package a is one.\npackage a\n// TO" + "DO later\n", "needs an owner"},
		"core":    {"services/session/a.go", "// Package session is one.\npackage session\n", "package comment has 1 lines"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, c.path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.source), 0o644); err != nil {
				t.Fatal(err)
			}
			violations, err := lint.Check(root)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(violations, "\n"), c.want) {
				t.Errorf("want a violation with %q, got %q", c.want, violations)
			}
		})
	}
}
