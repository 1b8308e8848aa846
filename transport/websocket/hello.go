package websocket

import (
	"fmt"
	"slices"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/transport"
)

// greet serves hello, in the goroutine that reads: nothing else may be served before.
func (c *conn) greet(m *wire.Inbound) bool {
	switch {
	case m.V != wire.Version:
		c.close(wire.CloseUnsupported, fmt.Sprintf("protocol version %d is not supported, %d is", m.V, wire.Version))
		return false
	case c.greeted():
		c.close(wire.CloseBadMessage, "hello was said before")
		return false
	case !c.identify(m.Token):
		return false
	}
	c.request = nil
	c.ws.SetReadLimit(int64(c.h.cfg.Limits.MessageBytes))

	batch := slices.Contains(m.Caps, wire.CapBatch)
	welcome := c.welcome(m.Ref, batch)
	c.mu.Lock()
	c.known, c.greeting, c.hello, c.batch = true, false, true, batch
	c.push(welcome)
	c.mu.Unlock()
	if c.h.moving.Load() {
		c.move(c.h.cfg.DrainTime)
	}
	if len(m.Resume) > 0 {
		c.spawn(func() { c.resume(m.Resume) })
	}
	return true
}

// identify finds out who says hello. It returns false when the connection is closing.
func (c *conn) identify(token string) bool {
	c.mu.Lock()
	known, who := c.known, c.who
	c.mu.Unlock()
	if token == "" || c.h.cfg.Authenticator == nil {
		if !known {
			c.close(wire.CloseUnauthorized, "a token is missing")
		}
		return known
	}
	claimed, err := c.h.cfg.Identify(c.h.ctx, transport.Credentials{Token: token, Request: c.request})
	switch {
	case err != nil:
	case known && !same(claimed, who):
		err = errOther
	case known:
		c.become(claimed)
	default:
		err = c.admit(claimed)
	}
	if err != nil {
		c.refuse(err)
	}
	return err == nil
}

func (c *conn) welcome(ref string, batch bool) []byte {
	cfg := c.h.cfg
	m := wire.Outbound{
		Type: wire.TypeWelcome, Ref: ref, V: wire.Version, Session: c.session(),
		PingIntervalMS: cfg.PingInterval.Milliseconds(), PongTimeoutMS: cfg.PongTimeout.Milliseconds(),
		AuthExpiresAt: c.identity().Expires, RetentionMS: c.h.router.Retention().Milliseconds(),
		Limits: wire.Limits{
			MaxMessageBytes: cfg.Limits.MessageBytes, MaxInflight: cfg.Limits.InFlight, MaxAttached: cfg.Limits.Attached,
		},
	}
	if batch {
		m.Caps = []string{wire.CapBatch}
	}
	return m.Append(make([]byte, 0, 512))
}

// refuse closes a connection whose client is not let in.
func (c *conn) refuse(err *streamer.Error) {
	code := 4000 + transport.Status(err.Code)
	reason := err.Message
	if err.RetryAfter > 0 {
		reason = fmt.Sprintf("retry_after_ms=%d", err.RetryAfter.Milliseconds())
	}
	c.close(code, reason)
}

// renew serves auth: a new token for the same identity. One that is not valid leaves the old
// one in force.
func (c *conn) renew(m *wire.Inbound) {
	reply := &wire.Outbound{Type: wire.TypeAuthenticated, Ref: m.Ref}
	if c.h.cfg.Authenticator != nil {
		claimed, err := c.h.cfg.Identify(c.h.ctx, transport.Credentials{Token: m.Token})
		if err == nil && !same(claimed, c.identity()) {
			err = errOther
		}
		switch {
		case err == nil:
			c.become(claimed)
			reply.ExpiresAt = claimed.Expires
		case err.Code == streamer.ErrCodeForbidden:
			c.refuse(err)
			return
		default:
			c.fail("", m.Ref, err)
			return
		}
	}
	c.answer(reply)
}

var errOther = streamer.NewError(streamer.ErrCodeForbidden, "the token is another identity's")

func same(a, b streamer.Identity) bool { return a.User == b.User && a.Tenant == b.Tenant }

// become takes over what a new token says about the same identity.
func (c *conn) become(who streamer.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.who, c.warned = who, false
}

// answer sends a message that only clients understand which said hello.
func (c *conn) answer(m *wire.Outbound) {
	b := m.Append(make([]byte, 0, 256))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hello {
		c.push(b)
	}
}
