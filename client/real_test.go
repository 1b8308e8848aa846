package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/cutproxy"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/sse"
	ws "github.com/pay-theory/streamer/v2/transport/websocket"
)

// service is a real router behind real transports.
type service struct {
	router  *streamer.Mux
	handler *ws.Handler
	api     *sse.Handler
	runs    atomic.Int32 // of handlers
}

// ways are how a client reaches a service.
var ways = map[string]string{
	"websocket": "ws://%s/ws",
	"http":      "http://%s",
	"held":      "http://%s/held", // something on the way holds streams back
}

// overAll runs a test for each of them.
func overAll(t *testing.T, test func(t *testing.T, way string)) {
	t.Helper()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, way)
		})
	}
}

// hold keeps event streams back, as a proxy does that buffers.
func hold(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "text/event-stream" {
			<-r.Context().Done()
			return
		}
		h.ServeHTTP(w, r)
	})
}

// serve starts a service on l.
func serve(t testing.TB, l net.Listener, opts ...transport.Option) *service {
	quiet := slog.New(slog.DiscardHandler)
	s := &service{router: streamer.NewRouter(streamer.WithLogger(quiet))}
	s.router.Handle("echo", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		return &streamer.Result{Success: true, Data: req.Payload}, nil
	}), streamer.WithEstimate(0))
	s.router.Handle("count", streamer.HandlerFunc(s.count))
	s.router.Handle("flaky", streamer.HandlerFunc(s.flaky), streamer.WithBackoff(func(int) time.Duration { return time.Second }))
	s.router.Handle("sleep", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}))
	opts = append([]transport.Option{transport.WithLogger(quiet)}, opts...)
	s.handler = ws.NewHandler(s.router, opts...)
	s.api = sse.NewHandler(s.router, opts...)
	mux := http.NewServeMux()
	mux.Handle("/", s.api)
	mux.Handle("/ws", s.handler)
	mux.Handle("/held/", http.StripPrefix("/held", hold(s.api)))
	hs := &http.Server{Handler: mux}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = hs.Serve(l)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = s.router.Run(ctx)
	}()
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		_ = s.router.Shutdown(ctx)
		_ = s.handler.Shutdown(ctx)
		_ = s.api.Shutdown(ctx)
		_ = hs.Close()
		_ = l.Close()
		cancel()
		<-ran
		<-served
	})
	return s
}

type counting struct {
	N     int           `json:"n"`
	Pause time.Duration `json:"ms"`
}

// count makes n outputs.
func (s *service) count(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	s.runs.Add(1)
	var in counting
	_ = json.Unmarshal(req.Payload, &in)
	for i := range in.N {
		if err := streamer.Output(ctx, i); err != nil {
			return nil, err
		}
		_ = p.Report(100*float64(i+1)/float64(in.N), "")
		if in.Pause > 0 {
			time.Sleep(in.Pause * time.Millisecond)
		}
	}
	return &streamer.Result{Success: true, Data: map[string]int{"n": in.N}}, nil
}

// flaky makes two outputs, and asks for another attempt after the first of each but the third.
func (s *service) flaky(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	for i := range 2 {
		if err := streamer.Output(ctx, i); err != nil {
			return nil, err
		}
		_ = p.Report(50*float64(i+1), "")
		if i == 0 && streamer.Attempt(ctx) < 3 {
			return nil, streamer.NewError(streamer.ErrCodeServiceUnavailable, "not yet").WithRetry(time.Second)
		}
	}
	return &streamer.Result{Success: true}, nil
}

// realBubble runs a test in a bubble with a real service and a client that reaches it.
func realBubble(t *testing.T, way string, plans cutproxy.Plans, f func(t *testing.T, s *service, c *client.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
		s := serve(t, n)
		dial := cutproxy.DialFunc(n.dial)
		if plans != nil {
			dial = cutproxy.Dial(dial, plans)
		}
		tr := &http.Transport{DialContext: dial}
		c, err := client.New(fmt.Sprintf(way, "127.0.0.1"), client.WithLogger(slog.New(slog.DiscardHandler)),
			client.WithHTTPClient(&http.Client{Transport: tr}))
		require.NoError(t, err)
		f(t, s, c)
		require.NoError(t, c.Close())
		tr.CloseIdleConnections()
		close(n.closed)
	})
}

func TestRealServiceEndToEnd(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, way string) {
		realBubble(t, way, nil, func(t *testing.T, s *service, c *client.Client) {
			echoed, err := client.Call[string](t.Context(), c, "echo", "hello")
			require.NoError(t, err)
			require.Equal(t, "hello", echoed)

			// A client that has to find out first how to reach the service comes late to the first one.
			_, err = c.Request(t.Context(), "count", counting{N: 1, Pause: 10_000})
			require.NoError(t, err)
			var percentages []float64
			result, err := c.RequestWithProgress(t.Context(), "count", counting{N: 5, Pause: 500}, func(p client.Progress) {
				percentages = append(percentages, p.Percentage)
			})
			require.NoError(t, err)
			require.JSONEq(t, `{"n":5}`, string(raw(result)))
			require.Equal(t, []float64{20, 40, 60, 80, 100}, percentages)

			r, err := c.Submit(t.Context(), "sleep", nil, client.WithID("z"))
			require.NoError(t, err)
			require.NoError(t, r.Cancel(t.Context(), "enough"))
			_, err = r.Wait(t.Context())
			require.Equal(t, streamer.ErrCodeCanceled, codeOf(err))
			require.NoError(t, r.Cancel(t.Context(), "again"))

			_, err = c.Request(t.Context(), "sleep", 1, client.WithID("z"))
			require.Equal(t, streamer.ErrCodeConflict, codeOf(err))
			_, err = c.Request(t.Context(), "sleep", nil, client.WithID("z"))
			require.Equal(t, streamer.ErrCodeCanceled, codeOf(err))
			_, err = c.Attach(t.Context(), "nobody")
			require.Equal(t, streamer.ErrCodeNotFound, codeOf(err))
			_, err = c.Request(t.Context(), "nonsense", nil)
			require.Equal(t, streamer.ErrCodeInvalidAction, codeOf(err))
		})
	})
}

