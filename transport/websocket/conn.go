package websocket

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/transport/internal/door"
	"github.com/pay-theory/streamer/v2/transport/internal/limit"
)

const (
	strangerBytes = 4 << 10     // of a message of a client that is not known yet
	closeTimeout  = time.Second // for the closing handshake
	maxStrikes    = 100         // messages over the rate before the connection is closed
)

const (
	closeProtocol = 1002
	closeRestart  = wire.CloseRestart
)

// conn is one connection. Its goroutines are read, for as long as it lives; flush, while
// there is something to write; and one for each message that asks something of the router.
type conn struct {
	h    *Handler
	ws   *websocket.Conn
	link link

	place int        // in Handler.conns, under Handler.mu
	visit door.Visit // of read, once that runs

	// Of read alone.
	bucket  limit.Bucket
	strikes int
	request *http.Request // until the client is known

	writing atomic.Int64 // since when a write is under way, as Handler.now; 0: none
	sent    atomic.Int64 // when the last write began

	mu       sync.Mutex
	id       uint64 // the session, for logs
	who      streamer.Identity
	known    bool // who is set
	greeting bool // hello is expected
	hello    bool // and was said
	batch    bool // frames may hold several messages
	warned   bool // that the identity expires
	moved    bool // the client was told to move
	dead     bool // nothing can be sent or attached any more
	flushing bool // flush runs
	opened   time.Duration
	pinged   time.Duration // when a sign of life was asked for; 0: it came

	closing  bool // no more is sent but a close frame with
	code     int
	reason   string
	deadline time.Duration // of the closing handshake; 0: there is none

	replies  [][]byte // to be sent before anything of attachments
	queued   int      // bytes of replies that are not written yet
	changed  changes
	attached map[string]*attachment
	inflight int
	lanes    map[string][]*wire.Inbound // messages that wait for another of the same request
}

// open prepares the connection before its first byte can come.
func (c *conn) open(now time.Duration) {
	c.id = rand.Uint64()
	c.opened = now
	c.known = c.request == nil
	c.link.h = c.h
	c.link.seen.Store(int64(now))
	// Pings of connections that were opened at once shall not go out at once for ever.
	c.sent.Store(int64(now - rand.N(c.h.cfg.PingInterval/4)))
}

func (c *conn) session() string { return strconv.FormatUint(c.id, 36) }

// read serves what the client sends, until the connection ends, and then cleans up.
func (c *conn) read() {
	defer c.h.leave()
	defer c.finish()
	for {
		if err := c.readFrame(); err != nil {
			c.h.log.Debug("connection ended", "conn", c.session(), "error", err)
			code := closeProtocol
			if errors.Is(err, websocket.ErrMessageTooBig) {
				code = wire.CloseTooBig
			}
			c.mu.Lock()
			if !c.closing {
				// No more replies; whatever close frame is under way has its time to arrive.
				c.closing, c.code = true, code
				c.deadline = c.h.now() + closeTimeout
			}
			c.mu.Unlock()
			c.ws.Close(websocket.StatusCode(code), "")
			return
		}
	}
}

// readFrame reads one frame and serves the messages in it. After a panic it returns nil, so
// that what the client answers to the close frame is read.
func (c *conn) readFrame() error {
	defer c.guard()
	typ, r, err := c.ws.Reader(c.h.endless)
	if err != nil {
		return err
	}
	buf := c.h.buffers.Get().(*[]byte)
	defer c.h.recycle(buf)
	if *buf, err = readAll(r, (*buf)[:0]); err != nil {
		return err
	}
	c.mu.Lock()
	closing, batch := c.closing, c.batch
	c.mu.Unlock()
	switch {
	case closing:
	case typ != websocket.MessageText:
		c.invalid(&wire.Error{Message: "messages are text frames, not binary ones"})
	case batch:
		empty := true
		for message := range wire.SplitBatch(*buf) {
			empty = false
			if !c.receive(message) {
				break
			}
		}
		if empty {
			c.receive(nil)
		}
	default:
		c.receive(*buf)
	}
	return nil
}

// readAll is io.ReadAll into a buffer that is there.
func readAll(r io.Reader, buf []byte) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// finish releases what the connection holds. Nothing of it is left but calls to the router
// that have not returned.
func (c *conn) finish() {
	c.mu.Lock()
	c.dead = true
	attached := c.attached
	c.attached, c.replies, c.changed = nil, nil, changes{}
	c.mu.Unlock()
	for _, a := range attached {
		a.stop()
	}
	c.h.stats.attached.Add(int64(-len(attached)))
	c.link.sever()
	c.ws.CloseNow()
	c.h.forget(c)
}

// close ends the connection, once what waits to be sent is written. The first call counts.
func (c *conn) close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(code, reason)
}

func (c *conn) closeLocked(code int, reason string) {
	if c.closing || c.dead {
		return
	}
	if code == wire.CloseTimeout {
		c.h.stats.timeout.Add(1)
	}
	c.closing, c.code, c.reason = true, code, reason
	c.deadline = c.h.now() + closeTimeout
	c.wake()
}

// guard turns a panic of the goroutine into the end of the connection.
func (c *conn) guard() {
	if v := recover(); v != nil {
		c.fault(v)
	}
}

func (c *conn) fault(v any) {
	c.h.log.Error("panic while serving a connection", "conn", c.session(), "panic", v, "stack", string(debug.Stack()))
	c.mu.Lock()
	closing := c.closing
	c.mu.Unlock()
	if closing {
		c.link.sever()
		return
	}
	c.close(wire.CloseFault, "internal error")
}

// spawn runs f in a goroutine of the connection.
func (c *conn) spawn(f func()) {
	c.h.active.Add(1)
	go func() {
		defer c.h.leave()
		defer c.guard()
		f()
	}()
}

// identity returns who the client is.
func (c *conn) identity() streamer.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.who
}
