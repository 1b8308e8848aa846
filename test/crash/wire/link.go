package wire

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/internal/cutproxy"
)

// Cuts counts the connections that were cut.
type Cuts struct {
	AtByte    atomic.Int64 // after a number of bytes that was drawn before
	AtTime    atomic.Int64 // after a time that was drawn before
	InFrame   atomic.Int64 // of these, within a frame that the server was sending
	InHead    atomic.Int64 // of these, before the head of the server's answer was there
	ToServer  atomic.Int64 // of these, within what the client was sending
	WentQuiet atomic.Int64 // of these, with nobody told: half open
}

// Total returns how many there were.
func (c *Cuts) Total() int64 { return c.AtByte.Load() + c.AtTime.Load() }

// Fate is what is to become of a connection. The zero value leaves it alone.
type Fate struct {
	cutproxy.Plan
	After time.Duration // then it is cut, wherever it is; 0: never
}

// link is a connection that meets its fate.
type link struct {
	net.Conn
	fate  Fate
	cuts  *Cuts
	timer *time.Timer

	mu       sync.Mutex
	read     int
	written  int
	upgraded bool // the connection is a WebSocket
	frames   frames
	over     bool
}

// dial connects to addr.
func dial(ctx context.Context, addr string, fate Fate, cuts *Cuts, upgraded bool) (net.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: cutproxy.Wrap(raw, fate.Plan), fate: fate, cuts: cuts, upgraded: upgraded}
	if fate.After > 0 {
		l.timer = time.AfterFunc(fate.After, func() {
			if l.cut(&cuts.AtTime) {
				_ = l.Conn.Close()
			}
		})
	}
	return l, nil
}

// Read implements net.Conn.
func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.mu.Lock()
	l.read += n
	l.frames.pass(b[:n])
	struck := l.fate.ToClient > 0 && l.read >= l.fate.ToClient
	l.mu.Unlock()
	if struck {
		l.cut(&l.cuts.AtByte)
	}
	return n, err
}

// Write implements net.Conn. A cut is counted before it is made: whoever reads may see it, and
// close the connection, before the write returns.
func (l *link) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.written += len(b)
	strikes := l.fate.ToServer > 0 && l.written >= l.fate.ToServer
	l.mu.Unlock()
	if strikes && l.cut(&l.cuts.AtByte) {
		l.cuts.ToServer.Add(1)
	}
	return l.Conn.Write(b)
}

// Close implements net.Conn.
func (l *link) Close() error {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	return l.Conn.Close()
}

// cut counts the cut, once. It returns false when the connection was over before.
func (l *link) cut(how *atomic.Int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.over = true
	how.Add(1)
	switch {
	case l.fate.Silent && how == &l.cuts.AtByte:
		l.cuts.WentQuiet.Add(1)
	case !l.frames.begun:
		l.cuts.InHead.Add(1)
	case l.upgraded && l.frames.within():
		l.cuts.InFrame.Add(1)
	}
	return true
}

// frames follows the frames of a WebSocket that a server sends, to know whether a byte is
// within one.
type frames struct {
	begun  bool // the head of the answer is over
	ending int  // bytes of the empty line that ends the head
	header []byte
	left   uint64 // bytes of the payload to come
}

const headEnd = "\r\n\r\n"

func (f *frames) pass(b []byte) {
	for len(b) > 0 {
		switch {
		case !f.begun:
			if b[0] == headEnd[f.ending] {
				f.ending++
			} else if f.ending = 0; b[0] == headEnd[0] {
				f.ending = 1
			}
			f.begun = f.ending == len(headEnd)
			b = b[1:]
		case f.left > 0:
			n := min(f.left, uint64(len(b)))
			f.left -= n
			b = b[n:]
		default:
			f.header = append(f.header, b[0])
			b = b[1:]
			f.open()
		}
	}
}

// open begins a payload when the header is complete. What servers send is not masked.
func (f *frames) open() {
	if len(f.header) < 2 {
		return
	}
	length, extra := uint64(f.header[1]&0x7f), 0
	switch length {
	case 126:
		extra = 2
	case 127:
		extra = 8
	}
	if len(f.header) < 2+extra {
		return
	}
	if extra > 0 {
		length = 0
		for _, b := range f.header[2:] {
			length = length<<8 | uint64(b)
		}
	}
	f.left, f.header = length, f.header[:0]
}

func (f *frames) within() bool { return f.left > 0 || len(f.header) > 0 }

// client returns an HTTP client for one connection to addr.
func client(addr string, fate Fate, cuts *Cuts, upgraded bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, addr, fate, cuts, upgraded)
		},
	}}
}
