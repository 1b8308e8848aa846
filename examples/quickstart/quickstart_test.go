package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directory makes one with three files, one of them in a folder.
func directory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for name, content := range map[string]string{"a.txt": "1\n2\n", "b.txt": "", "sub/c.txt": "one line\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	t.Setenv("TMPDIR", t.TempDir()) // where the CSV goes
	return dir
}

func TestOnceWritesACSVWithALinePerFile(t *testing.T) {
	dir := directory(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, "127.0.0.1:0", dir, true))

	_, result, found := strings.Cut(out.String(), "result: ")
	require.True(t, found, "%s", &out)
	var totals Totals
	require.NoError(t, json.Unmarshal([]byte(result), &totals))
	require.Equal(t, Totals{Files: 3, Lines: 3, Bytes: 13, CSV: totals.CSV}, totals)
	require.True(t, filepath.IsAbs(totals.CSV))
	require.Contains(t, out.String(), "100 %  3 of 3 files")

	f, err := os.Open(totals.CSV)
	require.NoError(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 4)
	require.Equal(t, []string{"a.txt", "4", "2"}, rows[1][:3])
	require.Len(t, rows[1][3], 64)
}

func TestItServesUntilItIsStopped(t *testing.T) {
	dir := directory(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, in, "127.0.0.1:0", dir, false)
		in.Close()
		done <- err
	}()
	var url string
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		if m := regexp.MustCompile(`wscat -c (\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
		}
	}
	go io.Copy(io.Discard, out)

	c, err := client.New(url)
	require.NoError(t, err)
	defer c.Close()
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	totals, err := client.Call[Totals](waiting, c, "inventory", Params{Dir: "sub"})
	require.NoError(t, err)
	require.Equal(t, 1, totals.Files)

	for dir, want := range map[string]string{"../": streamer.ErrCodeValidation, "/etc": streamer.ErrCodeValidation, "none": streamer.ErrCodeNotFound} {
		_, err = c.Request(waiting, "inventory", Params{Dir: dir})
		var e *streamer.Error
		require.True(t, errors.As(err, &e), "%v", err)
		require.Equal(t, want, e.Code, dir)
	}
	require.NoError(t, c.Close())
	stop()
	require.NoError(t, <-done)
}

func TestATakenAddressIsReplacedByAFreeOne(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	other, err := listen(taken.Addr().String())
	require.NoError(t, err)
	defer other.Close()
	require.NotEqual(t, taken.Addr().String(), other.Addr().String())
}

func TestAMissingDirectorySaysWhatToDo(t *testing.T) {
	t.Parallel()
	_, err := open(filepath.Join(t.TempDir(), "nowhere"))
	require.ErrorContains(t, err, "-dir")
}

func TestTheDefaultIsTheStandardLibrary(t *testing.T) {
	t.Parallel()
	root, err := open("")
	require.NoError(t, err)
	defer root.Close()
	_, err = root.Stat("net/http/server.go")
	require.NoError(t, err)
}
