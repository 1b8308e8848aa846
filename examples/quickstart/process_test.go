//go:build unix

package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// process starts the quickstart as a process of its own, and returns the lines it prints.
func process(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"-addr", "127.0.0.1:0", "-once"}, args...)...)
	cmd.Env = append(os.Environ(), asProcess+"=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

func TestARequestThatIsKeptGoesOnAfterTheProcessWasKilled(t *testing.T) {
	dir := directory(t)
	data := t.TempDir()
	cmd, lines := process(t, "-dir", dir, "-data", data)
	for lines.Scan() && !strings.Contains(lines.Text(), "1 of 3 files") {
	}
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())

	cmd, lines = process(t, "-dir", dir, "-data", data)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	require.NoError(t, cmd.Wait(), "%q", said)
	require.Contains(t, strings.Join(said, "\n"), `"files": 3`)

	cmd, lines = process(t, "-dir", dir, "-data", data)
	for lines.Scan() && !strings.Contains(lines.Text(), "result") {
		require.NotContains(t, lines.Text(), "1 of 3 files", "what has ended is not done again")
	}
	for lines.Scan() {
	}
	require.NoError(t, cmd.Wait())
}
