package client

import (
	"time"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

const (
	maxHoles     = 3 // times that a log is asked for again when events are missing
	attachPause  = time.Second
	attachPauses = 5 // doublings of attachPause
)

// flow follows one log, over one connection after the other. It is in Client.flows until the
// request's end, an error, or until nobody wants it. It is guarded by the client's mutex.
type flow struct {
	journal
	id    string
	n     uint64 // order of creation
	users int    // calls and handles that have it

	epoch string
	known bool          // there is a log to attach to
	ready chan struct{} // closed when the server has answered, or err is set
	done  chan struct{} // closed when end or err is set
	err   error         // why it is followed no more

	on      *conn  // where it takes a slot
	asked   *call  // the attach that is to be answered, or sent; nil: none
	next    uint64 // seq that comes next on the connection
	implied bool   // event 1 may be left out: an acknowledgment stands for it
	paused  bool   // not attached, since nobody has room for more
	ended   bool   // the server said so; just the end itself is missing
	holes   int    // in a row
	pauses  int    // refused attaches in a row
	timer   *time.Timer
}

// join returns the flow of that id, which has one more user, and whether it is new.
func (c *Client) join(id string, at cursor, limit int) (f *flow, fresh bool, err error) {
	if f := c.flows[id]; f != nil {
		f.users++
		f.limit = max(f.limit, limit)
		return f, false, nil
	}
	if c.pending() >= c.cfg.limits.Pending {
		return nil, false, streamer.NewError(streamer.ErrCodeRateLimited, "client: too many requests are pending; see WithLimits")
	}
	c.count++
	f = &flow{
		journal: newJournal(limit, &c.budget, at.after),
		id:      id,
		n:       c.count,
		users:   1,
		epoch:   at.epoch,
		ready:   make(chan struct{}),
		done:    make(chan struct{}),
	}
	c.flows[id] = f
	return f, true, nil
}

// leave takes one user off a flow. What nobody uses is followed no more. Where nobody submits
// it any more but somebody wants to see it, the server is asked for it.
func (c *Client) leave(f *flow) {
	f.users--
	switch {
	case f.over():
		return
	case f.users > 0:
		if !f.known && !c.submits(f) {
			f.known = true
			c.ask(f)
		}
		return
	}
	if f.on != nil {
		f.on.send((&wire.Inbound{Type: wire.TypeDetach, ID: f.id}).Append(nil))
	}
	c.finish(f, ErrClosed)
}

// over reports whether the flow has come to its end, or an error.
func (f *flow) over() bool { return f.end != nil || f.err != nil }

// finish ends a flow: err is nil when the request has ended.
func (c *Client) finish(f *flow, err error) {
	if c.flows[f.id] != f {
		return
	}
	delete(c.flows, f.id)
	f.err = err
	f.hold(nil)
	if f.asked != nil {
		c.remove(f.asked)
		f.asked = nil
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	f.part()
	f.become()
	close(f.done)
	f.changed.fire()
	f.reported.fire()
	c.calm()
	c.pump()
}

// become says that the server has answered.
func (f *flow) become() {
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
}

// hold takes a slot of a connection, or frees the one it has.
func (f *flow) hold(cn *conn) {
	if f.on != nil {
		f.on.slots--
	}
	if f.on = cn; cn != nil {
		cn.slots++
	}
}

// cursor returns after which event to attach.
func (f *flow) cursor() uint64 {
	after := f.last
	if f.ended && after > 0 {
		after--
	}
	if lower, yes := f.behind(f.limit / 2); yes {
		after = min(after, lower)
	}
	return after
}

// ask attaches a flow, as soon as there is a connection with a slot for it.
func (c *Client) ask(f *flow) {
	if f.asked != nil {
		c.remove(f.asked)
	}
	f.paused = false
	f.asked = c.newCall(attach, f.id)
	f.asked.flow = f
	c.enqueue(f.asked)
}

// review attaches a flow when somebody wants what it does not get, and detaches it when
// nobody has room for more.
func (c *Client) review(f *flow) {
	if f.over() || !f.known {
		return
	}
	lower, behind := f.behind(f.limit / 2)
	switch {
	case f.paused:
		if f.wanted(f.limit / 2) {
			c.ask(f)
		}
	case f.asked != nil:
		if behind && f.asked.on != nil && lower < f.asked.after {
			c.ask(f)
		}
	case f.on == nil: // no connection, or a refused attach is to be repeated
	case behind && lower+1 < f.next:
		c.ask(f)
	case !f.wanted(f.limit):
		f.on.send((&wire.Inbound{Type: wire.TypeDetach, ID: f.id}).Append(nil))
		f.hold(nil)
		f.paused = true
		c.pump()
	}
}

// acknowledged takes the answer to a submit: the log's events follow from the start.
func (c *Client) acknowledged(f *flow, m *wire.Outbound) {
	if f.epoch != "" && f.epoch != m.Epoch {
		f.skip(gap(m.Epoch, "recreated", 1, 0))
	}
	f.epoch = m.Epoch
	c.restart(f, 0)
	if m.Duplicate || f.last > 0 {
		f.implied = true
		return
	}
	f.next = 2
	f.add(&Event{Kind: progress.Accepted, Epoch: m.Epoch, Seq: 1, Time: m.Timestamp})
}

// restart says that the connection goes on with the event after that number.
func (c *Client) restart(f *flow, after uint64) {
	if f.asked != nil {
		c.remove(f.asked)
		f.asked = nil
	}
	f.known = true
	f.paused = false
	f.implied = false
	f.next = after + 1
	f.pauses = 0
	f.become()
}

// attached takes the answer to an attach.
func (c *Client) attached(f *flow, m *wire.Outbound) {
	if f.epoch != "" && f.epoch != m.Epoch { // the log was recreated between gap and now
		f.skip(gap(m.Epoch, "recreated", 1, m.Attempt))
		f.epoch = m.Epoch
		c.ask(f)
		return
	}
	f.epoch = m.Epoch
	f.attempt = max(f.attempt, m.Attempt)
	c.restart(f, m.After)
	if endStatus(m.Status) && m.Last <= m.After {
		if f.ended {
			c.finish(f, streamer.NewError(streamer.ErrCodeInternalError, "the server does not show the end of the request"))
			return
		}
		f.ended = true
		c.ask(f)
	}
}

// gap takes the answer that the log does not go on where the flow stands.
func (c *Client) gap(f *flow, m *wire.Outbound) {
	oldest := max(m.Oldest, 1)
	e := gap(m.Epoch, m.Reason, oldest, m.Attempt)
	if m.Epoch == f.epoch && oldest <= f.last+1 && m.Last >= f.last {
		f.lose(e)
	} else {
		f.skip(e)
	}
	f.epoch = m.Epoch
	c.restart(f, oldest-1)
}

func gap(epoch, reason string, oldest uint64, attempt int) *Event {
	return &Event{Kind: Gap, Epoch: epoch, Attempt: attempt, Gap: &GapInfo{Reason: reason, Oldest: oldest}}
}

// event takes a numbered message of the flow's log.
func (c *Client) event(f *flow, m *wire.Outbound) {
	if f.implied && f.next == 1 && m.Seq == 2 {
		f.next = 2
		if f.last == 0 {
			f.add(&Event{Kind: progress.Accepted, Epoch: f.epoch, Seq: 1})
		}
	}
	switch {
	case m.Seq < f.next:
		return
	case m.Seq > f.next:
		c.hole(f)
		return
	}
	f.next++
	f.holes = 0
	e := event(f.epoch, m)
	switch {
	case e.Seq == f.last+1:
		f.add(e)
	default:
		f.refill(e)
		if e.Kind.Ends() {
			f.journal.end = e
		}
	}
	if f.journal.end != nil && e.Kind.Ends() {
		c.finish(f, nil)
		return
	}
	c.review(f)
}

// hole asks again for events that are missing.
func (c *Client) hole(f *flow) {
	if f.asked != nil {
		return
	}
	if f.holes++; f.holes > maxHoles {
		c.finish(f, streamer.NewError(streamer.ErrCodeInternalError, "the server leaves out events"))
		return
	}
	c.cfg.logger.Warn("client: events are missing, asking again", "request_id", f.id, "seq", f.next)
	c.ask(f)
}

// unattached takes the refusal of an attach.
func (c *Client) unattached(f *flow, err *streamer.Error) {
	f.asked = nil
	f.hold(nil)
	if err.Code != streamer.ErrCodeServiceUnavailable && err.Code != streamer.ErrCodeRateLimited {
		c.finish(f, err)
		return
	}
	delay := max(err.RetryAfter, attachPause<<min(f.pauses, attachPauses))
	f.pauses++
	f.timer = time.AfterFunc(delay, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.flows[f.id] == f && f.on == nil && f.asked == nil {
			c.ask(f)
		}
	})
}
