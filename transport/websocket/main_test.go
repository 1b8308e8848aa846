package websocket_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/pipes"
	"github.com/pay-theory/streamer/v2/transport/internal/worker"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a server with everything behind it. Nobody works on its queue: tests append to
// the log as a worker would.
type service struct {
	t       *testing.T
	log     *memlog.Log
	mux     *streamer.Mux
	handler *websocket.Handler
	server  *http.Server
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	url     string
}

type setup struct {
	listener net.Listener // nil: a socket on the loopback interface
	router   func(transport.Router) transport.Router
	log      func(progress.Log) progress.Log
	wrap     func(http.Handler) http.Handler
	options  []transport.Option
}

func start(t *testing.T, opts ...transport.Option) *service {
	return setup{options: opts}.start(t)
}

func (u setup) start(t *testing.T) *service {
	t.Helper()
	s := &service{t: t, log: memlog.New()}
	var log progress.Log = s.log
	if u.log != nil {
		log = u.log(log)
	}
	quiet := slog.New(slog.DiscardHandler)
	s.mux = streamer.NewRouter(streamer.WithLog(log), streamer.WithLogger(quiet), streamer.WithRetention(24*time.Hour))
	s.mux.Handle("echo", streamer.HandlerFunc(echo), streamer.WithEstimate(0))
	s.mux.Handle("long", streamer.HandlerFunc(echo))
	var router transport.Router = s.mux
	if u.router != nil {
		router = u.router(s.mux)
	}
	s.handler = websocket.NewHandler(router, append([]transport.Option{transport.WithLogger(quiet)}, u.options...)...)
	var h http.Handler = s.handler
	if u.wrap != nil {
		h = u.wrap(h)
	}
	s.server = &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError)}
	l := u.listener
	if l == nil {
		var err error
		l, err = net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
	}
	s.dial = new(net.Dialer).DialContext
	if p, ok := l.(*pipes.Listener); ok {
		s.dial = p.Dial
	}
	s.url = "http://" + l.Addr().String() + "/ws"
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.server.Serve(l)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, s.mux.Shutdown(ctx))
		require.NoError(t, s.handler.Shutdown(ctx))
		s.server.Close()
		<-served
		s.log.Close()
	})
	return s
}

func echo(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	return &streamer.Result{Success: true, Data: req.Payload}, nil
}

// peer is a client that speaks the protocol by hand.
type peer struct {
	t     *testing.T
	conn  *ws.Conn
	ahead []string // messages of a frame that was read
}

// connect opens a connection with these headers, given as pairs of name and value.
func (s *service) connect(header ...string) *peer {
	s.t.Helper()
	p, resp, err := s.tryConnect(header...)
	if err != nil && resp != nil {
		body, _ := io.ReadAll(resp.Body)
		require.NoError(s.t, err, string(body))
	}
	require.NoError(s.t, err)
	return p
}

func (s *service) tryConnect(header ...string) (*peer, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tr := &http.Transport{DialContext: s.dial, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	opts := &ws.DialOptions{HTTPClient: &http.Client{Transport: tr}, HTTPHeader: http.Header{}}
	url := s.url
	for i := 0; i < len(header); i += 2 {
		switch header[i] {
		case "Host":
			opts.Host = header[i+1]
		case "Protocol":
			opts.Subprotocols = append(opts.Subprotocols, header[i+1])
		case "Query":
			url += "?" + header[i+1]
		default:
			opts.HTTPHeader.Add(header[i], header[i+1])
		}
	}
	conn, resp, err := ws.Dial(ctx, url, opts)
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(-1)
	s.t.Cleanup(func() { conn.CloseNow() })
	return &peer{t: s.t, conn: conn}, resp, nil
}

// refused asserts that a connection is refused with this status, and returns the error code.
func (s *service) refused(status int, header ...string) string {
	s.t.Helper()
	p, resp, err := s.tryConnect(header...)
	if p != nil {
		p.conn.CloseNow()
	}
	require.Error(s.t, err)
	require.NotNil(s.t, resp, "%v", err)
	require.Equal(s.t, status, resp.StatusCode)
	var problem struct{ Code string }
	require.NoError(s.t, json.NewDecoder(resp.Body).Decode(&problem))
	return problem.Code
}

// hello opens a connection and says hello.
func (s *service) hello(header ...string) *peer {
	s.t.Helper()
	p := s.connect(header...)
	p.send(`{"type":"hello","v":1,"caps":["batch"]}`)
	p.expect("welcome", "")
	return p
}

func (p *peer) send(message string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(p.t, p.conn.Write(ctx, ws.MessageText, []byte(message)))
}

// read returns the next message.
func (p *peer) read() (string, error) {
	if len(p.ahead) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		_, data, err := p.conn.Read(ctx)
		if err != nil {
			return "", err
		}
		p.ahead = strings.Split(string(data), "\n")
	}
	message := p.ahead[0]
	p.ahead = p.ahead[1:]
	return message, nil
}

