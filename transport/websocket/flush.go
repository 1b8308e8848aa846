package websocket

import (
	"runtime"
	"time"

	"github.com/coder/websocket"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

const (
	batchMessages = 16       // in a frame, or in a write
	batchBytes    = 64 << 10 // in either, unless one message is larger
)

// push queues a reply. c.mu is held.
func (c *conn) push(message []byte) {
	if c.closing || c.dead {
		return
	}
	size := len(message) + replyOverhead
	if c.queued > 0 && c.queued+size > c.h.cfg.Limits.QueuedBytes {
		c.closeLocked(wire.CloseTimeout, "too slow: replies are not read")
		return
	}
	c.queued += size
	c.replies = append(c.replies, message)
	c.wake()
}

// replyOverhead is what a queued reply takes beside its bytes.
const replyOverhead = 32

// send queues a reply.
func (c *conn) send(m *wire.Outbound) {
	b := m.Append(make([]byte, 0, 256))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.push(b)
}

// wake makes sure that flush runs. c.mu is held.
func (c *conn) wake() {
	if c.flushing || c.dead {
		return
	}
	c.flushing = true
	c.h.active.Add(1)
	go c.flush()
}

// batch is what flush has in hand.
type batch struct {
	replies  [][]byte
	messages [][]byte // for the next write
	scratch  []byte   // behind those of messages that are encoded for this write alone
	bytes    int      // of messages
	joined   bool     // several of them in a frame
	hello    bool     // the client has said hello

	conn *conn       // whose log
	of   *attachment // is shown
}

func (b *batch) full() bool { return len(b.messages) >= batchMessages || b.bytes >= batchBytes }

func (b *batch) reset() {
	clear(b.messages)
	b.messages, b.bytes = b.messages[:0], 0
}

// encode returns the message of e in memory that is used again when no message waits for a
// write any more.
func (b *batch) encode(id string, e *progress.Event) []byte {
	if len(b.messages) == 0 {
		b.scratch = b.scratch[:0]
	}
	from := len(b.scratch)
	b.scratch = wire.AppendEvent(b.scratch, id, e)
	return b.scratch[from:len(b.scratch):len(b.scratch)]
}

// flush writes until there is nothing to write: replies first, then pages of the attachments
// that have something new, one each in turn. So order on the wire is that under c.mu: what
// is pushed before an attachment is marked comes before the attachment's events.
func (c *conn) flush() {
	b := c.h.batches.Get().(*batch)
	defer c.h.leave()
	defer func() {
		if v := recover(); v != nil {
			c.mu.Lock()
			c.flushing = false
			c.mu.Unlock()
			c.link.hold(0)
			c.fault(v)
			return
		}
		b.reset()
		if cap(b.scratch) > 4*batchBytes {
			b.scratch = nil
		}
		c.h.batches.Put(b)
	}()
	written := 0     // bytes of replies
	yielded := false // to whoever may add to the batch
	for {
		c.mu.Lock()
		c.queued -= written
		b.replies = append(b.replies[:0], c.replies...)
		clear(c.replies)
		c.replies = c.replies[:0]
		b.joined, b.hello = c.batch, c.hello
		var a *attachment
		if !c.closing || c.code == closeRestart {
			// Before a restart what the logs have is shown still, as far as the time for closing goes.
			a = c.changed.take()
		}
		closing, code, reason := c.closing && a == nil, c.code, c.reason
		if c.dead || len(b.replies) == 0 && a == nil && len(b.messages) == 0 && !closing {
			c.flushing = false
			if cap(c.replies) > 8 {
				c.replies = nil
			}
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()

		idle := len(b.replies) == 0 && a == nil
		written = 0
		for _, message := range b.replies {
			c.add(b, message)
			written += len(message) + replyOverhead
		}
		clear(b.replies)
		if a != nil {
			c.show(b, a)
		}
		if idle && !closing && !yielded {
			// What is about to come goes out in the same write: that costs more than all else here.
			yielded = true
			runtime.Gosched()
			continue
		}
		if idle || closing {
			yielded = false
			c.write(b)
		}
		if closing {
			c.h.log.Debug("connection closing", "conn", c.session(), "code", code, "reason", reason)
			c.ws.Close(websocket.StatusCode(code), wire.CloseReason(reason))
			c.link.sever()
			return // with flushing set: there is nothing more to write
		}
	}
}

// add puts a message into the batch, which is written when it is full.
func (c *conn) add(b *batch, message []byte) {
	if b.bytes+len(message) > batchBytes {
		c.write(b)
	}
	b.messages = append(b.messages, message)
	b.bytes += len(message) + 1
	if b.full() {
		c.write(b)
	}
}

// write writes the batch: in one frame where the client can split it, else in a frame per
// message; in one piece either way.
func (c *conn) write(b *batch) {
	if len(b.messages) == 0 {
		return
	}
	now := int64(c.h.now())
	c.writing.Store(now)
	c.sent.Store(now)
	frames := len(b.messages)
	var err error
	switch {
	case frames == 1:
		c.link.hold(frameSize(len(b.messages[0])))
		err = c.ws.Write(c.h.endless, websocket.MessageText, b.messages[0])
	case b.joined:
		frames = 1
		err = c.writeJoined(b)
	default:
		n := 0
		for _, m := range b.messages {
			n += frameSize(len(m))
		}
		c.link.hold(n)
		for _, m := range b.messages {
			if err = c.ws.Write(c.h.endless, websocket.MessageText, m); err != nil {
				break
			}
		}
	}
	c.writing.Store(0)
	s := &c.h.stats
	s.sent.Add(uint64(len(b.messages)))
	s.frames.Add(uint64(frames))
	s.bytes.Add(uint64(b.bytes - len(b.messages)))
	b.reset()
	if err != nil {
		c.link.sever()
	}
}

func (c *conn) writeJoined(b *batch) error {
	buf := c.h.buffers.Get().(*[]byte)
	defer c.h.recycle(buf)
	for i, m := range b.messages {
		if i > 0 {
			*buf = append(*buf, '\n')
		}
		*buf = append(*buf, m...)
	}
	c.link.hold(frameSize(len(*buf)))
	return c.ws.Write(c.h.endless, websocket.MessageText, *buf)
}

// frameSize is how many bytes a frame of n bytes has on the wire.
func frameSize(n int) int {
	switch {
	case n < 126:
		return n + 2
	case n < 1<<16:
		return n + 4
	default:
		return n + 10
	}
}

// stuck reports whether a write has been under way for longer than it may.
func (c *conn) stuck(now time.Duration) bool {
	since := time.Duration(c.writing.Load())
	return since != 0 && now-since >= c.h.cfg.WriteTimeout
}
