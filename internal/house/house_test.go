package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module    = "github.com/pay-theory/streamer/v2"
	maxLines  = 450
	rootNames = 52 // the ready middleware and WithTenantConcurrency are worth two more than 50
)

// source is a parsed Go file of the repository.
type source struct {
	path string // relative to the repository, with slashes
	dir  string // of the package: "." is the root
	test bool
	data []byte
	*ast.File
}

// library reports whether users compile the file.
func (s source) library() bool {
	return !s.test && !slices.Contains([]string{"examples", "bench", "test", "cmd"}, top(s.dir))
}

// imports reports whether the file imports pkg.
func (s source) imports(pkg string) bool {
	return slices.ContainsFunc(s.Imports, func(i *ast.ImportSpec) bool { return unquote(i.Path.Value) == pkg })
}

// repository is where the tests find it: the tests of a package run in its folder.
const repository = "../.."

// sources parses all Go files of all modules.
func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	fset := token.NewFileSet()
	var files []source
	walk(t, ".go", func(name string, data []byte) {
		f, err := parser.ParseFile(fset, name, data, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, source{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), data: data, File: f})
	})
	require.NotEmpty(t, files)
	return fset, files
}

// walk calls do for every file with the extension, outside of hidden folders, testdata and
// what others ship.
func walk(t *testing.T, extension string, do func(name string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(repository, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != repository && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != extension {
			return nil
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(repository, p)
		if err != nil {
			return err
		}
		do(filepath.ToSlash(rel), data)
		return nil
	})
	require.NoError(t, err)
}

// allowed says what a package may import beside the standard library: packages of this
// module by folder (a trailing slash means what is below), others by path. A package that is
// not listed may import nothing until it is.
var allowed = map[string][]string{
	".":                   {"progress", "queue", "progress/memlog", "queue/memqueue", "internal/", "github.com/google/uuid"},
	"progress":            {},
	"progress/memlog":     {"progress"},
	"progress/natslog":    {"progress", "github.com/nats-io/nats.go", "github.com/nats-io/nats.go/"},
	"progress/dynamolog":  {"progress", "internal/onepiece", "github.com/aws/aws-sdk-go-v2/", "github.com/aws/smithy-go", "github.com/aws/smithy-go/middleware"},
	"progress/s3blob":     {"github.com/aws/aws-sdk-go-v2/", "github.com/aws/smithy-go"},
	"progress/logtest":    {"progress"},
	"queue":               {},
	"queue/memqueue":      {"queue"},
	"queue/natsqueue":     {"queue", "github.com/nats-io/nats.go", "github.com/nats-io/nats.go/"},
	"queue/sqsqueue":      {"queue", "internal/onepiece", "github.com/aws/aws-sdk-go-v2/", "github.com/aws/smithy-go"},
	"queue/queuetest":     {"queue"},
	"natsembed":           {"github.com/nats-io/nats.go", "github.com/nats-io/nats.go/", "github.com/nats-io/nats-server/"},
	"internal/natstest":   {"github.com/nats-io/nats.go", "github.com/nats-io/nats.go/", "github.com/nats-io/nats-server/"},
	"transport":           {".", "progress", "internal/"},
	"transport/internal/": {".", "progress", "transport", "transport/internal/", "internal/"},
	"transport/sse":       {".", "progress", "transport", "transport/internal/", "internal/", "github.com/google/uuid"},
	"transport/websocket": {".", "progress", "transport", "transport/internal/", "internal/", "github.com/coder/websocket"},
	"client":              {".", "progress", "internal/", "github.com/coder/websocket", "github.com/google/uuid"},
	"internal/":           {"progress", "queue", "internal/"},
}

func TestPackagesImportOnlyWhatTheHouseAllows(t *testing.T) {
	t.Parallel()
	_, files := sources(t)
	for _, f := range files {
		if !f.library() {
			continue
		}
		rules, listed := allowed[f.dir]
		if before, _, ok := strings.Cut(f.dir+"/", "internal/"); ok && !listed {
			rules, listed = allowed[before+"internal/"]
		}
		if !listed {
			t.Errorf("%s: package %s is not listed here: say what it may import", f.path, f.dir)
			continue
		}
		for _, i := range f.Imports {
			target := unquote(i.Path.Value)
			if own, ok := strings.CutPrefix(target, module); ok {
				target = "./" + strings.TrimPrefix(own, "/")
				target = path.Clean(target)
			} else if !strings.Contains(strings.Split(target, "/")[0], ".") {
				continue // the standard library
			}
			if !slices.ContainsFunc(rules, func(rule string) bool {
				return target == rule || strings.HasSuffix(rule, "/") && strings.HasPrefix(target, rule)
			}) {
				t.Errorf("%s: %s may not import %s", f.path, f.dir, target)
			}
		}
	}
}

func TestRootDependsOnNoTransportAndNoVendor(t *testing.T) {
	t.Parallel()
	for _, dep := range strings.Fields(run(t, "go", "list", "-deps", ".")) {
		if own, ok := strings.CutPrefix(dep, module); ok {
			if strings.HasPrefix(own, "/transport") || strings.HasPrefix(own, "/client") {
				t.Errorf("the root depends on %s", dep)
			}
		} else if strings.Contains(strings.Split(dep, "/")[0], ".") && dep != "github.com/google/uuid" {
			t.Errorf("the root depends on %s", dep)
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	t.Parallel()
	_, files := sources(t)
	documented := map[string]bool{}
	for _, f := range files {
		if !f.test {
			documented[f.dir] = documented[f.dir] || f.Doc != nil
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	t.Parallel()
	fset, files := sources(t)
	for _, f := range files {
		if !f.library() {
			continue
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.IsExported() && exportedReceiver(fn) && fn.Doc == nil && !selfEvident(fn.Name.Name) {
				t.Errorf("%s: %s has no comment", fset.Position(fn.Pos()), fn.Name.Name)
			}
			if group, ok := d.(*ast.GenDecl); ok && group.Tok != token.IMPORT {
				for _, spec := range group.Specs {
					for _, name := range undocumented(group, spec) {
						t.Errorf("%s: %s has no comment", fset.Position(name.Pos()), name.Name)
					}
				}
			}
		}
	}
}

// selfEvident reports whether a method does what its name means everywhere.
func selfEvident(name string) bool {
	return slices.Contains([]string{"Error", "Unwrap", "String"}, name)
}

// undocumented returns the exported names of a declaration that no comment speaks of.
func undocumented(group *ast.GenDecl, spec ast.Spec) []*ast.Ident {
	var names []*ast.Ident
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Doc == nil && s.Comment == nil && group.Doc == nil {
			names = append(names, s.Name)
		}
	case *ast.ValueSpec:
		if s.Doc == nil && s.Comment == nil && group.Doc == nil {
			names = s.Names
		}
	}
	return slices.DeleteFunc(names, func(n *ast.Ident) bool { return !n.IsExported() })
}

func TestRootStaysSmall(t *testing.T) {
	t.Parallel()
	_, files := sources(t)
	var names []string
	for _, f := range files {
		if f.dir == "." && f.library() {
			names = append(names, exported(f.File)...)
		}
	}
	// Codes are one idea, listed in one table.
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "ErrCode") })
	if len(names) > rootNames {
		t.Errorf("the root exports %d names besides codes, more than %d: %v", len(names), rootNames, names)
	}
}

// exported returns the file's exported names: types, functions, constants and variables.
func exported(f *ast.File) []string {
	var names []string
	add := func(n *ast.Ident) {
		if n.IsExported() {
			names = append(names, n.Name)
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					add(s.Name)
				case *ast.ValueSpec:
					for _, n := range s.Names {
						add(n)
					}
				}
			}
		}
	}
	return names
}

