package client

import (
	"fmt"
	"slices"
	"strconv"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
)

// kind is what a call asks for.
type kind int

const (
	cancel kind = iota // first, since it is never to wait for the others
	attach
	submit
	kinds
)

// call is a message that is to be answered. It is sent again on the next connection while it
// is not. It is guarded by the client's mutex.
type call struct {
	kind    kind
	n       uint64 // order of creation
	ref     string
	id      string
	flow    *flow  // submit, attach
	message []byte // submit, cancel

	on        *conn  // where it was sent; nil: it waits
	after     uint64 // attach: the cursor that was sent
	abandoned bool   // nobody waits: it is not sent again

	done chan struct{} // closed with the answer
	err  error         // the answer
}

func (c *Client) newCall(k kind, id string) *call {
	c.count++
	return &call{kind: k, n: c.count, ref: strconv.FormatUint(c.count, 36), id: id, done: make(chan struct{})}
}

// enqueue has a call sent in its turn.
func (c *Client) enqueue(cl *call) {
	if cl.kind == cancel {
		c.cancels++
	}
	c.waiting[cl.kind] = append(c.waiting[cl.kind], cl)
	c.pump()
}

// pump sends the calls that wait, as far as the server's limits allow.
func (c *Client) pump() {
	cn := c.conn
	if cn == nil {
		return
	}
	for k := range kinds {
		if k == submit && c.moving {
			return // the server would refuse it
		}
		room := cn.limits.MaxInflight
		if k != cancel {
			room -= room / 4 // so that a cancel need not wait
		}
		for len(c.waiting[k]) > 0 && len(c.sent) < room {
			cl := c.waiting[k][0]
			if k != cancel && cl.flow.on != cn && cn.slots >= cn.limits.MaxAttached {
				break
			}
			c.waiting[k][0] = nil
			c.waiting[k] = c.waiting[k][1:]
			c.transmit(cn, cl)
		}
	}
}

func (c *Client) transmit(cn *conn, cl *call) {
	message := cl.message
	if cl.kind == attach {
		cl.after = cl.flow.cursor()
		m := wire.Inbound{Type: wire.TypeAttach, ID: cl.id, Epoch: cl.flow.epoch, After: cl.after, Ref: cl.ref}
		message = m.Append(nil)
	}
	if limit := cn.limits.MaxMessageBytes; limit > 0 && len(message) > limit {
		c.answer(cl, streamer.NewError(streamer.ErrCodePayloadTooLarge,
			fmt.Sprintf("client: the request is %d bytes, the server takes %d", len(message), limit)))
		return
	}
	cl.on = cn
	c.sent[cl.ref] = cl
	if cl.kind != cancel {
		cl.flow.hold(cn)
	}
	cn.send(message)
}

// remove forgets a call that was not answered.
func (c *Client) remove(cl *call) {
	if cl.on != nil {
		delete(c.sent, cl.ref)
		cl.on = nil
	} else if i := slices.Index(c.waiting[cl.kind], cl); i >= 0 {
		c.waiting[cl.kind] = slices.Delete(c.waiting[cl.kind], i, i+1)
	} else {
		return
	}
	if cl.kind == cancel {
		c.cancels--
	}
}

// answer ends a call; err is nil when it did what it asks for.
func (c *Client) answer(cl *call, err error) {
	c.remove(cl)
	cl.err = err
	close(cl.done)
	if cl.kind == submit && err != nil && cl.flow.on != nil && !cl.flow.known {
		cl.flow.hold(nil)
	}
	c.calm()
}

// abandon ends the wait for a call that was not answered, whose flow is left. One that was
// sent is answered nevertheless, which then ends what the server does for it.
func (c *Client) abandon(cl *call) {
	if cl.on == nil {
		c.remove(cl)
		c.calm()
		return
	}
	cl.abandoned = true
}

// submits reports whether somebody waits for the answer to a submit of that flow.
func (c *Client) submits(f *flow) bool {
	pending := func(cl *call) bool { return cl.kind == submit && cl.flow == f && !cl.abandoned }
	if slices.ContainsFunc(c.waiting[submit], pending) {
		return true
	}
	for _, cl := range c.sent {
		if pending(cl) {
			return true
		}
	}
	return false
}

