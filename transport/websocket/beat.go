package websocket

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pay-theory/streamer/v2/internal/wire"
)

// expiryNotice is how long before its identity expires a client is told.
const expiryNotice = time.Minute

// beat looks after all connections in turn, for as long as there are any: it keeps their
// deadlines, asks for signs of life, and tells them when the router drains.
func (h *Handler) beat() {
	defer h.leave()
	cfg := h.cfg
	period := min(cfg.PingInterval, cfg.PongTimeout, cfg.HelloTimeout, cfg.WriteTimeout, 5*closeTimeout) / 5
	ticker := time.NewTicker(max(period, time.Millisecond))
	defer ticker.Stop()
	draining := h.router.Draining()
	var conns []*conn
	for {
		select {
		case <-draining:
			draining = nil
			h.move(cfg.DrainTime)
		case <-h.emptied:
		case <-ticker.C:
		}
		conns = h.connections(conns)
		if len(conns) == 0 && h.rest() {
			return
		}
		now := h.now()
		for _, c := range conns {
			c.check(now)
		}
		clear(conns)
	}
}

// rest ends the heartbeat if there is no connection.
func (h *Handler) rest() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beating = len(h.conns) > 0
	return !h.beating
}

// check keeps the deadlines of a connection.
func (c *conn) check(now time.Duration) {
	defer c.guard()
	switch c.due(now) {
	case cut:
		c.h.log.Info("connection cut: its client does not read", "conn", c.session())
		fallthrough
	case sever:
		c.link.sever()
	}
}

// What is due for a connection.
const (
	nothing = iota
	sever   // the closing handshake has had its time
	cut     // a write has had its time
)

func (c *conn) due(now time.Duration) int {
	cfg := c.h.cfg
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.dead:
	case c.closing:
		if now >= c.deadline {
			return sever
		}
	case c.stuck(now):
		c.h.stats.timeout.Add(1)
		c.closing, c.deadline = true, now
		return cut
	case c.greeting && now-c.opened >= cfg.HelloTimeout:
		c.closeLocked(wire.CloseTimeout, "no hello")
	default:
		c.checkExpiry()
		c.checkLife(now)
		c.retry()
	}
	return nothing
}

// checkExpiry warns a client whose identity expires, and closes its connection when it has.
func (c *conn) checkExpiry() {
	if !c.known || c.who.Expires.IsZero() {
		return
	}
	switch left := time.Until(c.who.Expires); {
	case left <= 0:
		c.closeLocked(wire.CloseUnauthorized, "token expired")
	case left <= expiryNotice && c.hello && !c.warned:
		c.warned = true
		c.push((&wire.Outbound{Type: wire.TypeAuthExpiring, ExpiresInMS: left.Milliseconds()}).Append(nil))
	}
}

// checkLife asks for a sign of life when the connection has been quiet either way, and closes
// it when none comes.
func (c *conn) checkLife(now time.Duration) {
	seen, sent := time.Duration(c.link.seen.Load()), time.Duration(c.sent.Load())
	if c.pinged != 0 {
		if seen < c.pinged {
			if now-c.pinged >= c.h.cfg.PongTimeout {
				c.closeLocked(wire.CloseTimeout, "no sign of life")
			}
			return
		}
		c.pinged = 0
	}
	if now-seen < c.h.cfg.PingInterval && now-sent < c.h.cfg.PingInterval {
		return
	}
	c.pinged = now
	if c.hello {
		c.push((&wire.Outbound{Type: wire.TypePing}).Append(nil))
		return
	}
	c.sent.Store(int64(now))
	c.spawn(func() {
		// Clients that don't know our pings answer those of WebSocket.
		ctx, cancel := context.WithTimeout(c.h.ctx, c.h.cfg.PongTimeout)
		defer cancel()
		c.ws.Ping(ctx)
	})
}

// retry reads logs again that could not be read.
func (c *conn) retry() {
	for _, a := range c.attached {
		if a.stalls > 0 {
			c.changed.put(a)
			c.wake()
		}
	}
}

// move tells all clients to move to another server, within the time given.
func (h *Handler) move(within time.Duration) {
	h.moving.Store(true)
	for _, c := range h.connections(nil) {
		c.move(within)
	}
}

func (c *conn) move(within time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hello || c.moved {
		return
	}
	c.moved = true
	c.push((&wire.Outbound{
		Type: wire.TypeGoaway, Reason: "restart",
		ReconnectInMS: rand.N(within/4 + 1).Milliseconds(), DeadlineMS: within.Milliseconds(),
	}).Append(nil))
}
