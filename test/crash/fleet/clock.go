package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// shiftVariable has a program whose clock can be shifted add so many seconds to the time of day.
const shiftVariable = "STREAMER_TEST_CLOCK_SHIFT"

// ShiftClock returns what is to be in the environment of a program that was built by
// BuildShiftable, so that its clock is ahead by d, in whole seconds.
func ShiftClock(d time.Duration) string {
	return fmt.Sprintf("%s=%d", shiftVariable, int64(d/time.Second))
}

// BuildShiftable is Build for programs whose clocks can be shifted: they are linked with a
// package time whose Now adds the shift to the time of day, and leaves alone what tells how much
// time has passed. Nothing else is compiled anew, so nothing that others see of the package may
// change, not even where the lines of its source are; else the linker refuses it.
func BuildShiftable(ctx context.Context, dir string) error {
	work := filepath.Join(dir, "clock")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	shifted, err := compileTime(ctx, work)
	if err != nil {
		return fmt.Errorf("fleet: change package time: %w", err)
	}
	for _, program := range programs {
		archives, err := goTool(ctx, "list", "-export", "-deps", "-f", "{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}", program)
		if err != nil {
			return err
		}
		main := regexp.MustCompile(`(?m)^packagefile ` + regexp.QuoteMeta(program) + `=(.*)$`).FindStringSubmatch(archives)
		if main == nil {
			return fmt.Errorf("fleet: go list does not say where the archive of %s is", program)
		}
		config := filepath.Join(work, "importcfg")
		text := regexp.MustCompile(`(?m)^packagefile time=.*$`).ReplaceAllLiteralString(archives, "packagefile time="+shifted)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return err
		}
		if _, err := goTool(ctx, "tool", "link", "-importcfg", config, "-o", filepath.Join(dir, programName(program)), main[1]); err != nil {
			return err
		}
	}
	return nil
}

// programName returns what go build calls a program.
func programName(program string) string {
	return path.Base(regexp.MustCompile(`/v\d+$`).ReplaceAllString(program, ""))
}

// edits are made to the source of package time, each to a line that it has once.
var edits = []struct{ line, changed string }{
	{"\t\"math/bits\"\n", "\t\"math/bits\"; \"syscall\"\n"},
	{"\tsec, nsec, mono := runtimeNow()\n", "\tsec, nsec, mono := runtimeNow(); " +
		`if text, ok := syscall.Getenv("` + shiftVariable + `"); ok { n, sign := int64(0), int64(1); ` +
		`for i := 0; i < len(text); i++ { if text[i] == '-' { sign = -1 } else { n = 10*n + int64(text[i]-'0') } }; sec += sign * n }` + "\n"},
}

// compileTime returns the archive of the changed package time.
func compileTime(ctx context.Context, work string) (string, error) {
	root, err := goTool(ctx, "env", "GOROOT")
	if err != nil {
		return "", err
	}
	original := filepath.Join(root, "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	for _, e := range edits {
		if n := bytes.Count(source, []byte(e.line)); n != 1 {
			return "", fmt.Errorf("%s has the line %q %d times, where 1 was expected: see how this version of Go reads the clock", original, e.line, n)
		}
		source = bytes.Replace(source, []byte(e.line), []byte(e.changed), 1)
	}
	changed, overlay := filepath.Join(work, "time.go"), filepath.Join(work, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return "", err
	}
	for name, data := range map[string][]byte{changed: source, overlay: replace} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return "", err
		}
	}
	// The compiler calls its own files $GOROOT, and this is to pass for one of them.
	return goTool(ctx, "list", "-export", "-overlay", overlay, "-gcflags=time=-trimpath="+work+"=>$GOROOT/src/time", "-f", "{{.Export}}", "time")
}

// goTool runs a go command, and returns what it prints.
func goTool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("fleet: go %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}
