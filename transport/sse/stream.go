package sse

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

const (
	maxLife     = 10 * time.Minute // of a stream, less up to a fifth
	maxBeat     = 15 * time.Second // between signs of life, which proxies may expect within 20 s
	maxStalls   = 30               // reads of a log that may fail in a row
	stallPause  = time.Second      // between these
	flushBytes  = 64 << 10         // that are gathered for one write
	retryLeast  = time.Second      // that EventSource waits before it connects again
	retrySpread = 2 * time.Second

	// recent is how far an event may be behind the newest for its encoding to be kept for other
	// viewers.
	recent = 2 * pageSize
)

// stream is an answer that shows what happens to requests while it happens.
type stream struct {
	*set
	rc     *http.ResponseController
	single bool  // of one request, whose cursors go without its id
	loan   *loan // nil: there is none
	buf    []byte
	of     *followed     // whose log is shown
	cut    atomic.Bool   // by Shutdown
	rang   atomic.Uint32 // bells that have woken the stream

	deadline time.Time // of writes
	written  time.Time // the last
}

// What wakes a stream through the channel of its logs. To wait for a timer's channel sets and stops
// the timer at each event and for each viewer, and one that all streams share has them contend for
// its lock: both show in what a delivery costs.
const (
	bellTimer   uint32 = 1 << iota
	bellClosing        // of the handler
)

// ring wakes the stream.
func (s *stream) ring(bell uint32) {
	s.rang.Or(bell)
	s.wake()
}

func (c *call) newStream(single bool) *stream {
	s := &stream{set: newSet(c), rc: c.control(), single: single}
	s.borrow()
	s.buf = append(s.buf, ":\nretry: "...)
	s.buf = strconv.AppendInt(s.buf, (retryLeast + rand.N(retrySpread)).Milliseconds(), 10)
	s.buf = append(s.buf, "\n\n"...)
	return s
}

// stream serves a GET of a stream.
func (c *call) stream(what resource, at []wire.Cursor) {
	s := c.newStream(what == requestEvents)
	defer s.stop()
	told, err := s.attach(at)
	for i, m := range told {
		s.put(m.Type, s.cursor(s.followed[i]), m.Append(nil))
	}
	switch {
	case err != nil:
		s.giveBack()
		c.fail(err)
	case s.done():
		s.giveBack()
		c.w.Header().Set("Cache-Control", "no-store")
		c.w.WriteHeader(http.StatusNoContent) // EventSource does not connect again after that
	default:
		s.serve()
	}
}

// streamReceipt serves a submit that is to be answered by the request's stream.
func (c *call) streamReceipt(receipt *streamer.Receipt) {
	s := c.newStream(true)
	defer s.stop()
	f, err := s.add(receipt.ID, receipt.Viewer, view.Cursor{Epoch: receipt.State.Epoch})
	if err != nil {
		s.giveBack()
		c.fail(err)
		return
	}
	if receipt.End == nil {
		f.cursor.After = 1 // what the acknowledgment covers
		s.put(wire.TypeAcknowledgment, s.cursor(f), view.Acknowledgment(receipt).Append(nil))
	}
	s.serve()
}

// serve writes the stream until it ends.
func (s *stream) serve() {
	c := s.c
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead || !c.h.register(s) {
		s.giveBack()
		return
	}
	defer c.h.unregister(s)
	if err := s.run(); err != nil {
		s.broken(err)
		return
	}
	_ = s.rc.SetWriteDeadline(time.Now().Add(c.h.cfg.WriteTimeout)) // of the last chunk
}

// run shows what there is and what comes. It returns nil when the stream has ended in order.
func (s *stream) run() error {
	c := s.c
	cfg := c.h.cfg
	life := time.Now().Add(maxLife - rand.N(maxLife/5))
	if e := c.who.Expires; !e.IsZero() && e.Before(life) {
		life = e
	}
	beat := min(cfg.PingInterval, maxBeat)
	// The first bytes show the client, and proxies, that there is a stream.
	if err := s.flush(); err != nil {
		return err
	}
	due := s.written.Add(beat)
	timer := time.AfterFunc(beat, func() { s.ring(bellTimer) })
	defer timer.Stop()
	draining := c.h.router.Draining()
	for {
		more, stalled := s.step()
		done := s.done()
		if done {
			s.borrow()
			s.put(wire.TypeEnd, place{}, []byte(`{"type":"end"}`))
		}
		if more && len(s.buf) < flushBytes {
			continue
		}
		if len(s.buf) > 0 {
			if err := s.flush(); err != nil {
				return err
			}
		}
		if done {
			return nil
		}
		if more {
			continue
		}
		s.giveBack()
		next := s.written.Add(beat)
		if life.Before(next) {
			next = life
		}
		if stalled {
			next = sooner(next, stallPause)
		}
		// After a write the timer is left to run off too early: to set it costs more than that.
		if due.IsZero() || next.Before(due) {
			due = next
			timer.Reset(time.Until(next))
		}
		select {
		case <-s.changed:
		case <-c.context().Done():
			return nil
		case <-draining:
			draining = nil
			s.leave(cfg.DrainTime)
			life = sooner(life, cfg.DrainTime)
		}
		if s.rang.Load() == 0 {
			continue
		}
		rang := s.rang.Swap(0)
		if rang&bellClosing != 0 {
			// One after the other: their clients come to the other servers.
			life = sooner(life, rand.N(c.h.spread+1))
		}
		if rang&bellTimer != 0 {
			due = time.Time{}
			now := time.Now()
			if !now.Before(life) {
				return nil
			}
			s.again()
			if now.Sub(s.written) >= beat {
				s.borrow()
				s.buf = append(s.buf, ":\n"...)
				s.put(wire.TypePing, place{}, []byte(`{"type":"ping"}`))
			}
		}
	}
}

