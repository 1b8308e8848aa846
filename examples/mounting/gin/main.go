// Command gin mounts a streamer on gin: WebSockets at /ws, the HTTP API below /api.
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

	"github.com/gin-gonic/gin"

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

// mount returns the application's routes, with gin's middleware around all of them.
//
// Compression is not part of gin. Whoever adds it must not have it around the streamer's
// handlers.
func mount(ws, api http.Handler) http.Handler {
	engine := gin.New()
	engine.Use(gin.Logger(), gin.Recovery())
	engine.Any("/ws", gin.WrapH(ws))
	engine.Any("/api/*path", gin.WrapH(http.StripPrefix("/api", api)))
	engine.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "tea house\n") })
	return engine
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
