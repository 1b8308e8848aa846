package sse

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/pay-theory/streamer/v2"
)

// bufferMax is the largest buffer that is kept for other streams.
const bufferMax = 2 * flushBytes

// borrow makes sure that there is a buffer. While nothing is to be written a stream has none.
func (s *stream) borrow() {
	if s.buf == nil {
		s.buf = (*s.c.h.buffer.Get().(*[]byte))[:0]
	}
}

// giveBack returns the buffer. What is in it is dropped.
func (s *stream) giveBack() {
	if b := s.buf; cap(b) <= bufferMax {
		s.c.h.buffer.Put(&b)
	}
	s.buf = nil
}

// put adds an event to what is written next. name and id have no line breaks; data, a message,
// has none either.
func (s *stream) put(name, id string, data []byte) {
	b := append(s.buf, "event: "...)
	b = append(b, name...)
	if id != "" {
		b = append(append(b, "\nid: "...), id...)
	}
	b = append(append(b, "\ndata: "...), data...)
	s.buf = append(b, "\n\n"...)
	s.c.h.stats.sent.Add(1)
}

// cursor is the id of an event after which f stands where it does.
func (s *stream) cursor(f *followed) string { return s.position(f, f.cursor.Epoch, f.cursor.After) }

// position is the id of an event that moves f there: with it a client comes back to this
// place of all requests of the stream.
func (s *stream) position(f *followed, epoch string, after uint64) string {
	var room [256]byte
	b := room[:0]
	if s.single {
		return string(appendPosition(b, epoch, after))
	}
	for _, g := range s.followed {
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = append(append(b, g.id...), ':')
		if g == f {
			b = appendPosition(b, epoch, after)
		} else {
			b = appendPosition(b, g.cursor.Epoch, g.cursor.After)
		}
	}
	return string(b)
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
	if err := s.rc.SetWriteDeadline(time.Now().Add(c.h.cfg.WriteTimeout)); errors.Is(err, http.ErrNotSupported) {
		c.h.warn()
	}
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
	}
	return err
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
