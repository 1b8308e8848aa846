package websocket

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/door"
)

// subprotocol is what clients offer that speak the protocol in full.
const subprotocol = "streamer.v1"

// Handler accepts WebSocket connections and serves them. Its methods are safe for concurrent
// use.
type Handler struct {
	router  transport.Router
	cfg     *transport.Config
	log     *slog.Logger
	start   time.Time       // what now counts from
	ctx     context.Context // of calls to the router; ends when Shutdown gives up waiting
	cancel  context.CancelFunc
	endless context.Context // of reads and writes, which end with their connection

	buffers sync.Pool // *[]byte, for what is read and written
	batches sync.Pool // *batch
	door    *door.Door
	stats   counters

	active  atomic.Int64  // upgrades and goroutines
	closing atomic.Bool   // set under mu
	moving  atomic.Bool   // clients were told to move
	idle    chan struct{} // closed when closing and nothing is active
	settled sync.Once
	emptied chan struct{} // of capacity 1: closing, and the last connection went

	mu      sync.Mutex
	conns   []*conn
	beating bool
}

// NewHandler returns a handler that serves router. It panics on invalid options.
func NewHandler(router transport.Router, opts ...transport.Option) *Handler {
	if router == nil {
		panic("websocket: NewHandler: the router is nil")
	}
	h := &Handler{router: router, cfg: transport.NewConfig(opts...), start: time.Now(),
		idle: make(chan struct{}), emptied: make(chan struct{}, 1)}
	h.log = h.cfg.Logger
	h.door = door.New(&h.cfg.Limits)
	// Connections outlive the request that opened them, and what they ask of the router outlives
	// them, so neither can descend from a request's context: this is the root, Shutdown its end.
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.endless = context.WithoutCancel(h.ctx)
	h.buffers.New = func() any { b := make([]byte, 0, bufferSize); return &b }
	h.batches.New = func() any { return new(batch) }
	return h
}

var (
	errRestarting = streamer.NewError(streamer.ErrCodeServiceUnavailable, "server is restarting")
	errUpgrade    = streamer.NewError(streamer.ErrCodeInternalError, "the server's middleware does not let connections be upgraded")
)

// ServeHTTP upgrades the request and returns: the connection is served in the background.
// What it refuses it answers with a status and application/problem+json.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.active.Add(1)
	defer h.leave()
	if err := h.accept(w, r); err != nil {
		h.stats.refused.Add(1)
		transport.WriteError(w, err)
	}
}

// accept serves the connection of r, or returns why not.
func (h *Handler) accept(w http.ResponseWriter, r *http.Request) *streamer.Error {
	c := &conn{h: h}
	if err := h.enter(c, r); err != nil {
		return err
	}
	served := false
	defer func() {
		if !served {
			c.visit.Leave()
		}
	}()
	who, known, err := h.cfg.Admit(r, h.router)
	if err != nil {
		return err
	}
	if !hijackable(w) {
		h.log.Error("connections can't be upgraded: the http.ResponseWriter is no http.Hijacker")
		return errUpgrade
	}
	most := h.cfg.Limits.MessageBytes
	if known {
		err = c.admit(who)
	} else {
		most = min(most, strangerBytes)
		c.request = r.WithContext(h.ctx)
		err = c.visit.Tolerate()
	}
	if err != nil {
		return err
	}
	c.open(h.now())
	ws, failed := websocket.Accept(&upgrade{ResponseWriter: w, link: &c.link}, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // Admit is stricter
		OnPingReceived:     func(context.Context, []byte) bool { return c.control() },
		OnPongReceived:     func(context.Context, []byte) { c.control() },
	})
	if failed != nil {
		h.stats.refused.Add(1) // Accept has answered
		return nil
	}
	ws.SetReadLimit(int64(most))
	c.ws = ws
	c.greeting = !known || ws.Subprotocol() == subprotocol
	served = true
	h.serve(c)
	return nil
}

// enter counts a connection before anything else is known of it.
func (h *Handler) enter(c *conn, r *http.Request) (err *streamer.Error) {
	select {
	case <-h.router.Draining():
		return errRestarting.WithRetry(time.Second)
	default:
	}
	if h.closing.Load() {
		return errRestarting.WithRetry(time.Second)
	}
	c.visit, err = h.door.Enter(transport.Address(r))
	return err
}

// admit counts a connection for its identity.
func (c *conn) admit(who streamer.Identity) *streamer.Error {
	if err := c.visit.Admit(who); err != nil {
		return err
	}
	c.become(who)
	return nil
}

// serve starts serving an upgraded connection.
func (h *Handler) serve(c *conn) {
	h.stats.accepted.Add(1)
	h.mu.Lock()
	c.place = len(h.conns)
	h.conns = append(h.conns, c)
	if !h.beating {
		h.beating = true
		h.active.Add(1)
		go h.beat()
	}
	closing := h.closing.Load()
	h.mu.Unlock()
	h.active.Add(1)
	go c.read()
	if closing {
		c.close(closeRestart, "")
	}
}

// forget takes back serve.
func (h *Handler) forget(c *conn) {
	h.mu.Lock()
	last := len(h.conns) - 1
	h.conns[c.place] = h.conns[last]
	h.conns[c.place].place = c.place
	h.conns[last] = nil
	h.conns = h.conns[:last]
	h.mu.Unlock()
	if last == 0 && h.closing.Load() {
		select {
		case h.emptied <- struct{}{}:
		default:
		}
	}
	c.visit.Leave()
}

// leave ends what was counted in active.
func (h *Handler) leave() {
	if h.active.Add(-1) == 0 && h.closing.Load() {
		h.settled.Do(func() { close(h.idle) })
	}
}

// now is the time on the handler's own monotonic clock, more than 0.
func (h *Handler) now() time.Duration { return time.Since(h.start) + 1 }

// connections returns those there are, in buf.
func (h *Handler) connections(buf []*conn) []*conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(buf[:0], h.conns...)
}
