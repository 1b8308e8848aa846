package client

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/pay-theory/streamer/v2/internal/wire"
)

const (
	subprotocol = "streamer.v1"
	clientName  = "streamer-go/2"

	writeTimeout  = 10 * time.Second // for one frame
	closeTimeout  = 2 * time.Second  // for the closing handshake
	silenceMargin = 10 * time.Second // beyond the server's ping interval
	maxSilence    = 5 * time.Minute  // whatever the server says
	maxHello      = 3 << 10          // bytes of requests to resume, before the server's limit is known; others are attached after the welcome
	maxFrame      = 32 << 10         // bytes of messages that share a frame
	healthyAfter  = 5 * time.Second  // of life: then backoff starts over
)

var (
	errSilent     = errors.New("nothing heard from the server for too long")
	errNoWelcome  = errors.New("the server sent no welcome in time")
	errWriteStuck = errors.New("the server takes no messages")
)

// socket carries the messages of a connection: a WebSocket, or calls over HTTP that act as
// one.
type socket interface {
	Read(ctx context.Context) (websocket.MessageType, []byte, error)
	Write(ctx context.Context, typ websocket.MessageType, message []byte) error
	Close(code websocket.StatusCode, reason string) error
	CloseNow() error
}

// conn is one connection. It has a goroutine that reads, in serve, and one that writes while
// there is something to write.
type conn struct {
	c     *Client
	ws    socket
	ctx   context.Context // ends the connection at once
	kill  context.CancelCauseFunc
	token string
	watch *time.Timer // ends the connection when it was silent for too long
	young func() bool // stops what ends the connection with the client before the welcome

	welcomed time.Time // when the server was heard first

	// Set by the welcome.
	batch   bool
	limits  wire.Limits
	silence time.Duration

	// Guarded by c.mu.
	resumed map[*flow]uint64 // flows in hello, and after which event
	slots   int              // flows that are attached, or being attached
	out     [][]byte
	pong    bool // is owed
	writing bool
	bye     string // reason to close with once all is written
	leaving bool
}

// dial opens a connection and says hello.
func (c *Client) dial() (*conn, error) {
	ctx, kill := context.WithCancelCause(context.WithoutCancel(c.life))
	cn := &conn{c: c, ctx: ctx, kill: kill}
	late := time.Now().Add(c.cfg.connectTimeout)
	if c.calls {
		late = late.Add(c.cfg.connectTimeout) // for the polling in place of a stream that is held up
	}
	if err := cn.open(); err != nil {
		kill(err)
		return nil, err
	}
	cn.watch = time.AfterFunc(time.Until(late), func() { kill(errNoWelcome) })
	cn.young = context.AfterFunc(c.life, func() { kill(ErrClosed) })
	c.mu.Lock()
	defer c.mu.Unlock()
	cn.send(c.hello(cn))
	return cn, nil
}

func (cn *conn) open() error {
	c := cn.c
	ctx, cancel := context.WithTimeoutCause(c.life, c.cfg.connectTimeout, errNoWelcome)
	defer cancel()
	token, err := c.token(ctx)
	if err != nil {
		return err
	}
	cn.token = token
	header := c.header(token)
	if c.calls {
		cn.ws = newCalls(cn.ctx, c, header)
		return nil
	}
	ws, resp, err := websocket.Dial(ctx, c.url, &websocket.DialOptions{
		HTTPClient:   c.cfg.http,
		HTTPHeader:   header,
		Subprotocols: []string{subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			cn.heard()
			return true
		},
	})
	if err != nil {
		return dialError(resp, err, time.Now())
	}
	cn.ws = ws
	if ws.Subprotocol() != subprotocol {
		_ = ws.CloseNow()
		return &protocolError{"the server does not speak " + subprotocol}
	}
	ws.SetReadLimit(int64(c.cfg.limits.Message))
	return nil
}

// read hands over what comes until the connection ends, and returns why it did.
func (cn *conn) read(receive func([]*wire.Outbound) error) error {
	defer func() {
		cn.watch.Stop()
		cn.young()
	}()
	var messages []*wire.Outbound
	for {
		_, frame, err := cn.ws.Read(cn.ctx)
		if err != nil {
			return cn.end(err)
		}
		cn.heard()
		messages = messages[:0]
		for text := range wire.SplitBatch(frame) {
			m, err := wire.DecodeOutbound(text)
			if err != nil {
				return cn.end(&protocolError{"the server sent a message that makes no sense: " + err.Error()})
			}
			messages = append(messages, m)
		}
		if err := receive(messages); err != nil {
			return cn.end(err)
		}
		clear(messages)
	}
}

