package websocket

import (
	"errors"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

const (
	// pageSize is how many events are read at once. A log may return fewer where they are large.
	pageSize = 64

	// recent is how far an event may be behind the newest for its encoding to be kept for other
	// viewers. A resume of a long log would leave its size once more in memory.
	recent = 2 * pageSize

	// maxStalls is how many reads of a log may fail in a row, a second or so apart, before the
	// connection is closed for its client to try another server.
	maxStalls = 30
)

// attachment is a request that a connection follows. It holds no events, just how far the
// client has been shown the log: a client that reads slowly costs no more than one that
// does not.
type attachment struct {
	id     string
	viewer *streamer.Viewer
	stop   func() // of the log's watch

	cursor view.Cursor // of follow, then of flush

	// Under conn.mu.
	live   bool // among conn.attached
	marked bool // among conn.changed
	next   *attachment
	refs   []string        // of what is answered by the next Canceling event or the end
	asked  *progress.Event // the newest Canceling event that was shown
	stalls int             // reads that failed in a row
}

// changes is a queue of attachments that have something new.
type changes struct{ first, last *attachment }

func (q *changes) put(a *attachment) {
	if a.marked || !a.live {
		return
	}
	a.marked = true
	if q.first == nil {
		q.first = a
	} else {
		q.last.next = a
	}
	q.last = a
}

// take returns the first that is still live, or nil.
func (q *changes) take() *attachment {
	for q.first != nil {
		a := q.first
		q.first, a.next, a.marked = a.next, nil, false
		if a.live {
			return a
		}
	}
	return nil
}

// mark notes that a's log has something new.
func (c *conn) mark(a *attachment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead && a.live {
		c.changed.put(a)
		c.wake()
	}
}

// resume serves the cursors of a hello, one after the other.
func (c *conn) resume(cursors []wire.Cursor) {
	for _, cursor := range cursors {
		c.mu.Lock()
		_, again := c.attached[cursor.ID]
		full := !again && len(c.attached) >= c.h.cfg.Limits.Attached
		over := c.dead || c.closing
		c.mu.Unlock()
		switch {
		case over:
			return
		case full:
			c.h.stats.limited.Add(1)
			c.fail(cursor.ID, "", errAttached)
		default:
			c.attach(cursor, "")
		}
	}
}

// attach follows a request from a cursor on.
func (c *conn) attach(cursor wire.Cursor, ref string) {
	viewer, err := c.h.router.Attach(c.h.ctx, c.identity(), cursor.ID)
	if err != nil {
		c.fail(cursor.ID, ref, err)
		return
	}
	page, err := view.Page(c.h.ctx, viewer, cursor)
	if err != nil {
		c.fail(cursor.ID, ref, err)
		return
	}
	reply, from, gap := view.Attach(&page, cursor)
	reply.Ref = ref
	if gap {
		c.h.stats.gaps.Add(1)
	}
	a := &attachment{viewer: viewer, id: cursor.ID, cursor: from}
	c.follow(a, reply, ref)
}

// follow shows a request from a's cursor on, after reply. Where the request was followed
// already, a takes the place of that. Without a reply, the request's next Canceling event or
// its end carries ref.
func (c *conn) follow(a *attachment, reply *wire.Outbound, ref string) {
	stop, err := a.viewer.Watch(c.h.ctx, func() { c.mark(a) })
	if err != nil {
		c.fail(a.id, ref, err)
		return
	}
	a.stop = stop
	var b []byte
	if reply != nil {
		b = reply.Append(make([]byte, 0, 256))
	} else {
		a.refs = append(a.refs, ref)
	}
	c.mu.Lock()
	if c.dead || c.closing {
		// No reply is sent any more, and events without it would make no sense.
		c.mu.Unlock()
		stop()
		return
	}
	old := c.attached[a.id]
	if old != nil {
		old.live = false
		a.refs = append(a.refs, old.refs...)
	} else {
		c.h.stats.attached.Add(1)
	}
	if c.attached == nil {
		c.attached = make(map[string]*attachment)
	}
	c.attached[a.id] = a
	a.live = true
	if reply != nil && (c.hello || reply.Type == wire.TypeAcknowledgment) {
		c.push(b)
	}
	c.changed.put(a)
	c.wake()
	c.mu.Unlock()
	if old != nil {
		old.stop()
	}
}

// detach follows a request no more.
func (c *conn) detach(id string) {
	c.mu.Lock()
	a := c.attached[id]
	c.mu.Unlock()
	if a != nil {
		c.drop(a)
	}
}

func (c *conn) drop(a *attachment) {
	c.mu.Lock()
	live := a.live
	if live {
		a.live = false
		delete(c.attached, a.id)
		if len(c.attached) == 0 {
			c.attached = nil // a map does not shrink
		}
	}
	c.mu.Unlock()
	if live {
		c.h.stats.attached.Add(-1)
		a.stop()
	}
}

// show adds the next page of a request to the batch: events, and progress when it is news.
func (c *conn) show(b *batch, a *attachment) {
	page, err := a.viewer.Read(c.h.ctx, a.cursor.After, pageSize)
	if err != nil {
		c.lost(b, a, err)
		return
	}
	b.conn, b.of = c, a
	switch a.cursor.Show(&page, b) {
	case view.More:
		c.mark(a)
	case view.None:
		c.drop(a)
	}
	b.conn, b.of = nil, nil
	if a.stalls > 0 {
		c.mu.Lock()
		a.stalls = 0
		c.mu.Unlock()
	}
}

// Gap implements [view.Sink].
func (b *batch) Gap(page *progress.Page, after uint64, reason string) {
	c, a := b.conn, b.of
	c.h.stats.gaps.Add(1)
	if b.hello {
		c.add(b, view.Gap(a.id, page, after, reason).Append(nil))
	}
}

// Event implements [view.Sink].
func (b *batch) Event(page *progress.Page, e *progress.Event) {
	c, a := b.conn, b.of
	switch {
	case e.Kind.Ends(), e.Kind == progress.Canceling:
		c.showReply(b, a, e)
	case b.hello && page.State.Last-e.Seq > recent:
		c.add(b, b.encode(a.id, e)) // not kept: hardly another viewer is as far behind
	case b.hello:
		c.add(b, encode(a.id, e))
	}
}

// Progress implements [view.Sink].
func (b *batch) Progress(p *progress.Progress) {
	b.conn.add(b, p.Encoded(b.of.id, wire.EncodeProgress))
}

// showReply shows an event that answers those who asked for a cancel, each with its ref.
func (c *conn) showReply(b *batch, a *attachment, e *progress.Event) {
	c.mu.Lock()
	refs := a.refs
	a.refs, a.asked = nil, e
	c.mu.Unlock()
	if !b.hello && e.Kind == progress.Canceling {
		return
	}
	if len(refs) == 0 {
		c.add(b, encode(a.id, e))
	}
	for _, ref := range refs {
		c.add(b, withRef(encode(a.id, e), ref))
	}
}

// lost handles a log that could not be read. One that is gone is told to the client; what a
// store refuses now is tried again by the heartbeat.
func (c *conn) lost(b *batch, a *attachment, err error) {
	var public *streamer.Error
	if errors.As(err, &public) && public.Code == streamer.ErrCodeServiceUnavailable {
		c.mu.Lock()
		defer c.mu.Unlock()
		if a.stalls++; a.stalls > maxStalls {
			c.closeLocked(wire.CloseStoreDown, "requests can't be read")
		}
		return
	}
	c.drop(a)
	m := wire.Outbound{Type: wire.TypeError, RequestID: a.id, Error: transport.Failure(err)}
	c.add(b, m.Append(nil))
}
