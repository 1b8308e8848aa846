package streamer_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

// inHandler runs f as the handler of one request.
func inHandler(b *testing.B, f func(ctx context.Context, p streamer.Reporter)) {
	m := streamer.NewRouter(streamer.WithLogger(quiet()), streamer.WithLog(memlog.New(memlog.WithMaxBytes(4<<30))),
		streamer.WithLimits(streamer.Limits{Outputs: 1 << 30, OutputBytes: 1 << 30}))
	m.Handle("x", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		f(ctx, p)
		return ok(1)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	if _, err := m.Submit(ctx, alice, &streamer.Request{ID: "r", Action: "x"}); err != nil {
		b.Fatal(err)
	}
	v, err := m.Attach(ctx, alice, "r")
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range v.Events(ctx, 0) {
		if err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	if err := <-ran; err != nil {
		b.Fatal(err)
	}
}

func BenchmarkReportInALoop(b *testing.B) {
	inHandler(b, func(_ context.Context, p streamer.Reporter) {
		_ = p.Report(0, "first")
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_ = p.Report(float64(i%100), "working")
		}
	})
}

func BenchmarkOutput(b *testing.B) {
	inHandler(b, func(ctx context.Context, p streamer.Reporter) {
		b.ReportAllocs()
		v := struct {
			I int `json:"i"`
		}{1}
		for b.Loop() {
			if err := streamer.Output(ctx, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSubmitToEnd(b *testing.B) {
	m := streamer.NewRouter(streamer.WithLogger(quiet()))
	m.Handle("x", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		for i := range 10 {
			_ = streamer.Output(ctx, i)
		}
		return ok(1)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		id := strconv.Itoa(i)
		if _, err := m.Submit(ctx, alice, &streamer.Request{ID: id, Action: "x", Payload: []byte(`{"n":10}`)}); err != nil {
			b.Fatal(err)
		}
		v, err := m.Attach(ctx, alice, id)
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range v.Events(ctx, 0) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	cancel()
	<-ran
}
