package client

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pay-theory/streamer/v2/internal/wire"
)

// link is a turn of keeping a connection: a goroutine that connects, reads, and connects
// again while something is pending. When the server asks to move, a second one takes over.
type link struct {
	quiet chan struct{} // gets a value when nothing is pending any more
}

// want makes sure that there is a connection or somebody who makes one. It is called with the
// mutex held.
func (c *Client) want(ctx context.Context) {
	if c.link != nil || c.closed {
		return
	}
	if c.life == nil {
		c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	}
	if c.failures == 0 || c.refused != nil {
		c.refused = nil
		c.setState(State{Phase: Connecting})
	} else {
		c.setState(State{Phase: Reconnecting, Attempt: c.failures, Next: c.notBefore, Err: c.lastErr})
	}
	c.start(time.Until(c.notBefore))
}

// start makes a new link the one in charge. It is called with the mutex held.
func (c *Client) start(delay time.Duration) {
	l := &link{quiet: make(chan struct{}, 1)}
	c.link = l
	c.wg.Go(func() { c.serve(l, delay) })
}

func (c *Client) serve(l *link, delay time.Duration) {
	for c.sleep(l, delay) {
		cn, err := c.dial()
		if err == nil {
			err = cn.read(func(messages []*wire.Outbound) error { return c.receive(l, cn, messages) })
		}
		var again bool
		if delay, again = c.lost(l, cn, err); !again {
			return
		}
	}
}

// sleep waits before the next connect, and reports whether there should be one.
func (c *Client) sleep(l *link, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for expired := delay <= 0; ; {
		c.mu.Lock()
		if c.link != l {
			c.mu.Unlock()
			return false
		}
		if c.closed || c.pending() == 0 {
			c.rest(l)
			c.mu.Unlock()
			return false
		}
		c.mu.Unlock()
		if expired {
			return true
		}
		select {
		case <-timer.C:
			expired = true
		case <-l.quiet:
		case <-c.life.Done():
		}
	}
}

// rest ends the charge of l, since nothing is pending. It is called with the mutex held.
func (c *Client) rest(l *link) {
	if c.link != l {
		return
	}
	c.link = nil
	if c.closed {
		return
	}
	if c.conn != nil { // a move that nobody needs any more
		c.conn.close("idle")
		c.orphan(c.conn)
	}
	c.setState(State{Phase: Idle})
}

// calm tells the link that may sleep that nothing is pending. It is called with the mutex held.
func (c *Client) calm() {
	if c.link == nil || c.pending() > 0 {
		return
	}
	select {
	case c.link.quiet <- struct{}{}:
	default:
	}
}

// pending returns how much needs a connection. It is called with the mutex held.
func (c *Client) pending() int {
	return len(c.flows) + c.cancels
}

// hello returns the first message of cn, with the requests to resume. It is called with the
// mutex held.
func (c *Client) hello(cn *conn) []byte {
	m := wire.Inbound{Type: wire.TypeHello, V: wire.Version, Caps: []string{wire.CapBatch}, Client: clientName}
	cn.resumed = make(map[*flow]uint64)
	size := 0
	for _, f := range c.inOrder() {
		if !f.known || f.paused {
			continue
		}
		if size += 48 + len(f.id) + len(f.epoch); size > maxHello {
			break
		}
		after := f.cursor()
		cn.resumed[f] = after
		m.Resume = append(m.Resume, wire.Cursor{ID: f.id, Epoch: f.epoch, After: after})
	}
	return m.Append(nil)
}

func (c *Client) inOrder() []*flow {
	return slices.SortedFunc(maps.Values(c.flows), func(a, b *flow) int { return int(a.n - b.n) })
}

// adopt makes cn, which was welcomed, the connection in use. It is called with the mutex held.
func (c *Client) adopt(l *link, cn *conn, m *wire.Outbound) error {
	if c.link != l || c.closed || !cn.young() {
		return ErrClosed
	}
	if err := cn.welcome(m); err != nil {
		return err
	}
	if old := c.conn; old != nil {
		c.orphan(old)
		old.close("moved")
	}
	c.conn = cn
	if !c.calls { // which welcome the client before the server has said anything
		c.opened(cn)
	}
	c.cfg.logger.Debug("client: connected", "conn", m.Session)
	for f, after := range cn.resumed {
		if c.flows[f.id] == f {
			if f.asked != nil {
				c.remove(f.asked)
			}
			f.asked = &call{kind: attach, id: f.id, flow: f, after: after, on: cn}
			f.hold(cn)
		}
	}
	cn.resumed = nil
	for _, f := range c.inOrder() {
		if f.known && !f.paused && f.asked == nil {
			c.ask(f)
		}
	}
	c.pump()
	return nil
}

// opened notes that the server was heard. It is called with the mutex held.
func (c *Client) opened(cn *conn) {
	cn.welcomed = time.Now()
	c.setState(State{Phase: Open})
}

