package websocket

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
)

const (
	// A connection keeps these for all its life, so they are small: what is larger is read and
	// written past them.
	readBuffer  = 512
	writeBuffer = 128

	bufferSize = 4 << 10   // of a new pooled buffer
	bufferMax  = 128 << 10 // of one that goes back to the pool
)

// link is the network connection below a WebSocket. It notices that bytes arrive, and can
// gather the pieces of several frames into one write.
type link struct {
	net.Conn
	h      *Handler
	prefix []byte       // arrived together with the HTTP request
	seen   atomic.Int64 // when bytes arrived last, as Handler.now
	held   atomic.Int64 // bytes that are still to be gathered
	out    *[]byte      // gathered so far; under the lock that the WebSocket has around writes
}

// Read implements io.Reader.
func (l *link) Read(p []byte) (int, error) {
	if len(l.prefix) > 0 {
		n := copy(p, l.prefix)
		l.prefix = l.prefix[n:]
		return n, nil
	}
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.seen.Store(int64(l.h.now()))
	}
	return n, err
}

// hold gathers the next n bytes, which must follow, into one write, if they are not too many.
// The caller must be the only one who writes anything but control frames.
func (l *link) hold(n int) {
	if n <= bufferMax {
		l.held.Store(int64(n))
	}
}

// Write implements io.Writer. The WebSocket calls it from one goroutine at a time.
func (l *link) Write(p []byte) (int, error) {
	left := l.held.Load()
	if l.out == nil && left <= int64(len(p)) {
		l.held.Store(0)
		return l.Conn.Write(p)
	}
	if l.out == nil {
		l.out = l.h.buffers.Get().(*[]byte)
	}
	*l.out = append(*l.out, p...)
	if left > int64(len(p)) {
		l.held.Add(-int64(len(p)))
		return len(p), nil
	}
	l.held.Store(0)
	_, err := l.Conn.Write(*l.out)
	l.h.recycle(l.out)
	l.out = nil
	return len(p), err
}

// sever closes the network connection at once, whatever is under way on it.
func (l *link) sever() {
	conn := l.Conn
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn() // TLS would first say goodbye, which can take seconds
	}
	conn.Close()
}

// recycle puts a buffer back into the pool, unless it has grown too large to be kept.
func (h *Handler) recycle(b *[]byte) {
	if cap(*b) <= bufferMax {
		*b = (*b)[:0]
		h.buffers.Put(b)
	}
}

// upgrade is the http.ResponseWriter of an upgrade. It gives out a connection as a link, and
// with smaller buffers than those of net/http.
type upgrade struct {
	http.ResponseWriter
	link *link
}

// Hijack implements http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.link.Conn = conn
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ := rw.Reader.Peek(n)
		u.link.prefix = append([]byte(nil), early...)
	}
	return u.link, bufio.NewReadWriter(bufio.NewReaderSize(u.link, readBuffer), bufio.NewWriterSize(u.link, writeBuffer)), nil
}

// WriteHeader implements http.ResponseWriter. Writers of some frameworks, such as gin, only note the
// status until there is a body, which an upgrade has not.
func (u *upgrade) WriteHeader(status int) {
	u.ResponseWriter.WriteHeader(status)
	if w, ok := u.ResponseWriter.(interface{ WriteHeaderNow() }); ok {
		w.WriteHeaderNow()
	}
}

// hijackable reports whether Hijack will find what it needs.
func hijackable(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}
