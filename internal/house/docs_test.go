package house

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// document is a Markdown file.
type document struct {
	path  string
	prose string   // without fenced code
	code  []string // what is fenced as Go
}

func documents(t *testing.T) map[string]document {
	t.Helper()
	docs := map[string]document{}
	walk(t, ".md", func(name string, data []byte) {
		d := document{path: name}
		var prose, code strings.Builder
		fence := ""
		for line := range strings.Lines(string(data)) {
			trimmed := strings.TrimSpace(line)
			switch {
			case fence == "" && strings.HasPrefix(trimmed, "```"):
				fence = trimmed
			case fence != "" && trimmed == "```":
				if fence == "```go" {
					d.code = append(d.code, code.String())
				}
				code.Reset()
				fence = ""
			case fence != "":
				code.WriteString(line)
			default:
				prose.WriteString(line)
			}
		}
		require.Empty(t, fence, "%s: a code block has no end", name)
		d.prose = prose.String()
		docs[name] = d
	})
	require.NotEmpty(t, docs)
	return docs
}

var (
	inlineCode = regexp.MustCompile("`[^`]*`")
	link       = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading    = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	testName   = regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z][A-Za-z0-9_]*)`")
	codeRow    = regexp.MustCompile("(?m)^\\| `([A-Z][A-Z0-9_]+)`")
)

func TestLinksInDocumentsResolve(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	for _, d := range docs {
		for _, m := range link.FindAllStringSubmatch(inlineCode.ReplaceAllString(d.prose, ""), -1) {
			target, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %s: %v", d.path, m[1], err)
				continue
			}
			if target.Scheme != "" {
				continue
			}
			to := d.path
			if target.Path != "" {
				to = path.Join(path.Dir(d.path), target.Path)
				if _, err := os.Stat(filepath.Join(repository, to)); err != nil {
					t.Errorf("%s: link %s: there is no %s", d.path, m[1], to)
					continue
				}
			}
			if target.Fragment != "" && !slices.Contains(anchors(docs[to]), target.Fragment) {
				t.Errorf("%s: link %s: %s has no such heading", d.path, m[1], to)
			}
		}
	}
}

// anchors returns the fragments that a document's headings make, by GitHub's rule: lower
// case, letters, digits, hyphens and underscores kept, spaces as hyphens.
func anchors(d document) []string {
	var all []string
	for _, m := range heading.FindAllStringSubmatch(d.prose, -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		n := 0
		for _, a := range all {
			if a == slug || strings.HasPrefix(a, slug+"-") && strings.Trim(a[len(slug)+1:], "0123456789") == "" {
				n++
			}
		}
		if n > 0 {
			slug = fmt.Sprintf("%s-%d", slug, n)
		}
		all = append(all, slug)
	}
	return all
}

func TestGoCodeInDocumentsIsFormatted(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		for _, code := range d.code {
			formatted, err := format.Source([]byte(code))
			if err != nil {
				t.Errorf("%s: %v in:\n%s", d.path, err, code)
			} else if string(formatted) != code {
				t.Errorf("%s: gofmt would write:\n%s", d.path, formatted)
			}
		}
	}
}

// Whole programs in documents are compiled, so that none promises what the library does not
// have. The go tool's overlay puts them into the module without writing there.
func TestProgramsInDocumentsCompile(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(repository)
	require.NoError(t, err)
	overlay := map[string]string{}
	list := filepath.Join(t.TempDir(), "overlay.json")
	args := []string{"build", "-overlay=" + list}
	for _, d := range documents(t) {
		for i, code := range d.code {
			if !strings.HasPrefix(code, "package ") {
				continue
			}
			dir := fmt.Sprintf("internal/house/programs/%s%d", strings.NewReplacer("/", "_", ".", "_").Replace(d.path), i)
			file := filepath.Join(t.TempDir(), "program.go")
			require.NoError(t, os.WriteFile(file, []byte(code), 0o600))
			overlay[filepath.Join(root, dir, "program.go")] = file
			args = append(args, "./"+dir)
		}
	}
	require.NotEmpty(t, overlay, "no document has a program")
	data, err := json.Marshal(map[string]any{"Replace": overlay})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(list, data, 0o600))
	run(t, "go", args...)
}

func TestTestsNamedInDocumentsExist(t *testing.T) {
	t.Parallel()
	_, files := sources(t)
	exist := map[string]bool{}
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && f.test {
				exist[fn.Name.Name] = true
			}
		}
	}
	for _, d := range documents(t) {
		for _, m := range testName.FindAllStringSubmatch(d.prose, -1) {
			if !exist[m[1]] {
				t.Errorf("%s names %s, which does not exist", d.path, m[1])
			}
		}
	}
}

func TestEveryErrorCodeIsExplained(t *testing.T) {
	t.Parallel()
	var explained, codes []string
	for _, m := range codeRow.FindAllStringSubmatch(documents(t)["docs/errors.md"].prose, -1) {
		explained = append(explained, m[1])
	}
	_, files := sources(t)
	for _, f := range files {
		if f.dir != "." || f.test {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "ErrCode") {
				if literal, ok := v.Values[0].(*ast.BasicLit); ok {
					codes = append(codes, unquote(literal.Value))
				}
			}
			return true
		})
	}
	slices.Sort(explained)
	slices.Sort(codes)
	require.NotEmpty(t, codes)
	require.Equal(t, codes, explained, "docs/errors.md must have a row for each code of error.go, once")
}
