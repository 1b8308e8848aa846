// Command cookies is the server of the browser tests whose users are known by a cookie, which browsers
// send along with whatever a page of the same site asks for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to serve")
	flag.Parse()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	router := streamer.NewRouter()
	router.Handle("wait", streamer.HandlerFunc(wait))
	go func() { log.Fatal(router.Run(context.Background())) }()
	fmt.Println("ready")
	log.Fatal(http.Serve(listener, serve(router)))
}

func serve(router *streamer.Mux) http.Handler {
	user := transport.WithAuthenticator(known)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "user", Value: "ann", Path: "/", HttpOnly: true})
	})
	mux.Handle("/ws", websocket.NewHandler(router, user))
	api := sse.NewHandler(router, user)
	for _, path := range []string{"/requests", "/requests/", "/events", "/tickets"} {
		mux.Handle(path, api)
	}
	return mux
}

// wait ends when it is canceled.
func wait(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func known(_ context.Context, c transport.Credentials) (streamer.Identity, error) {
	if c.Request != nil {
		if cookie, err := c.Request.Cookie("user"); err == nil {
			return streamer.Identity{Tenant: "acme", User: cookie.Value}, nil
		}
	}
	return streamer.Identity{}, errors.New("no cookie")
}