// orphan takes everything off a connection. What was not answered waits for the next one. It
// is called with the mutex held.
func (c *Client) orphan(cn *conn) {
	c.conn = nil
	c.moving = false
	unanswered := slices.SortedFunc(maps.Values(c.sent), func(a, b *call) int { return int(a.n - b.n) })
	clear(c.sent)
	var again [kinds][]*call
	for _, cl := range unanswered {
		cl.on = nil
		switch {
		case cl.kind == attach:
		case !cl.abandoned:
			again[cl.kind] = append(again[cl.kind], cl)
		case cl.kind == cancel:
			c.cancels--
		}
	}
	for kind, calls := range again {
		c.waiting[kind] = append(calls, c.waiting[kind]...)
	}
	c.waiting[attach] = nil
	for _, f := range c.flows {
		f.hold(nil)
		f.asked = nil
	}
}

// lost decides what comes after the end of a connection, or of the attempt to make one (cn is
// nil then). It returns whether and after which time to connect again.
func (c *Client) lost(l *link, cn *conn, err error) (delay time.Duration, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var biggest *call
	if cn != nil && c.conn == cn {
		biggest = c.biggest()
		c.orphan(cn)
	}
	if c.link != l {
		if cn != nil && c.link != nil && c.conn == nil && !c.closed { // lost before the move
			c.setState(State{Phase: Reconnecting, Attempt: c.failures + 1, Next: c.notBefore, Err: err})
		}
		return 0, false
	}
	if c.closed {
		c.link = nil
		return 0, false
	}
	if cn != nil && !cn.welcomed.IsZero() && time.Since(cn.welcomed) >= healthyAfter {
		c.failures = 0
		c.denied = false
	}
	v := judge(err)
	c.lastErr = v.err
	if v.tooBig && biggest != nil {
		c.answer(biggest, v.stop)
		v.stop = nil
	}
	if v.denied && !c.denied && !c.calls { // calls have been repeated with a new token
		v.stop = nil
	}
	c.denied = v.denied
	delay = c.backoff(v)
	c.notBefore = time.Now().Add(delay)
	if v.stop != nil {
		c.cfg.logger.Warn("client: gave up connecting", "error", v.err)
		c.refused = v.stop
		c.link = nil
		if old := c.conn; old != nil {
			c.orphan(old)
			old.close("gave up")
		}
		c.fail(v.stop)
		c.setState(State{Phase: Closed, Err: v.stop})
		return 0, false
	}
	if c.pending() == 0 {
		if c.failures == 1 { // nobody was kept waiting by it
			c.failures = 0
			c.notBefore = time.Now().Add(v.floor)
		}
		c.rest(l)
		return 0, false
	}
	level := slog.LevelDebug
	if c.failures == 1 {
		level = slog.LevelInfo
	}
	c.cfg.logger.Log(c.life, level, "client: not connected, trying again", "attempt", c.failures, "delay", delay, "error", v.err)
	if c.conn == nil {
		c.setState(State{Phase: Reconnecting, Attempt: c.failures, Next: c.notBefore, Err: v.err})
	}
	return delay, true
}

// backoff counts a failure and returns how long to wait. It is called with the mutex held.
func (c *Client) backoff(v verdict) time.Duration {
	bound := c.cfg.backoffMax
	if n := min(c.failures, 30); c.cfg.backoffMin<<n > 0 {
		bound = min(bound, c.cfg.backoffMin<<n)
	}
	c.failures++
	return v.floor + rand.N(max(bound, v.spread))
}

// biggest returns the largest unanswered submit. It is called with the mutex held.
func (c *Client) biggest() *call {
	var biggest *call
	for _, cl := range c.sent {
		if cl.kind == submit && (biggest == nil || len(cl.message) > len(biggest.message)) {
			biggest = cl
		}
	}
	return biggest
}

// move follows the server's wish that the client connects anew. It is called with the mutex
// held.
func (c *Client) move(m *wire.Outbound) {
	if c.moving {
		return
	}
	delay := min(time.Duration(m.ReconnectInMS)*time.Millisecond, maxFloor)
	c.cfg.logger.Debug("client: server asks to move", "reason", m.Reason, "delay", delay)
	c.moving = true
	c.notBefore = time.Now().Add(delay)
	c.start(delay)
}

// refresh sends a new token on a connection whose token expires.
func (c *Client) refresh(cn *conn) {
	ctx, cancel := context.WithTimeout(c.life, c.cfg.connectTimeout)
	defer cancel()
	token, err := c.token(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			c.cfg.logger.Warn("client: no new token; the server will close the connection", "error", err)
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if token != "" && token != cn.token {
		cn.token = token
		cn.send((&wire.Inbound{Type: wire.TypeAuth, Token: token}).Append(nil))
	}
}

// fail ends everything that is pending, when there is no connection. It is called with the
// mutex held.
func (c *Client) fail(err error) {
	for _, f := range c.inOrder() {
		c.finish(f, err)
	}
	for _, calls := range c.waiting {
		for _, cl := range slices.Clone(calls) {
			c.answer(cl, err)
		}
	}
}
