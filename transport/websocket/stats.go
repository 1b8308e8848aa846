package websocket

import "sync/atomic"

// Stats are counts since the handler was made, and gauges of now. They are for metrics: each
// is exact, but they are not read in one instant.
type Stats struct {
	Connections     int // open
	Unauthenticated int // of these, whose client is not known yet
	Attached        int // requests that connections follow

	Accepted uint64 // connections that were upgraded
	Refused  uint64 // requests to connect that were not
	Received uint64 // messages of clients
	Invalid  uint64 // of these, answered with VALIDATION_ERROR as they were malformed
	Limited  uint64 // of these, answered with RATE_LIMITED
	Sent     uint64 // messages to clients
	Frames   uint64 // that they were sent in
	Bytes    uint64 // of these messages
	Gaps     uint64 // attachments whose cursor could not be honoured
	TimedOut uint64 // connections closed as their client was silent or did not read
}

type counters struct {
	attached                           atomic.Int64
	accepted, refused                  atomic.Uint64
	received, invalid, limited         atomic.Uint64
	sent, frames, bytes, gaps, timeout atomic.Uint64
}

// Stats returns the handler's counts.
func (h *Handler) Stats() Stats {
	s := &h.stats
	st := Stats{
		Attached: int(s.attached.Load()),
		Accepted: s.accepted.Load(), Refused: s.refused.Load(),
		Received: s.received.Load(), Invalid: s.invalid.Load(), Limited: s.limited.Load(),
		Sent: s.sent.Load(), Frames: s.frames.Load(), Bytes: s.bytes.Load(),
		Gaps: s.gaps.Load(), TimedOut: s.timeout.Load(),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st.Connections, st.Unauthenticated = len(h.conns), h.door.Strangers()
	return st
}
