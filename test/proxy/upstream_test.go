package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

func TestMain(m *testing.M) {
	// The server waits half a second after it has closed a connection whose body was not read.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// upstream is the server behind the proxy. Its router goes on while the server is down, as logs
// and queues do that are not kept in memory.
type upstream struct {
	t       *testing.T
	router  *streamer.Mux
	options []transport.Option
	addr    string
	serving *serving // nil: it is down
	over    chan struct{}

	mu    sync.Mutex
	steps map[string]chan step // by request
}

// step is what a handler is to do next. errDone ends its request well.
type step func(context.Context, streamer.Reporter) error

var errDone = errors.New("done")

// startUpstream starts a server with the actions work, which does what the test says, and echo.
func startUpstream(t *testing.T, options ...transport.Option) *upstream {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	u := &upstream{t: t, options: append(options, transport.WithLogger(quiet)), addr: address(t),
		over: make(chan struct{}), steps: map[string]chan step{}}
	u.router = streamer.NewRouter(streamer.WithLogger(quiet))
	u.router.Handle("work", streamer.HandlerFunc(u.work))
	u.router.Handle("echo", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		return &streamer.Result{Success: true, Data: req.Payload}, nil
	}), streamer.WithEstimate(0))
	ran := make(chan error, 1)
	go func() { ran <- u.router.Run(context.WithoutCancel(t.Context())) }()
	u.up()
	t.Cleanup(func() {
		close(u.over)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		require.NoError(t, u.router.Shutdown(ctx))
		require.NoError(t, <-ran)
		if u.serving != nil {
			u.kill()
		}
	})
	return u
}

func (u *upstream) work(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	for steps := u.of(req.ID); ; {
		select {
		case next := <-steps:
			switch err := next(ctx, p); err {
			case nil:
			case errDone:
				return &streamer.Result{Success: true, Data: "done"}, nil
			default:
				return nil, err
			}
		case <-u.over:
			return nil, errors.New("the test is over")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (u *upstream) of(id string) chan step {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.steps[id] == nil {
		u.steps[id] = make(chan step)
	}
	return u.steps[id]
}

// do has the handler of a request take a step, and waits until it has.
func (u *upstream) do(id string, s step) {
	u.t.Helper()
	took := make(chan struct{})
	select {
	case u.of(id) <- func(ctx context.Context, p streamer.Reporter) error {
		defer close(took)
		return s(ctx, p)
	}:
		<-took
	case <-time.After(patience):
		require.FailNow(u.t, "the handler does not run", id)
	}
}

// output has a request put something out.
func (u *upstream) output(id string, value any) {
	u.t.Helper()
	u.do(id, func(ctx context.Context, _ streamer.Reporter) error { return streamer.Output(ctx, value) })
}

// report has a request report progress, and returns when it did.
func (u *upstream) report(id string, percentage float64) (at time.Time) {
	u.t.Helper()
	u.do(id, func(_ context.Context, p streamer.Reporter) error {
		at = time.Now()
		return p.Report(percentage, "going on")
	})
	return at
}

// finish ends a request.
func (u *upstream) finish(id string) {
	u.t.Helper()
	u.do(id, func(context.Context, streamer.Reporter) error { return errDone })
}

// serving is one life of the server.
type serving struct {
	net.Listener
	ws     *websocket.Handler
	api    *sse.Handler
	server *http.Server
	done   chan struct{}

	mu    sync.Mutex
	conns []net.Conn
}

// Accept implements net.Listener.
func (s *serving) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err == nil {
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
	}
	return conn, err
}

// up starts the server, always on the same port.
func (u *upstream) up() {
	u.t.Helper()
	s := &serving{done: make(chan struct{}), ws: websocket.NewHandler(u.router, u.options...), api: sse.NewHandler(u.router, u.options...)}
	l, err := net.Listen("tcp", u.addr)
	require.NoError(u.t, err)
	s.Listener = l
	mux := http.NewServeMux()
	mux.Handle("/ws", s.ws)
	mux.Handle("/api/", http.StripPrefix("/api", s.api))
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	u.serving = s
	go func() {
		defer close(s.done)
		_ = s.server.Serve(s)
	}()
}

// kill ends the server as the system does with a process: all connections are reset.
func (u *upstream) kill() {
	u.t.Helper()
	s := u.serving
	u.serving = nil
	s.Close()
	<-s.done
	s.mu.Lock()
	for _, conn := range s.conns {
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.t.Context()), patience)
	defer cancel()
	require.NoError(u.t, s.ws.Shutdown(ctx))
	require.NoError(u.t, s.api.Shutdown(ctx))
	require.NoError(u.t, s.server.Close())
}

// alone waits until nobody is connected.
func (u *upstream) alone() {
	u.t.Helper()
	require.Eventually(u.t, func() bool {
		return u.serving.ws.Stats().Connections == 0 && u.serving.api.Stats().Active == 0
	}, patience, 5*time.Millisecond, "the server does not notice that the clients are gone")
}