// receive takes what a connection brought. It is called by the goroutine that reads.
func (c *Client) receive(l *link, cn *conn, messages []*wire.Outbound) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range messages {
		switch {
		case c.conn == cn:
			if cn.welcomed.IsZero() {
				c.opened(cn)
			}
			c.dispatch(cn, m)
		case m.Type == wire.TypeWelcome && cn.welcomed.IsZero():
			if err := c.adopt(l, cn, m); err != nil {
				return err
			}
		case m.Type == wire.TypeError && cn.welcomed.IsZero():
			c.complain(m)
		}
	}
	if c.conn == cn {
		c.pump()
	}
	return nil
}

func (c *Client) dispatch(cn *conn, m *wire.Outbound) {
	cl := c.sent[m.Ref]
	switch m.Type {
	case wire.TypePing:
		cn.pong = true
		cn.write()
	case wire.TypeGoaway:
		c.move(m)
	case wire.TypeAuthExpiring:
		if c.cfg.token != nil && !c.closed {
			c.wg.Go(func() { c.refresh(cn) })
		}
	case wire.TypeAcknowledgment:
		c.accepted(cn, cl, m)
	case wire.TypeError:
		if m.Seq == 0 {
			c.declined(cn, cl, m)
			return
		}
		c.numbered(cn, cl, m)
	case wire.TypeAttached, wire.TypeGap:
		f := c.flows[m.RequestID]
		switch {
		case f == nil || f.on != cn || f.asked != nil && f.asked.ref != m.Ref:
		case m.Type == wire.TypeGap:
			c.gap(f, m)
			c.review(f)
		case f.asked != nil:
			c.attached(f, m)
			c.review(f)
		}
	case wire.TypeProgress:
		if f := c.flows[m.RequestID]; f != nil && f.on == cn && f.known {
			f.report(&Progress{m.Attempt, m.Percentage, m.Message, m.Metadata, m.Timestamp})
		}
	default:
		switch {
		case m.Seq > 0:
			c.numbered(cn, cl, m)
		case cl != nil && cl.kind == cancel:
			c.answer(cl, nil)
		}
	}
}

// accepted takes an acknowledgment.
func (c *Client) accepted(cn *conn, cl *call, m *wire.Outbound) {
	switch {
	case cl == nil || cl.kind == attach:
	case cl.kind == cancel:
		c.answer(cl, nil)
	case cl.abandoned:
		c.remove(cl)
		if c.flows[cl.id] == nil {
			cn.send((&wire.Inbound{Type: wire.TypeDetach, ID: cl.id}).Append(nil))
		}
	default:
		c.answer(cl, nil)
		if f := cl.flow; !f.over() {
			cn.follow(f.id, m.Epoch)
			c.acknowledged(f, m)
			c.review(f)
		}
	}
}

// numbered takes an event, which may answer a call as well.
func (c *Client) numbered(cn *conn, cl *call, m *wire.Outbound) {
	f := c.flows[m.RequestID]
	switch {
	case cl == nil || cl.kind == attach:
	case cl.kind == cancel:
		c.answer(cl, nil)
		if f != nil && m.Seq != f.next {
			return // shown out of turn
		}
	case cl.abandoned:
		c.remove(cl)
		return
	default: // short work has no acknowledgment
		c.answer(cl, nil)
		c.restart(cl.flow, 0)
	}
	if f != nil && f.on == cn && f.known && (f.asked == nil || f.asked.on == nil) {
		c.event(f, m)
	}
}

// declined takes an error that is not the end of a request.
func (c *Client) declined(cn *conn, cl *call, m *wire.Outbound) {
	err := publicError(m.Error)
	if err == nil {
		err = streamer.NewError(streamer.ErrCodeInternalError, "the server did not say what is wrong")
	}
	switch {
	case cl == nil:
		f := c.flows[m.RequestID]
		if f == nil || f.on != cn || m.Ref != "" {
			c.complain(m)
			return
		}
		c.unattached(f, err)
	case cl.kind == attach:
		c.remove(cl)
		c.unattached(cl.flow, err)
	case cl.abandoned:
		c.remove(cl)
	default:
		c.answer(cl, err)
	}
}

// complain logs an error that belongs to no request.
func (c *Client) complain(m *wire.Outbound) {
	if err := publicError(m.Error); err != nil {
		c.cfg.logger.Warn("client: error from the server", "code", err.Code, "message", err.Message)
	}
}