// end ends the connection for good and returns why it ended first.
func (cn *conn) end(err error) error {
	cn.kill(err)
	_ = cn.ws.CloseNow()
	if _, closed := errors.AsType[websocket.CloseError](err); closed {
		return err
	}
	return context.Cause(cn.ctx)
}

// heard notes that the peer lives.
func (cn *conn) heard() {
	if !cn.welcomed.IsZero() {
		cn.watch.Reset(cn.silence)
	}
}

// welcome takes what the server says about itself. It is called by the reading goroutine, with
// the mutex held.
func (cn *conn) welcome(m *wire.Outbound) error {
	if m.V != wire.Version {
		return &protocolError{"the server speaks another version of the protocol"}
	}
	for _, name := range m.Caps {
		cn.batch = cn.batch || name == wire.CapBatch
	}
	cn.limits = m.Limits
	if cn.limits.MaxInflight <= 0 {
		cn.limits.MaxInflight = 32
	}
	if cn.limits.MaxAttached <= 0 {
		cn.limits.MaxAttached = 256
	}
	interval := min(time.Duration(m.PingIntervalMS)*time.Millisecond, maxSilence)
	if interval <= 0 {
		interval = maxSilence
	}
	cn.silence = interval + silenceMargin
	cn.watch.Stop()
	cn.watch = time.AfterFunc(cn.silence, func() { cn.kill(errSilent) })
	return nil
}

// follow has the events shown of a request that was accepted, which the server of a WebSocket
// does by itself. It is called with the mutex held.
func (cn *conn) follow(id, epoch string) {
	if s, ok := cn.ws.(*calls); ok {
		s.follow(wire.Cursor{ID: id, Epoch: epoch, After: 1}, "")
	}
}

// send queues a message. It is called with the mutex held, and never waits. What is queued is
// bounded by the limits on requests in flight and attached.
func (cn *conn) send(message []byte) {
	cn.out = append(cn.out, message)
	cn.write()
}

// write starts the goroutine that writes, unless it runs. It is called with the mutex held.
func (cn *conn) write() {
	if !cn.writing {
		cn.writing = true
		cn.c.wg.Go(cn.flush)
	}
}

// close closes the connection in order, after what is queued. It is called with the mutex
// held, and does not wait.
func (cn *conn) close(reason string) {
	if cn.leaving {
		return
	}
	cn.leaving = true
	cn.bye = reason
	cn.write()
}

// flush writes what is queued until there is nothing more.
func (cn *conn) flush() {
	stuck := time.AfterFunc(writeTimeout, func() { cn.kill(errWriteStuck) })
	for {
		cn.c.mu.Lock()
		frame := cn.frame()
		leaving := cn.leaving
		if frame == nil && !leaving {
			cn.writing = false
			cn.c.mu.Unlock()
			stuck.Stop()
			return
		}
		cn.c.mu.Unlock()
		if frame == nil {
			stuck.Reset(closeTimeout)
			_ = cn.ws.Close(websocket.StatusNormalClosure, wire.CloseReason(cn.bye))
			stuck.Stop()
			return
		}
		stuck.Reset(writeTimeout)
		if err := cn.ws.Write(cn.ctx, websocket.MessageText, frame); err != nil {
			stuck.Reset(closeTimeout) // the peer may have closed: the reader finds the reason
			return
		}
	}
}

// frame takes what goes out next: where the server allows it as many messages as fit.
func (cn *conn) frame() []byte {
	if cn.pong {
		cn.pong = false
		cn.out = append(cn.out, (&wire.Inbound{Type: wire.TypePong}).Append(nil))
	}
	n, size := 0, 0
	most := maxFrame
	if limit := cn.limits.MaxMessageBytes; limit > 0 {
		most = min(most, limit)
	}
	for n < len(cn.out) && (n == 0 || cn.batch && size+len(cn.out[n]) < most) {
		size += len(cn.out[n]) + 1
		n++
	}
	var frame []byte
	switch n {
	case 0:
		cn.out = nil
		return nil
	case 1:
		frame = cn.out[0]
	default:
		frame = make([]byte, 0, size)
		for i, message := range cn.out[:n] {
			if i > 0 {
				frame = append(frame, '\n')
			}
			frame = append(frame, message...)
		}
	}
	clear(cn.out[:n])
	cn.out = cn.out[n:]
	return frame
}

// header returns what each connect or call has in its header.
func (c *Client) header(token string) http.Header {
	header := c.cfg.header.Clone()
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return header
}

// token asks the source, one question at a time.
func (c *Client) token(ctx context.Context) (string, error) {
	if c.cfg.token == nil {
		return "", nil
	}
	select {
	case c.asking <- struct{}{}:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { <-c.asking }()
	return c.cfg.token(ctx)
}