func (p *peer) next() *wire.Outbound {
	p.t.Helper()
	message, err := p.read()
	require.NoError(p.t, err)
	m, err := wire.DecodeOutbound([]byte(message))
	require.NoError(p.t, err, message)
	return m
}

// expect reads a message and asserts its type and request.
func (p *peer) expect(typ, id string) *wire.Outbound {
	p.t.Helper()
	m := p.next()
	require.Equal(p.t, typ, m.Type, "%+v", m)
	require.Equal(p.t, id, m.RequestID, "%+v", m)
	return m
}

// fails reads a message and asserts that it is an error of a call.
func (p *peer) fails(code, id string) *wire.Outbound {
	p.t.Helper()
	m := p.expect("error", id)
	require.Zero(p.t, m.Seq)
	require.Equal(p.t, code, m.Error.Code, m.Error.Message)
	return m
}

// lives asserts that the connection still serves messages, and that nothing else was sent.
func (p *peer) lives() {
	p.t.Helper()
	p.send(`{"type":"ping","ref":"lives"}`)
	require.Equal(p.t, "lives", p.expect("pong", "").Ref)
}

// closed reads, and answers pings, until the connection is closed, and asserts with which code.
func (p *peer) closed(code int) string {
	p.t.Helper()
	for {
		message, err := p.read()
		if message == `{"type":"ping"}` {
			p.conn.Write(context.Background(), ws.MessageText, []byte(`{"type":"pong"}`))
		}
		if err == nil {
			continue
		}
		var ce ws.CloseError
		require.ErrorAs(p.t, err, &ce)
		require.Equal(p.t, code, int(ce.Code), "reason %q", ce.Reason)
		return ce.Reason
	}
}

// expectClosed is closed where nothing else was sent before.
func (p *peer) expectClosed(code int) string {
	p.t.Helper()
	message, err := p.read()
	require.Error(p.t, err, message)
	var ce ws.CloseError
	require.ErrorAs(p.t, err, &ce)
	require.Equal(p.t, code, int(ce.Code), "reason %q", ce.Reason)
	return ce.Reason
}

// rawConn is a connection after the handshake, below the frames of WebSocket.
type rawConn struct {
	net.Conn
	t   *testing.T
	got string // and not looked at yet
}

// raw opens a connection and sends early together with the handshake.
func (s *service) raw(early []byte) *rawConn {
	s.t.Helper()
	addr := strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/ws")
	conn, err := s.dial(context.Background(), "tcp", addr)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	_, err = conn.Write(append([]byte("GET /ws HTTP/1.1\r\nHost: "+addr+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"), early...))
	require.NoError(s.t, err)
	raw := &rawConn{Conn: conn, t: s.t}
	raw.reads("\r\n\r\n")
	return raw
}

// reads reads until what has come holds text.
func (c *rawConn) reads(text string) {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	for {
		if _, after, found := strings.Cut(c.got, text); found {
			c.got = after
			return
		}
		buf := make([]byte, 1024)
		n, err := c.Read(buf)
		require.NoError(c.t, err, "%q", c.got)
		c.got += string(buf[:n])
	}
}

// frame returns a frame of a client, of at most 125 bytes, masked with zeros.
func frame(head byte, payload string) []byte {
	return append([]byte{head, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

// worker returns a worker for a request that was submitted anonymously.
func (s *service) worker(id string) *worker.Worker {
	s.t.Helper()
	return s.workerOf("/", id)
}

func (s *service) workerOf(scope, id string) *worker.Worker {
	s.t.Helper()
	return worker.New(s.t, s.log, progress.Key{Scope: scope, ID: id})
}
