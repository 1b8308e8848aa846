package websocket

import (
	"errors"
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

// receive serves one message. It returns false when the connection is closing, so that what
// else came in the same frame does not matter.
func (c *conn) receive(data []byte) bool {
	c.h.stats.received.Add(1)
	wait, ok := c.take()
	m, err := wire.DecodeInbound(data)
	var malformed *wire.Error
	errors.As(err, &malformed)
	switch {
	case !ok && malformed != nil:
		return c.slow(malformed.ID, malformed.Ref, wait)
	case !ok:
		return c.slow(m.ID, m.Ref, wait)
	case !c.recognized() && (malformed != nil || m.Type != wire.TypeHello):
		c.close(wire.CloseUnauthorized, "hello with a token is expected first")
		return false
	case malformed != nil:
		c.invalid(malformed)
		return true
	}
	return c.dispatch(m)
}

// take counts a message against the rate.
func (c *conn) take() (wait time.Duration, ok bool) {
	l := &c.h.cfg.Limits
	wait, ok = c.bucket.Take(time.Now(), l.MessageRate, l.MessageBurst)
	switch {
	case !ok:
		c.strikes++
	case c.strikes > 0:
		c.strikes-- // who is over the rate now and then is refused now and then, but not closed
	}
	return wait, ok
}

// slow refuses a message that is over the rate.
func (c *conn) slow(id, ref string, wait time.Duration) bool {
	if c.flooded(wait) {
		return false
	}
	c.h.stats.limited.Add(1)
	c.fail(id, ref, streamer.NewError(streamer.ErrCodeRateLimited, "too many messages").WithRetry(wait))
	return true
}

// flooded closes the connection of a client that does not slow down when told to.
func (c *conn) flooded(wait time.Duration) bool {
	if c.strikes <= maxStrikes {
		return false
	}
	c.close(wire.CloseTooMany, fmt.Sprintf("retry_after_ms=%d", max(wait, time.Second).Milliseconds()))
	return true
}

// control counts a ping or pong frame and reports whether it is to be answered.
func (c *conn) control() bool {
	wait, ok := c.take()
	if !ok {
		c.flooded(wait)
	}
	return ok
}

// invalid answers a malformed message.
func (c *conn) invalid(err *wire.Error) {
	c.h.stats.invalid.Add(1)
	c.fail(err.ID, err.Ref, streamer.NewError(streamer.ErrCodeValidation, err.Message))
}

// fail answers a message with an error that is no end of a request.
func (c *conn) fail(id, ref string, err error) {
	c.send(&wire.Outbound{Type: wire.TypeError, RequestID: id, Ref: ref, Error: transport.Failure(err)})
}

func (c *conn) recognized() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}

// dispatch serves a message, or hands it to a goroutine where it takes the router.
func (c *conn) dispatch(m *wire.Inbound) bool {
	switch m.Type {
	case wire.TypeHello:
		return c.greet(m)
	case wire.TypePing:
		c.send(&wire.Outbound{Type: wire.TypePong, Ref: m.Ref})
	case wire.TypePong:
	case wire.TypeRequest, wire.TypeAttach, wire.TypeDetach, wire.TypeCancel, wire.TypeAuth:
		c.begin(m)
	}
	return true
}

var (
	errInFlight = streamer.NewError(streamer.ErrCodeRateLimited, "too many messages that are not answered yet").WithRetry(100 * time.Millisecond)
	errAttached = streamer.NewError(streamer.ErrCodeRateLimited, "too many requests are followed on this connection").WithRetry(time.Second)
)

// authLane is the lane of messages that renew the token; no request has this id.
const authLane = "auth!"

// begin serves m in a goroutine. Messages that name the same request are served one after the
// other, in the order they came.
func (c *conn) begin(m *wire.Inbound) {
	lane := m.ID
	if m.Type == wire.TypeAuth {
		lane = authLane
	}
	start, err := c.queue(lane, m)
	switch {
	case err != nil:
		c.h.stats.limited.Add(1)
		c.fail(m.ID, m.Ref, err)
	case start && m.Type == wire.TypeDetach:
		c.detach(m.ID)
		c.next(lane)
	case start:
		c.h.active.Add(1)
		go c.work(lane, m)
	}
}

