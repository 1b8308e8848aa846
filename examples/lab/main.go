// Command lab is a server to try failure modes on: its actions count, sleep, fail, crash,
// flood and ignore their context. Crash tests drive it, and so can anyone who evaluates the
// library over the wire:
//
//	go run ./examples/lab -addr 127.0.0.1:8080 -auth dev
//	wscat -c "ws://127.0.0.1:8080/ws?Authorization=Bearer acme:alice"
//	> {"action":"count","id":"test-123","payload":{"n":5,"every_ms":500}}
//
// or, over HTTP,
//
//	curl -N -H "Authorization: Bearer acme:alice" 127.0.0.1:8080/requests/test-123/events
//
// It keeps requests in memory, or where a flag says: -data in a directory, -nats on NATS servers,
// -sqs in a queue of SQS and a table of DynamoDB, which must exist:
//
//	go run ./examples/lab -sqs https://sqs.us-east-1.amazonaws.com/123456789012/tickets -table streamer
//
// Region and credentials come from where the AWS SDK looks for them. The URL may also be that of
// a queue of an emulator; -dynamo is then the endpoint of the other one.
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
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// defaultTable is the table of DynamoDB where no flag names one.
const defaultTable = "streamer"

type config struct {
	addr        string
	role        string
	nats        string
	data        string
	sqs         string
	dynamo      string
	table       string
	replicas    int
	lease       time.Duration
	retention   time.Duration
	concurrency int
	attempts    int
	auth        string
	journal     string
	drain       time.Duration
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("lab", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.addr, "addr", "127.0.0.1:8080", "address to serve; port 0 takes a free one")
	f.StringVar(&c.role, "role", "all", "all, gateway (runs no queued work) or worker (serves nothing but probes)")
	f.StringVar(&c.nats, "nats", "", "comma-separated `URLs` of NATS servers with JetStream, where requests are kept; without it, -data and -sqs: in memory")
	f.StringVar(&c.data, "data", "", "`directory` to keep requests in, with a NATS server in this process")
	f.StringVar(&c.sqs, "sqs", "", "`URL` of a queue of SQS for tickets; logs are in DynamoDB then")
	f.StringVar(&c.dynamo, "dynamo", "", "`URL` of an emulator of DynamoDB, which need not have time to live; default: DynamoDB itself")
	f.StringVar(&c.table, "table", defaultTable, "`name` of the table of DynamoDB")
	f.IntVar(&c.replicas, "replicas", 1, "on how many servers of the NATS cluster")
	f.DurationVar(&c.lease, "lease", 30*time.Second, "how long a lost worker's request waits for another")
	f.DurationVar(&c.retention, "retention", 15*time.Minute, "how long a request stays after its end")
	f.IntVar(&c.concurrency, "concurrency", 64, "handlers at a time")
	f.IntVar(&c.attempts, "attempts", 3, "attempts of a request at most")
	f.StringVar(&c.auth, "auth", "none", "none, or dev: the token tenant:user is that identity, also in the query")
	f.StringVar(&c.journal, "journal", "", "file to append a line to at each start and end of a handler")
	f.DurationVar(&c.drain, "drain", 10*time.Second, "how long handlers may take to finish after SIGTERM")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case c.role != "all" && c.role != "gateway" && c.role != "worker":
		return c, fmt.Errorf("-role %s: want all, gateway or worker", c.role)
	case c.nats != "" && c.data != "" || c.sqs != "" && c.nats+c.data != "":
		return c, errors.New("-nats, -data and -sqs: want one of them")
	case c.sqs == "" && (c.dynamo != "" || c.table != defaultTable):
		return c, errors.New("-dynamo and -table: want them with -sqs only")
	case c.table == "":
		return c, errors.New("-table: want the name of a table with -sqs")
	case c.dynamo != "" && endpoint(c.dynamo) == nil:
		return c, fmt.Errorf("-dynamo %s: want the endpoint of an emulator, such as http://127.0.0.1:8000", c.dynamo)
	case c.replicas < 1 || c.replicas > 1 && c.nats == "":
		return c, fmt.Errorf("-replicas %d: want at least 1, and more only with -nats", c.replicas)
	case c.auth != "none" && c.auth != "dev":
		return c, fmt.Errorf("-auth %s: want none or dev", c.auth)
	case c.lease <= 0 || c.retention <= 0 || c.drain <= 0:
		return c, errors.New("-lease, -retention and -drain must be more than 0")
	case c.concurrency < 1 || c.attempts < 1:
		return c, errors.New("-concurrency and -attempts must be at least 1")
	}
	return c, nil
}

// run serves until ctx ends, then drains.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	stores, err := openStores(ctx, c, logger)
	if stores != nil {
		defer stores.close(logger)
	}
	if err != nil {
		return err
	}
	router := streamer.NewRouter(append(stores.options,
		streamer.WithRetention(c.retention),
		streamer.WithConcurrency(c.concurrency),
		streamer.WithAttempts(c.attempts),
		streamer.WithLogger(logger),
	)...)
	register(router)
	if c.journal != "" {
		j, err := openJournal(c.journal)
		if err != nil {
			return err
		}
		defer j.Close()
		router.Use(j.middleware)
	}

	options := []transport.Option{transport.WithLogger(logger), transport.WithDrainTime(c.drain)}
	if c.auth == "dev" {
		options = append(options, transport.WithAuthenticator(devIdentity), transport.WithQueryToken())
	}
	ws := websocket.NewHandler(router, options...)
	api := sse.NewHandler(router, options...)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := router.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	if c.role != "worker" {
		mux.Handle("GET /ws", ws)
		for _, path := range []string{"/requests", "/requests/", "/events", "/tickets"} {
			mux.Handle(path, api)
		}
	}

	listener, err := net.Listen("tcp", c.addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn)}
	stopped := make(chan error, 2)
	go func() { stopped <- server.Serve(listener) }()
	if c.role != "gateway" {
		// Shutdown ends Run, not ctx: so it is Shutdown that says how long draining may take.
		go func() { stopped <- router.Run(context.WithoutCancel(ctx)) }()
	}
	ready, _ := json.Marshal(struct {
		Ready bool   `json:"ready"`
		Addr  string `json:"addr"`
	}{true, listener.Addr().String()})
	fmt.Fprintf(stdout, "%s\n", ready)

	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	logger.Info("draining", "at_most", c.drain)
	handlers, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.drain)
	defer cancel()
	if err := router.Shutdown(handlers); err != nil {
		logger.Warn("drained in part", "error", err)
	}
	connections, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
	defer cancel()
	if err := errors.Join(ws.Shutdown(connections), api.Shutdown(connections), server.Shutdown(connections)); err != nil {
		logger.Warn("connections were cut", "error", err)
	}
	return nil
}

// closing is how long connections may take to close when the handlers have finished.
const closing = 3 * time.Second

// devIdentity takes the token tenant:user for what it says.
func devIdentity(_ context.Context, c transport.Credentials) (streamer.Identity, error) {
	tenant, user, ok := strings.Cut(c.Token, ":")
	if !ok || tenant == "" || user == "" {
		return streamer.Identity{}, errors.New("want a token of the form tenant:user")
	}
	return streamer.Identity{Tenant: tenant, User: user}, nil
}
