// Package wiretest reads the golden conversations of the wire protocol, for the tests of all
// that speak it.
//
// A conversation is a file of lines. "# " starts a comment, "> " is a message from client to
// server, "< " one from server to client, as they are encoded; with ">+ " or "<+ " it goes into
// the frame of the line before. What differs from run to run is written as a placeholder:
// ${epoch} and ${epoch2} (of a second request), ${session}, ${id} (of a request that the server
// names), ${time}, and ${ms} for a duration.
package wiretest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Conversation is one golden file.
type Conversation struct {
	Name  string // of the file, without extension
	Path  string
	Lines []Line
}

// Line is a message, or a comment or empty line, of a conversation.
type Line struct {
	From   Side
	Joined bool // in the frame of the line before
	Text   string
}

// Side says who sends a message. The zero value is no message.
type Side byte

// The sides of a conversation.
const (
	Client Side = '>'
	Server Side = '<'
)

// Messages returns the lines that are messages, in order.
func (c Conversation) Messages() []Line {
	return slices.DeleteFunc(slices.Clone(c.Lines), func(l Line) bool { return l.From == 0 })
}

// Load returns all conversations, by name.
func Load(t testing.TB) map[string]Conversation {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(directory(t), "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden conversations: %v", err)
	}
	all := make(map[string]Conversation)
	for _, path := range paths {
		c, err := read(path)
		if err != nil {
			t.Fatal(err)
		}
		all[c.Name] = c
	}
	return all
}

// directory looks for the golden files from the test's folder upwards.
func directory(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		golden := filepath.Join(dir, "internal", "wire", "testdata", "golden")
		if _, err := os.Stat(golden); err == nil {
			return golden
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		t.Fatal("internal/wire/testdata/golden is in no folder above the test's")
	}
}

func read(path string) (Conversation, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Conversation{}, err
	}
	c := Conversation{Name: strings.TrimSuffix(filepath.Base(path), ".txt"), Path: path}
	for i, text := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		mark, message, _ := strings.Cut(text, " ")
		switch mark {
		case "", "#":
			c.Lines = append(c.Lines, Line{Text: text})
		case ">", "<", ">+", "<+":
			c.Lines = append(c.Lines, Line{Side(mark[0]), len(mark) > 1, message})
		default:
			return c, fmt.Errorf("%s:%d: a line can't start with %q", path, i+1, mark)
		}
	}
	return c, nil
}

// Write stores the conversation in its file.
func (c Conversation) Write() error {
	var b strings.Builder
	for _, l := range c.Lines {
		if l.From != 0 {
			b.WriteByte(byte(l.From))
			if l.Joined {
				b.WriteByte('+')
			}
			b.WriteByte(' ')
		}
		b.WriteString(l.Text + "\n")
	}
	return os.WriteFile(c.Path, []byte(b.String()), 0o644)
}

// Values are what placeholders stand for in one run.
type Values map[string]string

// Samples are values that make every message valid.
func Samples() Values {
	return Values{
		"epoch":   "k3f9",
		"epoch2":  "m7q1",
		"session": "s7f3k",
		"id":      "0198c0de-0000-7000-8000-000000000001",
		"time":    "2026-01-02T03:04:05.678Z",
		"ms":      "1834",
	}
}

// Expand returns the line's message with values in the place of placeholders.
func (l Line) Expand(values Values) string {
	text := l.Text
	for name, value := range values {
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	return text
}

// Contract is the reverse of Expand.
func Contract(message string, values Values) string {
	for name, value := range values {
		message = strings.ReplaceAll(message, value, "${"+name+"}")
	}
	return message
}

// Match returns an error that shows both when message is not what the line says. Names that it
// finds (epochs, session, id) are added to values, so that all later lines must have the same.
func (l Line) Match(message string, values Values) error {
	const name, duration, instant = `[A-Za-z0-9._~-]+`, `\d+`, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`
	named := []string{"epoch", "epoch2", "session", "id"}

	want := l.Expand(values)
	expr := regexp.QuoteMeta(want)
	allow := func(placeholder, pattern string) {
		expr = strings.ReplaceAll(expr, regexp.QuoteMeta("${"+placeholder+"}"), pattern)
	}
	allow("time", instant)
	allow("ms", duration)
	for _, n := range named {
		allow(n, "(?P<"+n+">"+name+")")
	}
	re, err := regexp.Compile("^" + expr + "$")
	if err != nil {
		return err
	}
	found := re.FindStringSubmatch(message)
	if found == nil {
		return fmt.Errorf("message differs\n want %s\n got  %s", want, message)
	}
	for _, n := range named {
		if i := re.SubexpIndex(n); i >= 0 {
			values[n] = found[i]
		}
	}
	return nil
}
