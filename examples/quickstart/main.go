// Command quickstart serves one handler that takes a while, calls it, and shows how it goes: in the
// terminal, and on a page that starts it again. The handler (inventory.go) reads every file of a
// directory, that of Go's standard library unless -dir says otherwise, and writes a CSV with a line
// for each.
//
// With -data DIR requests are kept in that directory. Kill the program in the middle and start it
// again: its request goes on.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to serve; port 0 takes a free one")
	dir := flag.String("dir", "", "directory to read (default: the source of Go's standard library)")
	data := flag.String("data", "", "directory to keep requests in (default: in memory)")
	once := flag.Bool("once", false, "end after the first result")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Stdout, *addr, *dir, *data, *once); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// invitation is what can be done with the service, whose host it gets.
const invitation = `
Watch it in a browser:
  http://%[1]s/
Or speak to it yourself:
  curl -N http://%[1]s/requests -H "Content-Type: application/json" -H "Accept: text/event-stream" -d '{"action":"inventory","payload":{"dir":"net"}}'
  npx wscat -c ws://%[1]s/ws
  > {"action":"inventory","id":"test-123","payload":{"dir":"."}}
Ctrl-C stops.
`

func run(ctx context.Context, out io.Writer, addr, dir, data string, once bool) error {
	root, err := open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	keeping, closeStore, err := keep(ctx, data)
	if err != nil {
		return err
	}
	defer closeStore()

	// The service: a router, its handlers, and two transports. All in this process.
	router := streamer.NewRouter(append(keeping, streamer.WithLogger(slog.New(slog.DiscardHandler)))...)
	router.Handle("inventory", &Inventory{files: root.FS()})
	ws, events := websocket.NewHandler(router), sse.NewHandler(router)
	mux := http.NewServeMux()
	mux.Handle("/ws", ws)
	for _, path := range []string{"/requests", "/requests/", "/events", "/tickets"} {
		mux.Handle(path, events)
	}
	mux.Handle("/", page())
	listener, err := listen(addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	go router.Run(context.WithoutCancel(ctx))
	host := listener.Addr().String()
	fmt.Fprintf(out, "serving %s at http://%s/\n", root.Name(), host)

	err = call(ctx, out, "ws://"+host+"/ws", data != "")
	if err == nil && !once {
		fmt.Fprintf(out, invitation, host)
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		fmt.Fprintln(out, "stopping")
		err = nil
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, router.Shutdown(grace), ws.Shutdown(grace), events.Shutdown(grace), server.Shutdown(grace))
}

// call is all that a client needs. It would go on across a lost connection, too. What is kept
// has an id that the next start of the program knows: to submit it again is to attach to it.
func call(ctx context.Context, out io.Writer, url string, kept bool) error {
	c, err := client.New(url)
	if err != nil {
		return err
	}
	defer c.Close()
	in, opts := Params{Dir: "."}, []client.CallOption{}
	if kept {
		in.Seconds, opts = 15, append(opts, client.WithID("inventory"))
	}
	result, err := c.RequestWithProgress(ctx, "inventory", in, bar(out), opts...)
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
