package sse_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	events "github.com/pay-theory/streamer/v2/internal/sse"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/pipes"
	"github.com/pay-theory/streamer/v2/transport/sse"
)

func TestMain(m *testing.M) {
	// The server waits half a second after it has closed a connection whose body was not read.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// service is a server with everything behind it.
type service struct {
	t       *testing.T
	mux     *streamer.Mux
	handler *sse.Handler
	http    *http.Client
	addr    string

	over chan struct{} // closed when handlers are to return

	mu      sync.Mutex
	scripts map[string]chan func(context.Context, streamer.Reporter) error
}

type setup struct {
	real    bool // a socket on the loopback interface, else a pipe
	log     func(progress.Log) progress.Log
	router  func(transport.Router) transport.Router
	wrap    func(http.Handler) http.Handler
	server  func(*http.Server)
	client  func(*http.Transport)
	options []transport.Option
}

func start(t *testing.T, opts ...transport.Option) *service { return setup{options: opts}.start(t) }

func (u setup) start(t *testing.T) *service {
	t.Helper()
	s := &service{t: t, scripts: map[string]chan func(context.Context, streamer.Reporter) error{}, over: make(chan struct{})}
	quiet := slog.New(slog.DiscardHandler)
	memory := memlog.New()
	var log progress.Log = memory
	if u.log != nil {
		log = u.log(log)
	}
	s.mux = streamer.NewRouter(streamer.WithLog(log), streamer.WithLogger(quiet), streamer.WithRetention(24*time.Hour))
	s.mux.Handle("echo", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		return &streamer.Result{Success: true, Data: req.Payload}, nil
	}), streamer.WithEstimate(0))
	s.mux.Handle("refuse", streamer.HandlerFunc(func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
		return nil, streamer.NewError("OUT_OF_PAPER", "tray 2 is empty").WithDetail("tray", 2).WithRetry(1500 * time.Millisecond)
	}), streamer.WithEstimate(0))
	s.mux.Handle("work", streamer.HandlerFunc(s.work))
	var router transport.Router = s.mux
	if u.router != nil {
		router = u.router(router)
	}
	s.handler = sse.NewHandler(router, append([]transport.Option{transport.WithLogger(quiet)}, u.options...)...)
	var h http.Handler = s.handler
	if u.wrap != nil {
		h = u.wrap(h)
	}
	server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError)}
	if u.server != nil {
		u.server(server)
	}
	tr := &http.Transport{DialContext: new(net.Dialer).DialContext}
	var l net.Listener
	if u.real {
		var err error
		l, err = net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
	} else {
		p := pipes.Listen()
		tr.DialContext = p.Dial
		l = p
	}
	if u.client != nil {
		u.client(tr)
	}
	s.addr = l.Addr().String()
	s.http = &http.Client{Transport: tr}
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	wg.Go(func() { s.mux.Run(context.Background()) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		close(s.over)
		require.NoError(t, s.mux.Shutdown(ctx))
		require.NoError(t, s.handler.Shutdown(ctx))
		tr.CloseIdleConnections()
		server.Close()
		wg.Wait()
		memory.Close()
	})
	return s
}

// errDone ends a request well.
var errDone = errors.New("done")

