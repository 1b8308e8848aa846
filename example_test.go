package streamer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

// serving runs the router until stop is called, as a service's main does.
func serving(router *streamer.Mux) (stop func()) {
	done := make(chan error, 1)
	go func() { done <- router.Run(context.Background()) }()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(router.Shutdown(ctx), <-done); err != nil {
			fmt.Println(err)
		}
	}
}

// show submits a request and prints its events.
func show(router *streamer.Mux, action, payload string) {
	ctx := context.Background()
	receipt, err := router.Submit(ctx, streamer.Identity{}, &streamer.Request{Action: action, Payload: json.RawMessage(payload)})
	if err != nil {
		fmt.Println(err)
		return
	}
	viewer, err := router.Attach(ctx, streamer.Identity{}, receipt.ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	for event, err := range viewer.Events(ctx, 0) {
		switch {
		case err != nil:
			fmt.Println(err)
		case event.Error != nil:
			fmt.Println(event.Seq, event.Kind, event.Error.Code, event.Error.Message)
		case event.Data != nil:
			fmt.Println(event.Seq, event.Kind, string(event.Data))
		default:
			fmt.Println(event.Seq, event.Kind)
		}
	}
}

// A service: a router, its handlers, and a transport on an http.ServeMux.
func Example() {
	router := streamer.NewRouter()
	router.Handle("greet", streamer.HandlerFunc(
		func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			p.Report(50, "thinking of a greeting")
			return &streamer.Result{Success: true, Data: "hello"}, nil
		}))

	mux := http.NewServeMux()
	mux.Handle("/ws", websocket.NewHandler(router))
	// go http.ListenAndServe("localhost:8080", mux)

	defer serving(router)()
	show(router, "greet", `{}`)
	// Output:
	// 1 accepted
	// 2 started
	// 3 completed "hello"
}

func ExampleNewRouter() {
	router := streamer.NewRouter(
		streamer.WithConcurrency(16),      // handlers at a time
		streamer.WithAttempts(5),          // of every action, unless Handle says otherwise
		streamer.WithRetention(time.Hour), // how long a request can be followed after its end
		streamer.WithLogger(slog.New(slog.NewJSONHandler(os.Stderr, nil))),
	)
	fmt.Println(router.Retention(), router.Stats().Slots)
	// Output: 1h0m0s 16
}

// report is a handler as a type: it says how long it takes, looks at requests before they are
// accepted, and reports how it gets on.
type report struct{}

func (report) EstimatedDuration() time.Duration { return time.Minute }

func (report) Validate(req *streamer.Request) error {
	if len(req.Payload) == 0 {
		return streamer.NewError(streamer.ErrCodeValidation, "which report?")
	}
	return nil
}

func (report) ProcessWithProgress(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	p.Report(10, "querying")
	return &streamer.Result{Success: true, Data: map[string]any{"url": "https://example.com/report"}}, nil
}

func ExampleMux_Handle() {
	router := streamer.NewRouter()
	router.Handle("report", report{},
		streamer.WithTimeout(10*time.Minute),
		streamer.WithConcurrency(4),
		streamer.WithPermission("reports"))

	_, err := router.Submit(context.Background(), streamer.Identity{User: "eve"}, &streamer.Request{Action: "report"})
	fmt.Println(err)
	_, err = router.Submit(context.Background(), streamer.Identity{User: "alice", Permissions: []string{"reports"}}, &streamer.Request{Action: "report"})
	fmt.Println(err)
	// Output:
	// FORBIDDEN: action "report" needs permission "reports"
	// VALIDATION_ERROR: which report?
}

