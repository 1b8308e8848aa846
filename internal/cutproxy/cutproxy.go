// Package cutproxy breaks connections on purpose, for tests: after a given byte in either
// direction, with delay, or by going silent as a lost network does.
//
// [Dial] breaks connections of a dialer, also of one in memory; [Proxy] breaks TCP
// connections between programs.
package cutproxy

import (
	"context"
	"net"
	"sync"
	"time"
)

// Plan says what becomes of one connection. The zero value leaves it alone.
type Plan struct {
	ToServer int           // bytes that reach the server; 0: all
	ToClient int           // bytes that reach the client; 0: all
	Silent   bool          // then it is not cut but half open: nothing passes any more, and nobody is told
	Delay    time.Duration // of all that passes in either direction
}

// Plans returns the plan of the nth connection, from 0.
type Plans func(n int) Plan

// DialFunc is the dialer of an http.Transport.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dial returns a dialer whose connections end as planned.
func Dial(dial DialFunc, plans Plans) DialFunc {
	var mu sync.Mutex
	n := 0
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		n++
		return Wrap(c, plans(n-1)), nil
	}
}

// Wrap returns c, a connection as a client has it, with a plan.
func Wrap(c net.Conn, p Plan) net.Conn {
	return &conn{
		Conn:   c,
		plan:   p,
		out:    tap{left: p.ToServer, on: p.ToServer > 0},
		in:     tap{left: p.ToClient, on: p.ToClient > 0},
		silent: make(chan struct{}),
		closed: make(chan struct{}),
	}
}

type conn struct {
	net.Conn
	plan Plan

	mu     sync.Mutex
	out    tap
	in     tap
	silent chan struct{} // closed when nothing passes any more
	closed chan struct{}
}

// tap counts what still passes in one direction.
type tap struct {
	left int
	on   bool
}

// take returns how many of n bytes pass, and whether these are the last.
func (c *conn) take(t *tap, n int) (pass int, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.on {
		return n, false
	}
	pass = min(n, t.left)
	t.left -= pass
	return pass, t.left == 0
}

func (c *conn) Write(b []byte) (int, error) {
	if c.isSilent() {
		return len(b), nil
	}
	pass, last := c.take(&c.out, len(b))
	c.delay()
	if pass > 0 {
		if n, err := c.Conn.Write(b[:pass]); err != nil {
			return n, err
		}
	}
	if last {
		c.cut()
	}
	if pass < len(b) && !c.plan.Silent {
		return pass, net.ErrClosed
	}
	return len(b), nil
}

func (c *conn) Read(b []byte) (int, error) {
	if c.isSilent() {
		<-c.closed
		return 0, net.ErrClosed
	}
	c.mu.Lock()
	if c.in.on {
		b = b[:min(len(b), c.in.left)]
	}
	c.mu.Unlock()
	n, err := c.Conn.Read(b)
	if err != nil {
		if c.isSilent() {
			<-c.closed
		}
		return n, err
	}
	if c.isSilent() {
		<-c.closed
		return 0, net.ErrClosed
	}
	c.delay()
	if _, last := c.take(&c.in, n); last {
		c.cut()
	}
	return n, nil
}

// cut ends the connection, or has it go silent.
func (c *conn) cut() {
	if !c.plan.Silent {
		_ = c.Conn.Close()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.silent:
	default:
		close(c.silent)
	}
}

func (c *conn) isSilent() bool {
	select {
	case <-c.silent:
		return true
	default:
		return false
	}
}

func (c *conn) delay() {
	if c.plan.Delay > 0 {
		timer := time.NewTimer(c.plan.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.closed:
		}
	}
}

func (c *conn) Close() error {
	c.mu.Lock()
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	c.mu.Unlock()
	return c.Conn.Close()
}
