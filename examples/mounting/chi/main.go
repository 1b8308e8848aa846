// Command chi mounts a streamer on chi: WebSockets at /ws, the HTTP API below /api.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		err = serve(ctx, listener)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve serves until ctx ends, and then shuts down in the order in which nobody loses anything.
func serve(ctx context.Context, listener net.Listener) error {
	router := streamer.NewRouter()
	router.Handle("brew", streamer.Typed(brew))
	ws, api := websocket.NewHandler(router), sse.NewHandler(router)
	server := &http.Server{
		Handler:           mount(ws, api),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- router.Run(context.WithoutCancel(ctx)) }()

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	handlers, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	err = errors.Join(err, router.Shutdown(handlers))
	connections, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, ws.Shutdown(connections), api.Shutdown(connections), server.Shutdown(connections))
}

// mount returns the application's routes, with chi's middleware around all of them.
//
// middleware.Compress leaves event streams alone: they are not among the types that it
// compresses. middleware.Timeout must not be around the handlers: it would end streams.
func mount(ws, api http.Handler) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.Logger, middleware.Recoverer, middleware.Compress(5))
	r.Handle("/ws", ws)
	r.Mount("/api", http.StripPrefix("/api", api))
	r.Get("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "tea house")
	})
	return r
}

// brew makes cups of tea, one after the other.
func brew(ctx context.Context, cups int, p streamer.Reporter) (string, error) {
	for cup := range cups {
		p.Report(100*float64(cup)/float64(cups), fmt.Sprintf("brewing cup %d of %d", cup+1, cups))
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if err := streamer.Output(ctx, fmt.Sprintf("cup %d", cup+1)); err != nil {
			return "", err
		}
	}
	return "tea is ready", nil
}
