package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"time"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	ws "github.com/pay-theory/streamer/v2/transport/websocket"
)

// exampleService starts a service and returns its URL.
func exampleService() (url string, stop func()) {
	quiet := slog.New(slog.DiscardHandler)
	router := streamer.NewRouter(streamer.WithLogger(quiet))
	router.Handle("greet", streamer.HandlerFunc(func(_ context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		return &streamer.Result{Success: true, Data: map[string]any{"text": "hello", "times": 3}}, nil
	}), streamer.WithEstimate(0))
	router.Handle("export", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		for i := range 3 {
			if err := streamer.Output(ctx, fmt.Sprint("part ", i)); err != nil {
				return nil, err
			}
		}
		_ = p.Report(100, "done")
		return &streamer.Result{Success: true, Data: "export.csv"}, nil
	}))
	handler := ws.NewHandler(router, transport.WithLogger(quiet))
	server := httptest.NewServer(handler)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = router.Run(ctx)
	}()
	return "ws" + strings.TrimPrefix(server.URL, "http"), func() {
		end, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		_ = router.Shutdown(end)
		_ = handler.Shutdown(end)
		server.Close()
		cancel()
		<-ran
	}
}

func ExampleNew() {
	c, err := client.New("wss://api.example.com/ws",
		client.WithTokenSource(func(ctx context.Context) (string, error) { return "a fresh token", nil }),
		client.WithStateFunc(func(s client.State) { fmt.Println(s.Phase) }))
	if err != nil {
		panic(err)
	}
	fmt.Println(c.State().Phase) // nothing is connected before the first call
	c.Close()
	// Output:
	// idle
	// closed
}

func ExampleClient_RequestWithProgress() {
	url, stop := exampleService()
	defer stop()
	c, _ := client.New(url)
	defer c.Close()

	result, err := c.RequestWithProgress(context.Background(), "export", map[string]string{"format": "csv"},
		func(p client.Progress) { fmt.Printf("%.0f%% %s\n", p.Percentage, p.Message) })
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", result.Data)
	// Output:
	// 100% done
	// "export.csv"
}

func ExampleCall() {
	url, stop := exampleService()
	defer stop()
	c, _ := client.New(url)
	defer c.Close()

	type greeting struct {
		Text  string `json:"text"`
		Times int    `json:"times"`
	}
	g, err := client.Call[greeting](context.Background(), c, "greet", nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(g.Text, g.Times)
	// Output: hello 3
}

func ExampleRequest_Events() {
	url, stop := exampleService()
	defer stop()
	c, _ := client.New(url)
	defer c.Close()

	ctx := context.Background()
	req, err := c.Submit(ctx, "export", nil)
	if err != nil {
		panic(err)
	}
	var parts []string
	for e, err := range req.Events(ctx) {
		if err != nil {
			panic(err)
		}
		switch e.Kind {
		case progress.Started:
			parts = parts[:e.OutputsFrom] // a new attempt makes the rest anew
		case progress.Output:
			parts = append(parts, string(e.Data))
		}
	}
	fmt.Println(parts)
	// Output: ["part 0" "part 1" "part 2"]
}

func ExampleClient_Attach() {
	url, stop := exampleService()
	defer stop()
	c, _ := client.New(url)
	defer c.Close()

	ctx := context.Background()
	req, err := c.Submit(ctx, "export", nil, client.WithID("report-7"))
	if err != nil {
		panic(err)
	}
	var epoch string
	var seq uint64
	for e := range req.Events(ctx) {
		if e.Seq == 3 { // store how far this program has come …
			epoch, seq = e.Epoch, e.Seq
			break
		}
	}

	// … and go on from there, perhaps in another process.
	req, err = c.Attach(ctx, "report-7", client.After(epoch, seq))
	if err != nil {
		panic(err)
	}
	for e := range req.Events(ctx) {
		if e.Kind == progress.Output {
			fmt.Printf("%d %s\n", e.Seq, e.Data)
		}
	}

	_, err = c.Attach(ctx, "report-8")
	if e, ok := errors.AsType[*streamer.Error](err); ok {
		fmt.Println(e.Code)
	}
	// Output:
	// 4 "part 1"
	// 5 "part 2"
	// NOT_FOUND
}
