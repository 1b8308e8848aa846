// Command aws is a service on Amazon SQS and DynamoDB: tickets are in a queue, requests in a table,
// and any number of its processes share them. It has one action, which exports the orders of a
// year (export.go):
//
//	aws -queue https://sqs.us-east-1.amazonaws.com/123456789012/tickets -table streamer
//
// Queue and table must exist: docs/adapters/sqs.md and docs/adapters/dynamodb.md say how to make
// them, and what permissions it takes. Region, credentials and endpoints come from where the AWS
// SDK looks for them.
//
// Without an account, `make aws-local` runs it on emulators (local.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

// How long stopping may take: handlers first, then connections. The grace period of the platform
// must be longer than both and a poll of SQS.
const (
	drain   = 10 * time.Second
	closing = 3 * time.Second
)

// serving is before the address in the line that says so.
const serving = "serving at "

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp), errors.Is(err, context.Canceled): // stopped as it started
	case err != nil:
		fmt.Fprintln(os.Stderr, "aws:", err)
		os.Exit(1)
	}
}

type settings struct {
	addr  string
	role  string
	queue string
	dead  string
	table string
	poll  time.Duration
	noTTL bool
	local bool
	once  bool
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("aws", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.addr, "addr", "127.0.0.1:8080", "address to serve; port 0 takes a free one")
	f.StringVar(&s.role, "role", "all", "all, gateway (runs no queued work) or worker (serves nothing but /readyz)")
	f.StringVar(&s.queue, "queue", "", "`URL` of the queue of SQS; its visibility timeout is the lease of a worker")
	f.StringVar(&s.dead, "dead", "", "`URL` of its dead-letter queue, if it has a redrive policy: what is there ends as failed")
	f.StringVar(&s.table, "table", "", "`name` of the table of DynamoDB")
	f.DurationVar(&s.poll, "poll", 5*time.Second, "how long a poll waits at SQS, and the end of the process for a poll")
	f.BoolVar(&s.noTTL, "without-ttl", false, "the table has no time to live, as those of emulators")
	f.BoolVar(&s.local, "local", false, "run on emulators, with a queue and a table of their own")
	f.BoolVar(&s.once, "once", false, "with -local: end after an export")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	switch {
	case f.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case s.role != "all" && s.role != "gateway" && s.role != "worker":
		return s, fmt.Errorf("-role %s: want all, gateway or worker", s.role)
	case s.local && (s.queue != "" || s.dead != "" || s.table != "" || s.role != "all"):
		return s, errors.New("-local: has a queue, a table and the role all; want no -queue, -dead, -table and -role with it")
	case !s.local && (s.queue == "" || s.table == ""):
		return s, errors.New("want -queue and -table; or -local, which runs on emulators")
	case s.once && !s.local:
		return s, errors.New("-once: want it with -local only")
	}
	return s, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if s.local {
		return local(ctx, s, stdout, stderr)
	}
	return serve(ctx, s, stdout, slog.New(slog.NewTextHandler(stderr, nil)))
}

// serve serves until ctx ends, then drains.
func serve(ctx context.Context, s settings, stdout io.Writer, logger *slog.Logger) error {
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	tickets, err := sqsqueue.New(ctx, sqs.NewFromConfig(aws), s.queue, sqsqueue.WithPoll(s.poll), sqsqueue.WithDeadLetters(s.dead))
	if err != nil {
		return err
	}
	defer tickets.Close()
	var options []dynamolog.Option
	if s.noTTL {
		options = append(options, dynamolog.WithoutTTL())
	}
	requests, err := dynamolog.New(ctx, dynamodb.NewFromConfig(aws), s.table, options...)
	if err != nil {
		return err
	}
	defer requests.Close()

	router := streamer.NewRouter(streamer.WithQueue(tickets), streamer.WithLog(requests), streamer.WithLogger(logger))
	router.Handle("export_data", streamer.Typed(export))

	// Whoever reaches the address may call: a service of yours says who is asking, with
	// transport.WithAuthenticator.
	ws := websocket.NewHandler(router, transport.WithLogger(logger))
	api := sse.NewHandler(router, transport.WithLogger(logger))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := router.Ready(r.Context()); err != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	if s.role != "worker" {
		mux.Handle("/api/ws", ws)
		mux.Handle("/api/", http.StripPrefix("/api", api))
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 2)
	go func() { stopped <- server.Serve(listener) }()
	if s.role != "gateway" {
		// Shutdown ends Run, not ctx: so it is Shutdown that says how long draining may take.
		go func() { stopped <- router.Run(context.WithoutCancel(ctx)) }()
	}
	fmt.Fprintf(stdout, "%s%s\n", serving, listener.Addr())

	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	logger.Info("draining", "at_most", drain)
	handlers, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
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