func TestRealServiceShowsAttempts(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, way string) {
		realBubble(t, way, nil, func(t *testing.T, s *service, c *client.Client) {
			r, err := c.Submit(t.Context(), "flaky", nil)
			require.NoError(t, err)
			var outputs []string
			attempts := 0
			for e, err := range r.Events(t.Context()) {
				require.NoError(t, err)
				switch e.Kind {
				case progress.Started:
					attempts = e.Attempt
					outputs = outputs[:e.OutputsFrom]
				case progress.Retrying:
					require.Equal(t, "not yet", e.Error.Message)
				case progress.Output:
					require.Equal(t, len(outputs), e.Index)
					outputs = append(outputs, string(e.Data))
				}
			}
			require.Equal(t, 3, attempts)
			require.Equal(t, []string{"0", "1"}, outputs)
		})
	})
}

// exact reads a request that counts to n, and holds it to every event once and in order.
func exact(t *testing.T, r *client.Request, n int) {
	t.Helper()
	next := uint64(1)
	outputs := 0
	percentage := 0.0
	for e, err := range r.Events(t.Context()) {
		require.NoError(t, err)
		if e.Kind == client.Progressed {
			require.GreaterOrEqual(t, e.Progress.Percentage, percentage)
			percentage = e.Progress.Percentage
			continue
		}
		require.Equal(t, next, e.Seq)
		next++
		if e.Kind == progress.Output {
			require.Equal(t, fmt.Sprint(outputs), string(e.Data))
			outputs++
		}
	}
	require.Equal(t, n, outputs)
	require.EqualValues(t, n+4, next)
	require.Equal(t, 100.0, percentage)
}

func TestRealServiceShowsTheExactSequenceWhereverTheConnectionIsCut(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, way string) {
		cuts, step := 0, 1
		if way != ways["websocket"] {
			step = 7 // headers make for many bytes
		}
		for at := 1; ; at += step {
			dials := 0
			realBubble(t, way, func(n int) cutproxy.Plan {
				dials = n + 1
				if n > 0 {
					return cutproxy.Plan{}
				}
				return cutproxy.Plan{ToClient: at}
			}, func(t *testing.T, s *service, c *client.Client) {
				r, err := c.Submit(t.Context(), "count", counting{N: 4, Pause: 50})
				require.NoError(t, err)
				exact(t, r, 4)
				require.EqualValues(t, 1, s.runs.Load())
			})
			if dials < 2 || at > 3000 {
				break
			}
			cuts++
		}
		require.Greater(t, cuts*step, 1000)
	})
}

func TestRealServiceOverTCPCutAfterEveryEvent(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"websocket", "http"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			s := serve(t, l)
			proxy, err := cutproxy.Listen(l.Addr().String(), func(int) cutproxy.Plan { return cutproxy.Plan{} })
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, proxy.Close()) })
			tr := &http.Transport{}
			t.Cleanup(tr.CloseIdleConnections)
			c, err := client.New(fmt.Sprintf(ways[name], proxy.Addr()), client.WithLogger(slog.New(slog.DiscardHandler)),
				client.WithBackoff(time.Millisecond, 5*time.Millisecond), client.WithHTTPClient(&http.Client{Transport: tr}))
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, c.Close()) })

			const n = 30
			r, err := c.Submit(t.Context(), "count", counting{N: n, Pause: 10})
			require.NoError(t, err)
			watched := make(chan struct{})
			go func() {
				defer close(watched)
				for range r.Events(t.Context()) {
					proxy.Cut()
				}
			}()
			exact(t, r, n)
			<-watched
			require.EqualValues(t, 1, s.runs.Load())
			require.Greater(t, proxy.Accepted(), 5)
		})
	}
}

func TestRealServiceShutdownMovesItsClients(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, way string) {
		realBubble(t, way, nil, func(t *testing.T, s *service, c *client.Client) {
			r, err := c.Submit(t.Context(), "count", counting{N: 4, Pause: 500})
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond) // it runs
			down := make(chan struct{})
			go func() {
				defer close(down)
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				_ = s.router.Shutdown(ctx)
				time.Sleep(time.Millisecond) // the end is on its way
				if way != ways["held"] {     // polls are answered as long as there is a server
					_ = s.handler.Shutdown(ctx)
					_ = s.api.Shutdown(ctx)
				}
			}()
			exact(t, r, 4) // drained, and shown to its end
			<-down
		})
	})
}

func TestRealServiceManyRequestsOnOneConnection(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, way string) {
		realBubble(t, way, nil, func(t *testing.T, s *service, c *client.Client) {
			errs := make(chan error)
			const n = 300
			for range n {
				go func() {
					result, err := c.Request(t.Context(), "count", counting{N: 5})
					if err == nil && string(raw(result)) != `{"n":5}` {
						err = fmt.Errorf("result %s", raw(result))
					}
					errs <- err
				}()
			}
			for range n {
				require.NoError(t, <-errs)
			}
			require.EqualValues(t, n, s.runs.Load())
		})
	})
}