func TestFilesStayShort(t *testing.T) {
	t.Parallel()
	_, files := sources(t)
	for _, f := range files {
		if n := bytes.Count(f.data, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by concern", f.path, n, maxLines)
		}
	}
}

// banned are calls that code must not make.
var banned = []struct {
	pkg, name string
	where     func(source) bool
	except    map[string]string // files and folders, and why
	why       string
}{
	{"context", "Background", source.library, map[string]string{
		"transport/websocket/handler.go": "connections outlive the request that opened them: this is their root, and Shutdown its end",
	}, "take the caller's context; context.WithoutCancel outlives it"},
	{"context", "TODO", source.library, nil, "take the caller's context"},
	{"os", "Getenv", source.library, nil, "configuration comes by options"},
	{"os", "Exit", source.library, nil, "return an error"},
	{"log", "Fatal", source.library, nil, "return an error"},
	{"time", "Sleep", func(s source) bool { return (s.test || s.library()) && !s.imports("testing/synctest") }, map[string]string{
		"queue/queuetest":  "whether time is real is up to the harness",
		"progress/logtest": "whether time is real is up to the harness",
	}, "wait for what you wait for, or use a synctest bubble"},
}

func TestNoBannedCalls(t *testing.T) {
	t.Parallel()
	fset, files := sources(t)
	for _, f := range files {
		ast.Inspect(f.File, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, b := range banned {
				if pkg.Name == b.pkg && sel.Sel.Name == b.name && f.imports(b.pkg) && b.where(f) && b.except[f.path] == "" && b.except[f.dir] == "" {
					t.Errorf("%s: %s.%s: %s", fset.Position(n.Pos()), b.pkg, b.name, b.why)
				}
			}
			return true
		})
	}
}

func TestNoTestIsSkipped(t *testing.T) {
	t.Parallel()
	fset, files := sources(t)
	for _, f := range files {
		if !f.imports("testing") {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				t.Errorf("%s: a skipped test proves nothing", fset.Position(n.Pos()))
			}
			return true
		})
	}
}

func TestNoInitAndNoMutablePackageVariables(t *testing.T) {
	t.Parallel()
	fset, files := sources(t)
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init", fset.Position(fn.Pos()))
			}
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR || !f.library() {
				continue
			}
			for _, spec := range group.Specs {
				if v := spec.(*ast.ValueSpec); mutable(v) {
					t.Errorf("%s: package variable %s can change: two routers in one process must not meet", fset.Position(v.Pos()), v.Names[0])
				}
			}
		}
	}
}

// mutable reports whether a package variable looks made to be changed: it has no value, or
// one whose zero state is filled later.
func mutable(v *ast.ValueSpec) bool {
	if len(v.Values) == 0 {
		return true
	}
	return slices.ContainsFunc(v.Values, func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.CallExpr:
			f, ok := e.Fun.(*ast.Ident)
			return ok && (f.Name == "make" || f.Name == "new")
		case *ast.CompositeLit:
			return len(e.Elts) == 0 && isMap(e.Type)
		case *ast.UnaryExpr:
			return e.Op == token.AND
		}
		return false
	})
}

func isMap(e ast.Expr) bool {
	_, ok := e.(*ast.MapType)
	return ok
}

func exportedReceiver(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if index, ok := t.(*ast.IndexExpr); ok {
		t = index.X
	}
	name, ok := t.(*ast.Ident)
	return ok && name.IsExported()
}

// run runs a command in the repository and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = repository
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %v: %s", name, args, &stderr)
	return string(out)
}

// top returns the first folder of a path.
func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func unquote(literal string) string {
	s, err := strconv.Unquote(literal)
	if err != nil {
		return literal
	}
	return s
}