// A function is long work unless an estimate says otherwise. Short work is answered at once.
func ExampleHandlerFunc() {
	router := streamer.NewRouter()
	router.Handle("now", streamer.HandlerFunc(
		func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
			return &streamer.Result{Success: true, Data: "noon"}, nil
		}), streamer.WithEstimate(time.Millisecond))

	receipt, err := router.Submit(context.Background(), streamer.Identity{}, &streamer.Request{Action: "now"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(receipt.End.Kind, string(receipt.End.Data))
	// Output: completed "noon"
}

type order struct {
	Item  string `json:"item"`
	Count int    `json:"count"`
}

func (o order) Validate() error {
	if o.Count < 1 {
		return errors.New("count must be at least 1")
	}
	return nil
}

// A typed handler's payload is decoded strictly, and validated before it is accepted.
func ExampleTyped() {
	router := streamer.NewRouter()
	router.Handle("order", streamer.Typed(
		func(ctx context.Context, in order, p streamer.Reporter) (string, error) {
			return fmt.Sprintf("%d × %s", in.Count, in.Item), nil
		}))

	defer serving(router)()
	show(router, "order", `{"item":"tea","count":2}`)
	show(router, "order", `{"item":"tea","count":"two"}`)
	show(router, "order", `{"item":"tea"}`)
	// Output:
	// 1 accepted
	// 2 started
	// 3 completed "2 × tea"
	// VALIDATION_ERROR: payload field "count": want a whole number, got string
	// VALIDATION_ERROR: count must be at least 1
}

// Outputs are numbered entries of the request's log: every viewer gets each of them once.
func ExampleOutput() {
	router := streamer.NewRouter()
	router.Handle("write", streamer.Typed(
		func(ctx context.Context, topic string, p streamer.Reporter) (int, error) {
			for _, word := range []string{"all", "about", topic} {
				if err := streamer.Output(ctx, word); err != nil {
					return 0, err
				}
			}
			return 3, nil
		}))

	defer serving(router)()
	show(router, "write", `"tea"`)
	// Output:
	// 1 accepted
	// 2 started
	// 3 output "all"
	// 4 output "about"
	// 5 output "tea"
	// 6 completed 3
}

// A new attempt goes on from the last checkpoint.
func ExampleCheckpoint() {
	router := streamer.NewRouter()
	router.Handle("import", streamer.Typed(
		func(ctx context.Context, rows int, p streamer.Reporter) (string, error) {
			next := 0
			if _, err := streamer.LastCheckpoint(ctx, &next); err != nil {
				return "", err
			}
			for ; next < rows; next++ {
				if next == 2 && streamer.Attempt(ctx) == 1 {
					return "", streamer.NewError(streamer.ErrCodeServiceUnavailable, "the database is down").WithRetry(time.Millisecond)
				}
				if err := streamer.Output(ctx, next); err != nil {
					return "", err
				}
				if err := streamer.Checkpoint(ctx, next+1); err != nil {
					return "", err
				}
			}
			return fmt.Sprintf("done in attempt %d", streamer.Attempt(ctx)), nil
		}))

	defer serving(router)()
	show(router, "import", `3`)
	// Output:
	// 1 accepted
	// 2 started
	// 3 output 0
	// 4 output 1
	// 5 retrying SERVICE_UNAVAILABLE the database is down
	// 6 started
	// 7 output 2
	// 8 completed "done in attempt 2"
}

// An error that asks for a retry gets another attempt, while there is one.
func ExampleError_WithRetry() {
	router := streamer.NewRouter(streamer.WithAttempts(2))
	router.Handle("charge", streamer.HandlerFunc(
		func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			return nil, streamer.NewError(streamer.ErrCodeRateLimited, "the bank is busy").WithRetry(time.Millisecond)
		}))

	defer serving(router)()
	show(router, "charge", `{}`)
	// Output:
	// 1 accepted
	// 2 started
	// 3 retrying RATE_LIMITED the bank is busy
	// 4 started
	// 5 failed RATE_LIMITED the bank is busy
}

func ExampleError_WithDetail() {
	declined := streamer.NewError("CARD_DECLINED", "the bank declined the card")
	err := error(declined.WithDetail("bank_code", "51"))

	var e *streamer.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code, e.Details["bank_code"], declined.Details)
	}
	// Output: CARD_DECLINED 51 map[]
}

// With the tenant as scope, colleagues see each other's requests; others can't tell that
// they exist.
func ExampleWithScope() {
	router := streamer.NewRouter(streamer.WithScope(func(who streamer.Identity) string { return who.Tenant }))
	router.Handle("report", streamer.HandlerFunc(
		func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
			return &streamer.Result{Success: true}, nil
		}))
	ctx := context.Background()
	_, err := router.Submit(ctx, streamer.Identity{Tenant: "acme", User: "alice"}, &streamer.Request{ID: "r1", Action: "report"})
	fmt.Println(err)
	_, err = router.Attach(ctx, streamer.Identity{Tenant: "acme", User: "bob"}, "r1")
	fmt.Println(err)
	_, err = router.Attach(ctx, streamer.Identity{Tenant: "globex", User: "eve"}, "r1")
	fmt.Println(err)
	// Output:
	// <nil>
	// <nil>
	// NOT_FOUND: no such request
}

