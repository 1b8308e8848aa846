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
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/progress"
)

// TestMain runs the quickstart itself when a test started this program as one.
func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

const asProcess = "QUICKSTART_AS_PROCESS"

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
	require.NoError(t, run(t.Context(), &out, "127.0.0.1:0", dir, "", true))

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

// serve runs the service until the function that it returns is called, and returns its host.
func serve(t *testing.T, dir string) (host string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, in, "127.0.0.1:0", dir, "", false)
		in.Close()
		done <- err
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		if m := regexp.MustCompile(`wscat -c ws://(\S+)/ws`).FindStringSubmatch(lines.Text()); m != nil {
			host = m[1]
		}
	}
	go io.Copy(io.Discard, out)
	return host, func() error {
		cancel()
		return <-done
	}
}

func TestItServesUntilItIsStopped(t *testing.T) {
	host, stop := serve(t, directory(t))
	c, err := client.New("ws://" + host + "/ws")
	require.NoError(t, err)
	defer c.Close()
	waiting, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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
	require.NoError(t, stop())
}

func TestEachDirectoryIsAPartialOutput(t *testing.T) {
	h := &Inventory{files: os.DirFS(directory(t))}
	var seen progress.Recorder
	result, err := h.ProcessWithProgress(seen.Context(t.Context()), &streamer.Request{ID: "r1", Payload: []byte(`{"dir":"."}`)}, &seen)
	require.NoError(t, err)
	require.Equal(t, 3, result.Data.(Totals).Files)

	var got []Directory
	for _, data := range seen.Outputs() {
		var d Directory
		require.NoError(t, json.Unmarshal(data, &d))
		got = append(got, d)
	}
	require.Equal(t, []Directory{{Dir: ".", Files: 2, Lines: 2}, {Dir: "sub", Files: 1, Lines: 1}}, got)
}

func TestTheWorkTakesAsLongAsItIsAskedTo(t *testing.T) {
	dir := directory(t)
	synctest.Test(t, func(t *testing.T) {
		h := &Inventory{files: os.DirFS(dir)}
		start := time.Now()
		_, err := h.ProcessWithProgress(new(progress.Recorder).Context(t.Context()), &streamer.Request{ID: "r1", Payload: []byte(`{"dir":".","seconds":15}`)}, progress.Discard)
		require.NoError(t, err)
		require.Equal(t, 15*time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		start = time.Now()
		_, err = h.ProcessWithProgress(new(progress.Recorder).Context(ctx), &streamer.Request{ID: "r1", Payload: []byte(`{"dir":".","seconds":15}`)}, progress.Discard)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 7*time.Second, time.Since(start))
	})
}

func TestThePageAndItsFilesAreServed(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"/": "text/html", "/style.css": "text/css", "/icon.svg": "image/svg+xml",
		"/app.js": "text/javascript", "/viewer.js": "text/javascript", "/line.js": "text/javascript", "/streamer.js": "text/javascript",
	}
	for path, mime := range files {
		w := httptest.NewRecorder()
		page().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		require.Equal(t, 200, w.Code, path)
		require.Contains(t, w.Header().Get("Content-Type"), mime, path)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"), path)
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'", path)
		require.NotEmpty(t, w.Body.String(), path)

		again := httptest.NewRequest("GET", path, nil)
		again.Header.Set("If-None-Match", w.Header().Get("ETag"))
		w = httptest.NewRecorder()
		page().ServeHTTP(w, again)
		require.Equal(t, 304, w.Code, path)
	}
	for _, path := range []string{"/none", "/web", "/../page.go", "//app.js", "/app.js/"} {
		w := httptest.NewRecorder()
		page().ServeHTTP(w, httptest.NewRequest("GET", "http://host"+path, nil))
		require.Equal(t, 404, w.Code, path)
	}
	w := httptest.NewRecorder()
	page().ServeHTTP(w, httptest.NewRequest("POST", "/", nil))
	require.Equal(t, 405, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
}

// The policy allows neither, and a page that has some would silently lack it.
func TestThePageHasNoInlineScriptOrStyle(t *testing.T) {
	t.Parallel()
	html, err := web.ReadFile("web/index.html")
	require.NoError(t, err)
	require.NotRegexp(t, `(?i)<style|\sstyle=|\son[a-z]+=|javascript:|<script[^>]*>[^<]`, string(html))
}

func TestTheSameRequestIsThereOverHTTP(t *testing.T) {
	host, stop := serve(t, directory(t))
	ask, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+host+"/requests", strings.NewReader(`{"action":"inventory","id":"r1","payload":{"dir":"."}}`))
	require.NoError(t, err)
	ask.Header.Set("Content-Type", "application/json")
	ask.Header.Set("Prefer", "wait=10")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(ask)
	require.NoError(t, err)
	defer answer.Body.Close()
	var end struct {
		Type   string
		Result Totals
	}
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&end))
	require.Equal(t, 200, answer.StatusCode)
	require.Equal(t, "complete", end.Type)
	require.Equal(t, 3, end.Result.Files)
	require.NoError(t, stop())
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
