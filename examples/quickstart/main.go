// Command quickstart serves one handler that takes a while, calls it, and shows how it goes.
// The handler reads every file of a directory (that of Go's standard library, unless -dir says
// otherwise) and writes a CSV with a line for each.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

// Inventory is the handler. Estimated at a minute, it is queued, and runs while whoever asked
// for it may come and go.
type Inventory struct{ files fs.FS }

type Params struct {
	Dir string `json:"dir"` // within the directory that is served
}

type Totals struct {
	Files int    `json:"files"`
	Lines int    `json:"lines"`
	Bytes int    `json:"bytes"`
	CSV   string `json:"csv"`
}

func (h *Inventory) EstimatedDuration() time.Duration { return time.Minute }

func (h *Inventory) Validate(req *streamer.Request) error {
	var in Params
	if err := json.Unmarshal(req.Payload, &in); err != nil || !fs.ValidPath(in.Dir) {
		return streamer.NewError(streamer.ErrCodeValidation, `want {"dir":"net/http"}: a path without "..", "." for all`)
	}
	if info, err := fs.Stat(h.files, in.Dir); err != nil || !info.IsDir() {
		return streamer.NewError(streamer.ErrCodeNotFound, "there is no directory "+in.Dir)
	}
	return nil
}

func (h *Inventory) ProcessWithProgress(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	var in Params
	if err := json.Unmarshal(req.Payload, &in); err != nil {
		return nil, err
	}
	p.Report(0, "looking for files")
	var names []string
	err := fs.WalkDir(h.files, in.Dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return nil, err
	}
	// The request names the file, so that a second attempt writes the same one anew.
	out, err := os.Create(filepath.Join(os.TempDir(), "inventory-"+req.ID+".csv"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	w := csv.NewWriter(out)
	w.Write([]string{"file", "bytes", "lines", "sha256"})
	totals := Totals{CSV: out.Name()}
	for i, name := range names {
		if err := ctx.Err(); err != nil { // canceled, out of time, or the service shuts down
			return nil, err
		}
		data, err := fs.ReadFile(h.files, name)
		if err != nil {
			return nil, err
		}
		lines := strings.Count(string(data), "\n")
		w.Write([]string{name, strconv.Itoa(len(data)), strconv.Itoa(lines), fmt.Sprintf("%x", sha256.Sum256(data))})
		totals.Files, totals.Bytes, totals.Lines = totals.Files+1, totals.Bytes+len(data), totals.Lines+lines
		p.Report(100*float64(i+1)/float64(len(names)), fmt.Sprintf("%d of %d files", i+1, len(names)))
	}
	w.Flush()
	if err := errors.Join(w.Error(), out.Close()); err != nil {
		return nil, err
	}
	return &streamer.Result{RequestID: req.ID, Success: true, Data: totals}, nil
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to serve; port 0 takes a free one")
	dir := flag.String("dir", "", "directory to read (default: the source of Go's standard library)")
	once := flag.Bool("once", false, "end after the first result")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Stdout, *addr, *dir, *once); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, addr, dir string, once bool) error {
	root, err := open(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	// The service: a router, its handlers, and a transport. All in memory, all in this process.
	router := streamer.NewRouter(streamer.WithLogger(slog.New(slog.DiscardHandler)))
	router.Handle("inventory", &Inventory{files: root.FS()})
	ws := websocket.NewHandler(router)
	mux := http.NewServeMux()
	mux.Handle("/ws", ws)
	listener, err := listen(addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	go router.Run(context.WithoutCancel(ctx))
	url := "ws://" + listener.Addr().String() + "/ws"
	fmt.Fprintf(out, "serving %s at %s\n", root.Name(), url)

	err = call(ctx, out, url)
	if err == nil && !once {
		fmt.Fprintf(out, "\nTry it yourself:\n  npx wscat -c %s\n  > %s\nCtrl-C stops.\n",
			url, `{"action":"inventory","id":"test-123","payload":{"dir":"."}}`)
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		fmt.Fprintln(out, "stopping")
		err = nil
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, router.Shutdown(grace), ws.Shutdown(grace), server.Shutdown(grace))
}

// call is all that a client needs. It would go on across a lost connection, too.
func call(ctx context.Context, out io.Writer, url string) error {
	c, err := client.New(url)
	if err != nil {
		return err
	}
	defer c.Close()
	result, err := c.RequestWithProgress(ctx, "inventory", Params{Dir: "."}, bar(out))
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(result.Data, "", "  ")
	fmt.Fprintf(out, "\nresult: %s\n", data)
	return err
}

// bar returns a function that shows progress: as a bar in a terminal, as lines elsewhere.
func bar(out io.Writer) func(client.Progress) {
	format := "%s\n"
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			format = "\r%-79s"
		}
	}
	return func(p client.Progress) {
		done := strings.Repeat("#", int(p.Percentage*0.4))
		fmt.Fprintf(out, format, fmt.Sprintf("[%-40s] %3.0f %%  %s", done, p.Percentage, p.Message))
	}
}

// open opens the directory to read. Nothing outside of it can be reached.
func open(dir string) (*os.Root, error) {
	if dir == "" {
		goroot, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return nil, fmt.Errorf("can't ask go where its source is: name a directory with -dir (%w)", err)
		}
		dir = filepath.Join(strings.TrimSpace(string(goroot)), "src")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("can't read the directory: name another one with -dir (%w)", err)
	}
	return root, nil
}

// listen takes a free port when the address is taken.
func listen(addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		fmt.Fprintf(os.Stderr, "quickstart: %s is taken, using a free port\n", addr)
		return net.Listen("tcp", "127.0.0.1:0")
	}
	return listener, err
}
