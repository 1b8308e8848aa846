package sse

// Stats are counts since the handler was made, and gauges of now. They are for metrics: each
// is exact, but they are not read in one instant.
type Stats struct {
	Streams  int // open
	Attached int // requests that streams follow
	Active   int // calls that are being answered, streams too

	Accepted uint64 // calls that were let in
	Refused  uint64 // calls that were not: unauthenticated, forbidden, too many
	Invalid  uint64 // calls that made no sense
	Limited  uint64 // calls over the rate
	Sent     uint64 // messages in streams
	Bytes    uint64 // of these streams
	Gaps     uint64 // cursors that could not be honoured
	TimedOut uint64 // streams cut as their client did not read
}

// Stats returns the handler's counts.
func (h *Handler) Stats() Stats {
	s := &h.stats
	st := Stats{
		Attached: int(s.attached.Load()), Accepted: s.calls.Load(), Refused: s.refused.Load(), Invalid: s.invalid.Load(),
		Limited: s.limited.Load(), Sent: s.sent.Load(), Bytes: s.bytes.Load(), Gaps: s.gaps.Load(), TimedOut: s.timeout.Load(),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st.Streams, st.Active = len(h.streams), h.active
	return st
}
