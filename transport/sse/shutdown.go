package sse

import (
	"context"
	"time"
)

const (
	closeSpacing = 5 * time.Millisecond // between the ends of streams, on average
	cutTimeout   = time.Second          // for calls to return whose connection was cut
)

// Shutdown refuses new calls and ends all streams, at random times over up to two thirds of the
// time that ctx leaves; their clients resume at another server. It returns when nothing is
// left, or cuts what is when ctx ends, and returns its error. Requests are not affected: shut
// down the router first, so that clients see the ends of those that can still finish.
func (h *Handler) Shutdown(ctx context.Context) error {
	left := h.cfg.DrainTime
	if deadline, ok := ctx.Deadline(); ok {
		left = max(0, time.Until(deadline))
	}
	h.mu.Lock()
	if !h.closing {
		h.closing = true
		h.spread = min(left*2/3, closeSpacing*time.Duration(len(h.streams)))
		close(h.closed)
		for s := range h.streams {
			s.ring(bellClosing)
		}
		if h.active == 0 {
			close(h.idle)
		}
	}
	h.mu.Unlock()
	select {
	case <-h.idle:
		return nil
	case <-ctx.Done():
	}
	h.cut()
	select {
	case <-h.idle:
	case <-time.After(cutTimeout):
		h.log.Warn("shutdown: calls have not returned")
	}
	return ctx.Err()
}

// cut ends the writes that are under way.
func (h *Handler) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.streams {
		s.cut.Store(true)
		_ = s.rc.SetWriteDeadline(time.Now())
	}
}

// register counts a stream. It returns false when the handler is closing.
func (h *Handler) register(s *stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	h.streams[s] = struct{}{}
	return true
}

func (h *Handler) unregister(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}
