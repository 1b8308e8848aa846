package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

// product is the library as its users get it, in memory, with its defaults but for what a
// load client needs lifted, and without a log line for each request: the floor writes none.
type product struct {
	sockets, http http.Handler
	router        *streamer.Mux
	log           *memlog.Log // nil: on NATS
	held          held
	emits         chan int // outputs that the request named fan makes
}

func newProduct(role string) *product {
	log := memlog.New()
	opts := []streamer.Option{streamer.WithLog(log)}
	if role == roleCrowd {
		opts = append(opts, streamer.WithConcurrency(1<<16))
	}
	p := newProductOn(opts...)
	p.log = log
	return p
}

func newProductOn(opts ...streamer.Option) *product {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p := &product{router: streamer.NewRouter(append(opts, streamer.WithLogger(logger))...), held: newHeld(), emits: make(chan int)}
	p.router.Handle("work", streamer.HandlerFunc(work))
	p.router.Handle("count", streamer.HandlerFunc(count))
	p.router.Handle("tick", streamer.HandlerFunc(tick))
	p.router.Handle("report", streamer.HandlerFunc(report))
	p.router.Handle("hold", streamer.HandlerFunc(p.held.handle))
	p.router.Handle("fan", streamer.HandlerFunc(p.spread))
	p.router.Handle(actionShort, streamer.HandlerFunc(add), streamer.WithEstimate(time.Millisecond))
	p.router.Handle(actionLong, streamer.HandlerFunc(add))
	shared := []transport.Option{
		transport.WithPongTimeout(time.Hour), // a client that is parked answers no ping
		transport.WithLogger(logger), transport.WithLimits(transport.Limits{MessageRate: 1e6, MessageBurst: 1e6}),
	}
	p.sockets = websocket.NewHandler(p.router, shared...)
	p.http = sse.NewHandler(p.router, shared...)
	return p
}

// run works until ctx ends.
func (p *product) run(ctx context.Context) {
	if err := p.router.Run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench: Run:", err)
	}
}

// work does what the floor does.
func work(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	return emit(ctx, outputs)
}

// count makes as many outputs as the payload says.
func count(ctx context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	var n int
	if err := json.Unmarshal(req.Payload, &n); err != nil {
		return nil, streamer.NewError(streamer.ErrCodeValidation, "the payload is the number of outputs")
	}
	return emit(ctx, n)
}

// tick makes as many outputs as the payload says, one every two milliseconds, each with the
// time at which it is made.
func tick(ctx context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	var n int
	if err := json.Unmarshal(req.Payload, &n); err != nil {
		return nil, streamer.NewError(streamer.ErrCodeValidation, "the payload is the number of outputs")
	}
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for range n {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := streamer.Output(ctx, map[string]int64{"at": time.Now().UnixNano()}); err != nil {
			return nil, err
		}
	}
	return &streamer.Result{Success: true, Data: total{n}}, nil
}

func emit(ctx context.Context, n int) (*streamer.Result, error) {
	for i := range n {
		if err := streamer.Output(ctx, newRow(i)); err != nil {
			return nil, err
		}
	}
	return &streamer.Result{Success: true, Data: total{n}}, nil
}

// add does what the floor does over HTTP.
func add(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	t, err := newTotal(req.Payload)
	if err != nil {
		return nil, streamer.NewError(streamer.ErrCodeValidation, "the payload is the query of an export")
	}
	return &streamer.Result{Success: true, Data: t}, nil
}

// spread makes the outputs that the harness asks for, until its process ends.
func (p *product) spread(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	row := 0
	for {
		select {
		case n := <-p.emits:
			for range n {
				if err := streamer.Output(ctx, newRow(row)); err != nil {
					return nil, err
				}
				row++
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fan makes the request that spread handles, and returns when it runs.
func (p *product) fan() error {
	return p.started(&streamer.Request{ID: "fan", Action: "fan"}, progress.Started)
}

// hold makes n requests that have their first output and wait for the harness.
func (p *product) hold(n int) error {
	return limited(n, func(i int) error {
		return p.started(&streamer.Request{ID: fmt.Sprint("held-", i), Action: "hold"}, progress.Output)
	})
}

// stuff makes n requests that end at once.
func (p *product) stuff(n int) error {
	payload := json.RawMessage(`{"format":"csv","month":"2026-03","columns":["row","name","status"]}`)
	return limited(n, func(i int) error {
		_, err := p.router.Submit(context.Background(), streamer.Identity{}, &streamer.Request{
			ID: fmt.Sprint("stuffed-", i), Action: actionShort, Payload: payload,
		})
		return err
	})
}

// started submits a request and waits for its first event of a kind.
func (p *product) started(req *streamer.Request, kind progress.Kind) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	receipt, err := p.router.Submit(ctx, streamer.Identity{}, req)
	if err != nil {
		return err
	}
	for e, err := range receipt.Viewer.Events(ctx, 0) {
		if err != nil {
			return err
		}
		if e.Kind == kind {
			return nil
		}
	}
	return fmt.Errorf("request %s ended without an event %s", req.ID, kind)
}

// finished runs a request with n outputs and returns its id when it has ended.
func (p *product) finished(n int) (id string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req := &streamer.Request{Action: "count", Payload: strconv.AppendInt(nil, int64(n), 10)}
	receipt, err := p.router.Submit(ctx, streamer.Identity{}, req)
	if err != nil {
		return "", err
	}
	viewer, err := p.router.Attach(ctx, streamer.Identity{}, receipt.ID)
	if err != nil {
		return "", err
	}
	var last *progress.Event
	for e, err := range viewer.Events(ctx, 0) {
		if err != nil {
			return "", err
		}
		last = e
	}
	if last.Kind != progress.Completed {
		return "", fmt.Errorf("request of %d outputs: %s: %+v", n, last.Kind, last.Error)
	}
	return receipt.ID, nil
}

// reportCost is what one Report costs.
type reportCost struct {
	NS     float64 `json:"ns"`
	Allocs int64   `json:"allocs"`
}

// report measures Report where it is used: in a running handler.
func report(_ context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		n := 0.0
		for b.Loop() {
			n++
			if err := p.Report(100*n/(n+1e7), "exporting"); err != nil {
				b.Fatal(err)
			}
		}
	})
	cost := reportCost{float64(r.T.Nanoseconds()) / float64(r.N), r.AllocsPerOp()}
	return &streamer.Result{Success: true, Data: cost}, nil
}

// missed is how many outputs a held handler makes while its client is away.
const missed = 20

// held are handlers that wait for the harness between their outputs.
type held struct {
	away, ended chan struct{}
	emitting    *sync.WaitGroup // handlers that have not made the outputs to be missed
}

func newHeld() held {
	return held{make(chan struct{}), make(chan struct{}), new(sync.WaitGroup)}
}

// handle makes one output, more when the clients are away, and ends when it is released.
func (h held) handle(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	h.emitting.Add(1)
	if err := streamer.Output(ctx, newRow(0)); err != nil {
		return nil, err
	}
	<-h.away
	_, err := emit(ctx, missed)
	h.emitting.Done()
	if err != nil {
		return nil, err
	}
	<-h.ended
	return &streamer.Result{Success: true, Data: total{1 + missed}}, nil
}

// miss has all handlers make the outputs that their clients miss, and waits for that.
func (h held) miss() {
	close(h.away)
	h.emitting.Wait()
}

func (h held) release() { close(h.ended) }