// queue puts m into its lane and reports whether it is the first there.
func (c *conn) queue(lane string, m *wire.Inbound) (first bool, err *streamer.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting, busy := c.lanes[lane]
	limits := &c.h.cfg.Limits
	if c.inflight >= limits.InFlight && (busy || m.Type != wire.TypeDetach) {
		return false, errInFlight
	}
	if _, again := c.attached[m.ID]; !again && len(c.attached)+c.inflight >= limits.Attached &&
		(m.Type == wire.TypeRequest || m.Type == wire.TypeAttach) {
		return false, errAttached
	}
	c.inflight++
	if lane == "" {
		return true, nil
	}
	if c.lanes == nil {
		c.lanes = make(map[string][]*wire.Inbound)
	}
	if busy {
		waiting = append(waiting, m)
	}
	c.lanes[lane] = waiting
	return !busy, nil
}

// work serves m, and then what has come for the same lane meanwhile.
func (c *conn) work(lane string, m *wire.Inbound) {
	defer c.h.leave()
	for m != nil {
		c.perform(m)
		m = c.next(lane)
	}
}

// next ends a message and returns the next of its lane, or nil.
func (c *conn) next(lane string) *wire.Inbound {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inflight--
	waiting := c.lanes[lane]
	if len(waiting) == 0 {
		delete(c.lanes, lane)
		if len(c.lanes) == 0 {
			c.lanes = nil
		}
		return nil
	}
	c.lanes[lane] = waiting[1:]
	return waiting[0]
}

func (c *conn) perform(m *wire.Inbound) {
	defer c.guard()
	switch m.Type {
	case wire.TypeRequest:
		c.submit(m)
	case wire.TypeAttach:
		c.attach(wire.Cursor{ID: m.ID, Epoch: m.Epoch, After: m.After}, m.Ref)
	case wire.TypeCancel:
		c.cancel(m)
	case wire.TypeAuth:
		c.renew(m)
	case wire.TypeDetach:
		c.detach(m.ID)
	}
}

// submit serves a request: it is answered by its end, or by an acknowledgment that its
// events follow.
func (c *conn) submit(m *wire.Inbound) {
	h := c.h
	if h.moving.Load() {
		c.fail(m.ID, m.Ref, errRestarting.WithRetry(time.Second))
		return
	}
	who := c.identity()
	receipt, err := h.router.Submit(h.ctx, who, &streamer.Request{
		ID: m.ID, Action: m.Action, Payload: m.Payload, Metadata: m.Metadata,
		Timeout: time.Duration(m.TimeoutMS) * time.Millisecond,
	})
	if err != nil {
		c.fail(m.ID, m.Ref, err)
		return
	}
	if receipt.End != nil && c.end(receipt, m.Ref) {
		return
	}
	a := &attachment{viewer: receipt.Viewer, id: receipt.ID, cursor: view.Cursor{Epoch: receipt.State.Epoch}}
	if receipt.End != nil {
		c.follow(a, nil, m.Ref)
		return
	}
	a.cursor.After = 1 // what the acknowledgment covers
	ack := view.Acknowledgment(receipt)
	ack.Ref = m.Ref
	c.follow(a, ack, m.Ref)
}

// end sends the end of short work, unless the client reads too slowly for it to be queued:
// then it is to be followed, which holds nothing.
func (c *conn) end(receipt *streamer.Receipt, ref string) bool {
	b := withRef(encode(receipt.ID, receipt.End), ref)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queued > 0 && c.queued+len(b)+replyOverhead > c.h.cfg.Limits.QueuedBytes {
		return false
	}
	c.push(b)
	return true
}

func encode(id string, e *progress.Event) []byte { return e.Encoded(id, wire.EncodeEvent) }

func withRef(message []byte, ref string) []byte {
	if ref == "" {
		return message
	}
	return wire.AppendRef(make([]byte, 0, len(message)+len(ref)+12), message, ref)
}
