// Command echo mounts a streamer on echo: WebSockets at /ws, the HTTP API below /api.
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

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

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

// mount returns the application's routes, with echo's middleware around all of them.
//
// middleware.Gzip must leave out the streamer's handlers: around them it compresses event
// streams, and WebSockets don't open. middleware.ContextTimeout would end streams.
func mount(ws, api http.Handler) http.Handler {
	e := echo.New()
	e.Use(middleware.RequestID(), middleware.RequestLogger(), middleware.Recover())
	e.Use(middleware.GzipWithConfig(middleware.GzipConfig{
		Skipper: func(c *echo.Context) bool { return c.Path() == "/ws" || c.Path() == "/api/*" },
	}))
	e.Any("/ws", echo.WrapHandler(ws))
	e.Any("/api/*", echo.WrapHandler(http.StripPrefix("/api", api)))
	e.GET("/", func(c *echo.Context) error { return c.String(http.StatusOK, "tea house\n") })
	return e
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
