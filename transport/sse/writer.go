package sse

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

// bufferMax is the largest buffer that is kept for other streams.
const bufferMax = 2 * flushBytes

// loan is what a stream needs to write, and does without while nothing is to be written.
type loan struct {
	buf  []byte
	page progress.Page // that is shown
}

// borrow makes sure that there is a buffer.
func (s *stream) borrow() {
	if s.loan == nil {
		s.loan = s.c.h.loans.Get().(*loan)
		s.buf = s.loan.buf[:0]
	}
}

// giveBack returns the buffer. What is in it is dropped.
func (s *stream) giveBack() {
	if s.loan != nil && cap(s.buf) <= bufferMax {
		*s.loan = loan{buf: s.buf}
		s.c.h.loans.Put(s.loan)
	}
	s.loan, s.buf = nil, nil
}

// place is where an event moves a request of the stream: with it as its id a client comes back
// to there, and to where the other requests of the stream are. The zero place is none.
type place struct {
	of    *followed
	epoch string
	after uint64
}

// put adds an event to what is written next. name has no line breaks; data, a message, has none
// either.
func (s *stream) put(name string, at place, data []byte) {
	b := append(s.buf, "event: "...)
	b = append(b, name...)
	if at.of != nil {
		b = s.appendPlace(append(b, "\nid: "...), at)
	}
	b = append(append(b, "\ndata: "...), data...)
	s.buf = append(b, "\n\n"...)
	s.c.h.stats.sent.Add(1)
}

// cursor is the id of an event after which f stands where it does.
func (s *stream) cursor(f *followed) place { return place{f, f.cursor.Epoch, f.cursor.After} }

func (s *stream) appendPlace(b []byte, at place) []byte {
	if s.single {
		return appendPosition(b, at.epoch, at.after)
	}
	for i, f := range s.followed {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, f.id...), ':')
		if f == at.of {
			b = appendPosition(b, at.epoch, at.after)
		} else {
			b = appendPosition(b, f.cursor.Epoch, f.cursor.After)
		}
	}
	return b
}

func appendPosition(b []byte, epoch string, after uint64) []byte {
	return strconv.AppendUint(append(append(b, epoch...), ':'), after, 10)
}

// flush writes what was put, in the time that a write may take.
func (s *stream) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	c := s.c
	s.patient()
	if s.cut.Load() { // after the deadline was set, so that none that Shutdown sets is lost
		return http.ErrServerClosed
	}
	c.h.stats.bytes.Add(uint64(len(s.buf)))
	_, err := c.w.Write(s.buf)
	if ferr := s.rc.Flush(); err == nil {
		err = ferr // a write may just fill a buffer: it is the flush that fails
	}
	s.giveBack()
	if err == nil && c.r.ProtoMajor > 1 && !s.cut.Load() {
		// On HTTP/2 a deadline that passes ends the stream, even when nothing is written.
		_ = s.rc.SetWriteDeadline(time.Time{})
		s.deadline = time.Time{}
	}
	return err
}

// patient bounds the next write in time. To set a deadline costs much beside a small write, so
// one that leaves nearly as much time is kept.
func (s *stream) patient() {
	h := s.c.h
	now := time.Now()
	s.written = now
	if s.deadline.Sub(now) > h.cfg.WriteTimeout-h.cfg.WriteTimeout/8 {
		return
	}
	s.deadline = now.Add(h.cfg.WriteTimeout)
	if err := s.rc.SetWriteDeadline(s.deadline); errors.Is(err, http.ErrNotSupported) {
		h.warn()
	}
}

// errFlush is for whoever put the handler behind such middleware.
var errFlush = streamer.NewError(streamer.ErrCodeInternalError,
	"streams can't be served here: middleware in front of the handler hides http.Flusher; its http.ResponseWriter needs an Unwrap method, and http.TimeoutHandler must not be around it")

// flushable reports whether answers can be written piece by piece, and answers why not.
func (c *call) flushable() bool {
	w := c.w
	for {
		switch t := w.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			c.h.log.Error("streams can't be served: the http.ResponseWriter is no http.Flusher and has no Unwrap method", "path", c.r.URL.Path)
			c.fail(errFlush)
			return false
		}
	}
}
