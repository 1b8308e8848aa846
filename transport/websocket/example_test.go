package websocket_test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

func ExampleNewHandler() {
	router := streamer.NewRouter()
	router.Handle("export_data", streamer.HandlerFunc(export))
	ws := websocket.NewHandler(router,
		transport.WithAuthenticator(authenticate),
		transport.WithOrigins("https://app.example.com"),
	)

	mux := http.NewServeMux()
	mux.Handle("/ws", ws)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	work, stop := context.WithCancel(context.Background())
	defer stop()
	go router.Run(work)
	go server.ListenAndServe()

	// When the process is to end: first the requests, then the connections, then the server.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := errors.Join(router.Shutdown(ctx), ws.Shutdown(ctx), server.Shutdown(ctx)); err != nil {
		log.Print(err)
	}
}

func export(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	p.Report(50, "half way")
	return &streamer.Result{Success: true}, nil
}

func authenticate(ctx context.Context, c transport.Credentials) (streamer.Identity, error) {
	if c.Token != "let me in" {
		return streamer.Identity{}, errors.New("wrong token")
	}
	return streamer.Identity{User: "alice", Tenant: "acme"}, nil
}
