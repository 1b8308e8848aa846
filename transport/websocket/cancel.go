package websocket

import (
	"slices"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

// cancel serves a cancel. The event that records it is the answer, or the request's end: for
// a client that follows the request, in its place among the others.
func (c *conn) cancel(m *wire.Inbound) {
	c.mu.Lock()
	a := c.attached[m.ID]
	if a != nil {
		a.refs = append(a.refs, m.Ref)
	}
	c.mu.Unlock()

	who := c.identity()
	st, err := c.h.router.Cancel(c.h.ctx, who, m.ID, m.Reason)
	if err != nil {
		if a != nil {
			c.withdraw(a, m.Ref)
		}
		c.fail(m.ID, m.Ref, err)
		return
	}
	fluent := c.greeted()
	c.mu.Lock()
	var asked *progress.Event
	live := false
	if a != nil {
		asked, live = a.asked, a.live
	}
	c.mu.Unlock()
	switch {
	case a == nil:
		c.confirm(who, st, m)
	case live && fluent && (asked == nil || st.Ended() && !asked.Kind.Ends()):
		// The answer is still to be shown.
	case !c.withdraw(a, m.Ref):
		// It was.
	case fluent && asked != nil && !st.Ended():
		c.reply(withRef(encode(m.ID, asked), m.Ref))
	default:
		c.confirm(who, st, m)
	}
}

// withdraw takes back that ref waits for an answer. It returns false when that was given.
func (c *conn) withdraw(a *attachment, ref string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(a.refs, ref)
	if i >= 0 {
		a.refs = slices.Delete(a.refs, i, i+1)
	}
	return i >= 0
}

// confirm answers a cancel apart from what the client is shown of the request.
func (c *conn) confirm(who streamer.Identity, st progress.State, m *wire.Inbound) {
	if !c.greeted() && !st.Ended() {
		c.acknowledge(st, m)
		return
	}
	viewer, err := c.h.router.Attach(c.h.ctx, who, m.ID)
	if err != nil {
		c.fail(m.ID, m.Ref, err)
		return
	}
	if st.Ended() {
		// It may be large, so it is not queued but read when it can be sent.
		c.follow(&attachment{id: m.ID, viewer: viewer, cursor: view.Cursor{Epoch: st.Epoch, After: st.Last - 1, Silent: true}}, nil, m.Ref)
		return
	}
	page, err := viewer.Read(c.h.ctx, st.Last-min(st.Last, pageSize), pageSize)
	if err != nil {
		c.fail(m.ID, m.Ref, err)
		return
	}
	for _, e := range slices.Backward(page.Events) {
		if e.Kind == progress.Canceling {
			c.reply(withRef(encode(m.ID, e), m.Ref))
			return
		}
	}
	c.send(&wire.Outbound{Type: wire.TypeStatus, RequestID: m.ID, Ref: m.Ref, Status: st.Phase.Status(), Reason: st.Reason})
}

// acknowledge answers a cancel to a client that does not know of status.
func (c *conn) acknowledge(st progress.State, m *wire.Inbound) {
	c.send(&wire.Outbound{
		Type: wire.TypeAcknowledgment, RequestID: m.ID, Ref: m.Ref, Epoch: st.Epoch, Seq: st.Last,
		Status: st.Phase.Status(), Message: "Request is being canceled", Timestamp: st.Created,
	})
}

// reply queues a reply that is encoded already.
func (c *conn) reply(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.push(b)
}

// greeted reports whether the client has said hello, and so knows all messages.
func (c *conn) greeted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hello
}
