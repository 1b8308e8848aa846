package sse_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport/sse"
)

// The handler is mounted below a prefix. A client submits, and may ask to wait for the result.
func ExampleNewHandler() {
	router := streamer.NewRouter(streamer.WithLogger(slog.New(slog.DiscardHandler)))
	router.Handle("shout", streamer.Typed(func(_ context.Context, in string, p streamer.Reporter) (string, error) {
		p.Report(50, "shouting")
		return strings.ToUpper(in), nil
	}))
	ctx := context.Background()
	go router.Run(ctx)
	api := sse.NewHandler(router)
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", api))
	server := httptest.NewServer(mux)

	req, _ := http.NewRequest("POST", server.URL+"/api/requests", strings.NewReader(`{"action":"shout","id":"r1","payload":"tea"}`))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "wait=10")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	before, _, _ := strings.Cut(string(body), `,"timestamp"`)
	fmt.Println(resp.StatusCode, before)

	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	router.Shutdown(ctx)
	api.Shutdown(ctx)
	http.DefaultClient.CloseIdleConnections()
	server.Close()
	// Output: 200 {"type":"complete","request_id":"r1","seq":3,"success":true,"result":"TEA"
}