// sooner returns when a stream ends that has no longer than d.
func sooner(life time.Time, d time.Duration) time.Time {
	if end := time.Now().Add(d); end.Before(life) {
		return end
	}
	return life
}

// leave tells the client to move to another server within the time given.
func (s *stream) leave(within time.Duration) {
	m := wire.Outbound{
		Type: wire.TypeGoaway, Reason: "restart",
		ReconnectInMS: rand.N(within/4 + 1).Milliseconds(), DeadlineMS: within.Milliseconds(),
	}
	s.borrow()
	s.buf = append(s.buf, "retry: "...)
	s.buf = strconv.AppendInt(s.buf, m.ReconnectInMS, 10)
	s.buf = append(s.buf, '\n')
	s.put(m.Type, place{}, m.Append(nil))
}

// step shows a page of each request that has something new. It returns whether there is more
// to show at once, and whether a log could not be read.
func (s *stream) step() (more, stalled bool) {
	for _, f := range s.followed {
		if f.over || !f.dirty.Swap(false) {
			stalled = stalled || f.stalls > 0
			continue
		}
		s.borrow()
		page := &s.loan.page
		var err error
		*page, err = f.viewer.Read(s.c.context(), f.cursor.After, pageSize)
		if err != nil {
			stalled = s.stall(f, err) || stalled
			continue
		}
		f.stalls = 0
		s.of = f
		switch f.cursor.Show(page, s) {
		case view.More:
			f.dirty.Store(true)
			more = true
		case view.None:
			f.over = true
		}
		if len(s.buf) >= flushBytes {
			return true, stalled
		}
	}
	return more, stalled
}

// stall handles a log that could not be read. What a store refuses now is tried again.
func (s *stream) stall(f *followed, err error) bool {
	if transient(err) && f.stalls < maxStalls {
		f.stalls++
		return true
	}
	f.over = true
	m := refusal(f.id, err)
	s.put(m.Type, place{}, m.Append(nil))
	return false
}

// again has the logs read that could not be.
func (s *stream) again() {
	for _, f := range s.followed {
		if f.stalls > 0 {
			f.dirty.Store(true)
		}
	}
}

// refusal is the message that a request can't be followed.
func refusal(id string, err error) *wire.Outbound {
	return &wire.Outbound{Type: wire.TypeError, RequestID: id, Error: transport.Failure(err)}
}

// Gap implements [view.Sink].
func (s *stream) Gap(page *progress.Page, after uint64, reason string) {
	s.c.h.stats.gaps.Add(1)
	m := view.Gap(s.of.id, page, after, reason)
	s.put(m.Type, place{s.of, page.State.Epoch, page.Oldest - 1}, m.Append(nil))
}

// Event implements [view.Sink].
func (s *stream) Event(page *progress.Page, e *progress.Event) {
	at := place{s.of, page.State.Epoch, e.Seq}
	if page.State.Last-e.Seq > recent { // not kept: hardly another viewer is as far behind
		s.put(eventType(e), at, wire.EncodeEvent(s.of.id, e))
		return
	}
	s.put(eventType(e), at, e.Encoded(s.of.id, wire.EncodeEvent))
}

// Progress implements [view.Sink].
func (s *stream) Progress(p *progress.Progress) {
	s.put(wire.TypeProgress, place{}, p.Encoded(s.of.id, wire.EncodeProgress))
}

// eventType is the type of an event's message.
func eventType(e *progress.Event) string {
	switch {
	case e.Kind == progress.Output:
		return wire.TypeOutput
	case e.Kind == progress.Completed && e.Short:
		return wire.TypeResponse
	case e.Kind == progress.Completed:
		return wire.TypeComplete
	case e.Kind.Ends():
		return wire.TypeError
	default:
		return wire.TypeStatus
	}
}

// broken says why the stream could not be written.
func (s *stream) broken(err error) {
	c := s.c
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.h.stats.timeout.Add(1)
		c.h.log.Info("stream cut: its client does not read", "request_id", c.id)
		return
	}
	c.h.log.Debug("stream ended", "request_id", c.id, "error", err)
}