// Middleware wraps the call of every handler.
func ExampleMux_Use() {
	router := streamer.NewRouter()
	router.Use(func(next streamer.HandlerFunc) streamer.HandlerFunc {
		return func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			fmt.Println("before", req.Action)
			defer fmt.Println("after", req.Action)
			return next(ctx, req, p)
		}
	})
	router.Use(streamer.Recover(), streamer.Timeout(time.Minute))
	router.Handle("work", streamer.HandlerFunc(
		func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
			return &streamer.Result{Success: true}, nil
		}), streamer.WithEstimate(0))
	show(router, "work", `{}`)
	// Output:
	// before work
	// after work
	// 1 completed null
}

// Cancel ends the handler's context; the request ends soon, whatever the handler does.
func ExampleMux_Cancel() {
	router := streamer.NewRouter()
	started, cause := make(chan struct{}), make(chan error, 1)
	router.Handle("wait", streamer.HandlerFunc(
		func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			close(started)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil, ctx.Err()
		}))
	defer serving(router)()

	ctx, who := context.Background(), streamer.Identity{User: "alice"}
	if _, err := router.Submit(ctx, who, &streamer.Request{ID: "r1", Action: "wait"}); err != nil {
		fmt.Println(err)
		return
	}
	<-started
	if _, err := router.Cancel(ctx, who, "r1", "user pressed stop"); err != nil {
		fmt.Println(err)
		return
	}
	viewer, err := router.Attach(ctx, who, "r1")
	if err != nil {
		fmt.Println(err)
		return
	}
	for event, err := range viewer.Events(ctx, 2) {
		fmt.Println(event.Kind, err)
	}
	fmt.Println("handler:", <-cause)
	// Output:
	// canceling <nil>
	// canceled <nil>
	// handler: request canceled by a client
}

// Whoever has seen the events up to a number goes on after it, as often as it likes.
func ExampleViewer_Events() {
	router := streamer.NewRouter()
	router.Handle("count", streamer.Typed(
		func(ctx context.Context, n int, p streamer.Reporter) (string, error) {
			for i := range n {
				if err := streamer.Output(ctx, i); err != nil {
					return "", err
				}
			}
			return "done", nil
		}))
	defer serving(router)()

	ctx := context.Background()
	receipt, err := router.Submit(ctx, streamer.Identity{}, &streamer.Request{Action: "count", Payload: []byte("3")})
	if err != nil {
		fmt.Println(err)
		return
	}
	viewer, err := router.Attach(ctx, streamer.Identity{}, receipt.ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	seen := uint64(0)
	for event, err := range viewer.Events(ctx, seen) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(event.Seq, event.Kind)
		if seen = event.Seq; seen == 3 {
			break // say, the program ends here, and keeps the number
		}
	}
	for event, err := range viewer.Events(ctx, seen) {
		fmt.Println(event.Seq, event.Kind, err)
	}
	// Output:
	// 1 accepted
	// 2 started
	// 3 output
	// 4 output <nil>
	// 5 output <nil>
	// 6 completed <nil>
}

// A handler that estimates little but finds much to do asks to be queued.
func ExampleErrDefer() {
	router := streamer.NewRouter()
	router.Handle("search", streamer.HandlerFunc(
		func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			inSubmit := p == progress.Discard
			if inSubmit && string(req.Payload) == `"everything"` {
				return nil, streamer.ErrDefer
			}
			return &streamer.Result{Success: true, Data: "found"}, nil
		}), streamer.WithEstimate(time.Second))
	defer serving(router)()
	show(router, "search", `"a word"`)
	show(router, "search", `"everything"`)
	// Output:
	// 1 completed "found"
	// 1 accepted
	// 2 started
	// 3 completed "found"
}

// The application says who a client is; its requests' metadata and scope come from that.
func ExampleIdentity() {
	authenticate := func(ctx context.Context, c transport.Credentials) (streamer.Identity, error) {
		if c.Token != "secret" { // verify a JWT here
			return streamer.Identity{}, errors.New("unknown token")
		}
		return streamer.Identity{Tenant: "acme", User: "alice", Permissions: []string{"reports"}}, nil
	}
	router := streamer.NewRouter()
	http.NewServeMux().Handle("/ws", websocket.NewHandler(router, transport.WithAuthenticator(authenticate)))
}

// A handler's unit test needs no router.
func ExampleReporter() {
	var recorder progress.Recorder
	handler := report{}
	result, err := handler.ProcessWithProgress(recorder.Context(context.Background()), &streamer.Request{ID: "r1"}, &recorder)
	fmt.Println(result.Success, err, recorder.Reports())
	// Output: true <nil> [{10 querying}]
}
