package websocket

import (
	"context"
	"math/rand/v2"
	"time"
)

// closeSpacing is how far apart connections are closed, so that their clients don't all come
// to the other servers at once.
const closeSpacing = 5 * time.Millisecond

// Shutdown refuses new connections, tells clients to move, and closes all connections with
// code 1012, one after the other over up to two thirds of the time that ctx leaves. It returns
// when nothing of them is left, or cuts what is when ctx ends, and returns its error. Requests
// are not affected: shut down the router first, so that clients see the ends of those that
// can still finish.
func (h *Handler) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.closing.Store(true)
	h.active.Add(1)
	h.mu.Unlock()
	h.leave()

	left := h.cfg.DrainTime
	if deadline, ok := ctx.Deadline(); ok {
		left = max(0, time.Until(deadline))
	}
	h.move(left)
	conns := h.connections(nil)
	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })
	spacing := min(closeSpacing, left*2/3/time.Duration(len(conns)+1))
	for _, c := range conns {
		c.close(closeRestart, "restart")
		if spacing > 0 && !h.pause(ctx, spacing) {
			break
		}
	}
	select {
	case <-h.idle:
		h.cancel()
		return nil
	case <-ctx.Done():
	}
	for _, c := range h.connections(nil) {
		c.link.sever()
	}
	h.cancel()
	select {
	case <-h.idle:
	case <-time.After(closeTimeout):
		h.log.Warn("shutdown: calls to the router have not returned")
	}
	return ctx.Err()
}

// pause waits for d and reports whether there is reason to go on.
func (h *Handler) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-h.idle:
	case <-ctx.Done():
	}
	return false
}
