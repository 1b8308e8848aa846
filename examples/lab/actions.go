package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2"
)

func register(router *streamer.Mux) {
	router.Handle("echo", streamer.HandlerFunc(echo), streamer.WithEstimate(0))
	router.Handle("count", streamer.Typed(count))
	router.Handle("sleep", streamer.Typed(sleep))
	router.Handle("stubborn", streamer.Typed(stubborn))
	router.Handle("fail", streamer.Typed(fail))
	router.Handle("panic", streamer.HandlerFunc(panics))
	router.Handle("crash", streamer.Typed(crash))
	router.Handle("flood", streamer.Typed(flood))
	router.Handle("big", streamer.Typed(big))
	router.Handle("whoami", streamer.HandlerFunc(whoami))
	router.Handle("late", streamer.HandlerFunc(late))
}

// echo is short work: it returns the payload untouched.
func echo(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	return &streamer.Result{Success: true, Data: req.Payload}, nil
}

type countIn struct {
	N          int  `json:"n"`
	EveryMS    int  `json:"every_ms"`
	Bytes      int  `json:"bytes"`
	Checkpoint bool `json:"checkpoint"`
}

type countOut struct {
	N int `json:"n"`
}

type item struct {
	I   int    `json:"i"`
	Pad string `json:"pad,omitempty"`
}

// count makes n outputs {"i":0}, {"i":1} … With checkpoint, a new attempt goes on where the
// last one stopped.
func count(ctx context.Context, in countIn, p streamer.Reporter) (countOut, error) {
	from := 0
	_, err := streamer.LastCheckpoint(ctx, &from)
	for i := from; i < in.N && err == nil; i++ {
		if err = pause(ctx, in.EveryMS); err == nil {
			err = streamer.Output(ctx, padded(i, in.Bytes))
		}
		if err == nil && in.Checkpoint {
			err = streamer.Checkpoint(ctx, i+1)
		}
		if err == nil {
			p.Report(100*float64(i+1)/float64(in.N), fmt.Sprintf("%d of %d", i+1, in.N))
		}
	}
	return countOut{in.N}, err
}

// padded returns the output with number i, at least size bytes of JSON.
func padded(i, size int) item {
	bare := len(fmt.Sprintf(`{"i":%d,"pad":""}`, i))
	return item{i, strings.Repeat("x", max(0, size-bare))}
}

// pause waits, but not longer than ctx lasts.
func pause(ctx context.Context, ms int) error {
	if ms <= 0 {
		return context.Cause(ctx)
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

type msIn struct {
	MS int `json:"ms"`
}

// sleep ends early when it is canceled.
func sleep(ctx context.Context, in msIn, _ streamer.Reporter) (msIn, error) {
	return in, pause(ctx, in.MS)
}

// stubborn ignores its context.
func stubborn(_ context.Context, in msIn, _ streamer.Reporter) (msIn, error) {
	time.Sleep(time.Duration(in.MS) * time.Millisecond)
	return in, nil
}

type failIn struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	RetryMS int    `json:"retry_ms"`
	Times   *int   `json:"times"`
}

type attemptOut struct {
	Attempt int `json:"attempt"`
}

// fail fails the first attempts, as many as times says (without it: all), and asks for a
// retry if retry_ms is more than 0.
func fail(ctx context.Context, in failIn, _ streamer.Reporter) (attemptOut, error) {
	times := math.MaxInt
	if in.Times != nil {
		times = *in.Times
	}
	attempt := streamer.Attempt(ctx)
	if attempt > times {
		return attemptOut{attempt}, nil
	}
	err := streamer.NewError(in.Code, in.Message)
	if in.RetryMS > 0 {
		err = err.WithRetry(time.Duration(in.RetryMS) * time.Millisecond)
	}
	return attemptOut{}, err
}

func panics(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
	panic("the lab was asked to panic")
}

type crashIn struct {
	Attempts int `json:"attempts"`
}

// crash ends the process, as a kill would, in the first attempts.
func crash(ctx context.Context, in crashIn, _ streamer.Reporter) (attemptOut, error) {
	attempt := streamer.Attempt(ctx)
	if attempt <= in.Attempts {
		os.Exit(3)
	}
	return attemptOut{attempt}, nil
}

type floodIn struct {
	Reports int `json:"reports"`
}

// flood reports in a tight loop, up to 100 %.
func flood(ctx context.Context, in floodIn, p streamer.Reporter) (floodIn, error) {
	for i := 1; i <= in.Reports && ctx.Err() == nil; i++ {
		p.Report(100*float64(i)/float64(in.Reports), "flooding")
	}
	return in, context.Cause(ctx)
}

type bigIn struct {
	Bytes int `json:"bytes"`
}

type bigOut struct {
	Data string `json:"data"`
}

// big returns a string of so many bytes.
func big(_ context.Context, in bigIn, _ streamer.Reporter) (bigOut, error) {
	return bigOut{strings.Repeat("x", max(0, in.Bytes))}, nil
}

// whoami returns the identity and the metadata as handlers see them.
func whoami(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	return &streamer.Result{Success: true, Data: map[string]any{
		"user_id":   req.Metadata["user_id"],
		"tenant_id": req.Metadata["tenant_id"],
		"metadata":  req.Metadata,
	}}, nil
}

// late goes on reporting and making outputs after its attempt is over, which must show nowhere.
func late(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	p.Report(50, "in time")
	context.AfterFunc(ctx, func() {
		p.Report(99, "too late")
		_ = streamer.Output(ctx, "too late")
	})
	return &streamer.Result{Success: true, Data: map[string]any{"returned": true}}, nil
}