// work does what the test says.
func (s *service) work(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	script := s.script(req.ID)
	for {
		select {
		case step := <-script:
			switch err := step(ctx, p); err {
			case nil:
			case errDone:
				return &streamer.Result{Success: true, Data: "done"}, nil
			default:
				return nil, err
			}
		case <-s.over:
			return nil, errTest
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *service) script(id string) chan func(context.Context, streamer.Reporter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.scripts[id]
	if c == nil {
		c = make(chan func(context.Context, streamer.Reporter) error)
		s.scripts[id] = c
	}
	return c
}

// does has the request's handler do something, and returns when it has begun with it.
func (s *service) does(id string, step func(context.Context, streamer.Reporter) error) {
	s.t.Helper()
	select {
	case s.script(id) <- step:
	case <-time.After(10 * time.Second):
		s.t.Fatal("the handler of ", id, " does not run")
	}
}

func (s *service) puts(id string, v any) {
	s.t.Helper()
	s.does(id, func(ctx context.Context, _ streamer.Reporter) error { return streamer.Output(ctx, v) })
}

func (s *service) reports(id string, percentage float64) {
	s.t.Helper()
	s.does(id, func(_ context.Context, p streamer.Reporter) error { return p.Report(percentage, "") })
}

func (s *service) fails(id string, err error) {
	s.t.Helper()
	s.does(id, func(context.Context, streamer.Reporter) error { return err })
}

// finishes ends the request.
func (s *service) finishes(id string) {
	s.t.Helper()
	s.fails(id, errDone)
}

// submits has a request that does what the test says.
func (s *service) submits(id string) {
	s.t.Helper()
	s.submitsAs(streamer.Identity{}, id)
}

func (s *service) submitsAs(who streamer.Identity, id string) {
	s.t.Helper()
	_, err := s.mux.Submit(context.Background(), who, &streamer.Request{ID: id, Action: "work"})
	require.NoError(s.t, err)
}

// answer is a response that was read.
type answer struct {
	*http.Response
	t    *testing.T
	text string
}

// call makes a call, with headers given as pairs of name and value, and reads the answer.
func (s *service) call(method, path, body string, header ...string) *answer {
	s.t.Helper()
	resp := s.open(method, path, body, header...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return &answer{resp, s.t, string(text)}
}

func (s *service) open(method, path, body string, header ...string) *http.Response {
	s.t.Helper()
	resp, err := s.try(context.Background(), method, path, body, header...)
	require.NoError(s.t, err)
	return resp
}

func (s *service) try(ctx context.Context, method, path, body string, header ...string) (*http.Response, error) {
	s.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.addr+path, r)
	require.NoError(s.t, err)
	if method == "POST" && body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		if header[i] == "Content-Type" {
			req.Header.Del("Content-Type")
		}
		req.Header.Add(header[i], header[i+1])
	}
	return s.http.Do(req)
}

// is asserts the status.
func (a *answer) is(status int) *answer {
	a.t.Helper()
	require.Equal(a.t, status, a.StatusCode, a.text)
	return a
}

// problem asserts status and code, and returns the detail.
func (a *answer) problem(status int, code string) string {
	a.t.Helper()
	a.is(status)
	require.Equal(a.t, "application/problem+json", a.Header.Get("Content-Type"))
	require.Equal(a.t, "no-store", a.Header.Get("Cache-Control"))
	p := a.members()
	require.Equal(a.t, code, p["code"], a.text)
	require.EqualValues(a.t, status, p["status"])
	return p["detail"].(string)
}

func (a *answer) members() map[string]any {
	a.t.Helper()
	var m map[string]any
	require.NoError(a.t, json.Unmarshal([]byte(a.text), &m), a.text)
	return m
}

// stream is an open event stream.
type stream struct {
	t    *testing.T
	resp *http.Response
	r    *events.Reader
	last string // id of the last event that had one of its own
}

// stream opens a stream.
func (s *service) stream(path string, header ...string) *stream {
	s.t.Helper()
	return s.streaming(s.open("GET", path, "", header...))
}

func (s *service) streaming(resp *http.Response) *stream {
	s.t.Helper()
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		text, _ := io.ReadAll(resp.Body)
		require.Equal(s.t, 200, resp.StatusCode, string(text))
	}
	require.Equal(s.t, "text/event-stream", resp.Header.Get("Content-Type"))
	return &stream{t: s.t, resp: resp, r: events.NewReader(resp.Body, 1<<20)}
}

// read returns the next event, whose name must be the message's type.
func (st *stream) read() (events.Event, *wire.Outbound, error) {
	st.t.Helper()
	for {
		e, err := st.r.Next()
		if err != nil {
			return e, nil, err
		}
		if e.Data == nil {
			continue
		}
		m, err := wire.DecodeOutbound(e.Data)
		require.NoError(st.t, err)
		require.Equal(st.t, e.Name, m.Type)
		st.last = e.ID
		return e, m, nil
	}
}

// expect reads an event and asserts its type and request.
func (st *stream) expect(typ, id string) *wire.Outbound {
	st.t.Helper()
	_, m, err := st.read()
	require.NoError(st.t, err)
	require.Equal(st.t, typ, m.Type, "%+v", m)
	require.Equal(st.t, id, m.RequestID, "%+v", m)
	return m
}

// ends asserts that the stream says that it ends, and does.
func (st *stream) ends() {
	st.t.Helper()
	st.expect("end", "")
	st.closes()
}

func (st *stream) closes() {
	st.t.Helper()
	_, m, err := st.read()
	require.ErrorIs(st.t, err, io.EOF, "%+v", m)
}

var errTest = errors.New("secret")
