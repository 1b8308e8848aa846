package history

import (
	"strings"

	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// ends checks G1: what was acknowledged reaches an end.
func ends(f *found, r *Request) {
	acked := false
	for _, s := range r.Submits {
		acked = acked || s.Outcome == Acked
	}
	switch {
	case !acked:
	case !r.GaveUp.IsZero():
		f.that("the request was acknowledged, and has not ended by %v", r.GaveUp)
	case r.end() == nil:
		f.that("the request was acknowledged, and its log has no end")
	}
}

// oneEnd checks G2: there is one end, the last event, and all see the same.
func oneEnd(f *found, r *Request) {
	var end *wire.Message
	var seen string
	r.segments(func(viewer string, s *Segment) {
		over := uint64(0)
		for i := range s.Messages {
			m := &s.Messages[i]
			if m.IsEvent() && over > 0 {
				f.that("%s saw event %d after the end, event %d: %s", viewer, m.Seq, over, m.Raw)
			}
			if !m.IsEnd() {
				continue
			}
			over = m.Seq
			if end == nil {
				end, seen = m, viewer
			} else if end.Raw != m.Raw {
				f.that("%s saw the end %s, and %s saw the end %s", seen, end.Raw, viewer, m.Raw)
			}
		}
	})
	for _, s := range r.Submits {
		if s.End != nil && end != nil && (s.End.Seq != end.Seq || s.End.Type != end.Type || string(s.End.Data) != string(end.Data) || s.End.Code() != end.Code()) {
			f.that("a submit was answered with the end %s, and %s saw the end %s", s.End.Raw, seen, end.Raw)
		}
	}
}

// noGaps checks G3: on each connection the events after the cursor come in steps of one, or a
// gap says that they can't, which nothing that was done here makes true where logs are durable.
func noGaps(f *found, r *Request) {
	r.segments(func(viewer string, s *Segment) {
		at, open := s.Cursor.After, false
		for i := range s.Messages {
			m := &s.Messages[i]
			switch {
			case m.Type == "attached" || m.Type == "acknowledgment":
				open = true
				if s.Submitted {
					at = 1
				} else if m.After != s.Cursor.After {
					f.that("%s asked for events after %d and was attached after %d", viewer, s.Cursor.After, m.After)
				}
			case m.Type == "gap":
				open = true
				at = max(m.Oldest, 1) - 1
				if f.rules.Durable {
					f.that("%s got a gap though nothing was lost: %s", viewer, m.Raw)
				}
			case m.Type == "error" && m.Seq == 0:
				if m.Code() != "SERVICE_UNAVAILABLE" && m.Code() != "RATE_LIMITED" {
					f.that("%s asked for the request after it was acknowledged, and got %s by %s of %s", viewer, m.Code(), s.Transport, s.Gateway)
				}
			case m.Type == "response" || m.Type == "error" && m.Seq == 1:
				at = m.Seq
			case m.IsEvent():
				if !open {
					f.that("%s saw event %d before it was attached", viewer, m.Seq)
				}
				if m.Seq != at+1 {
					f.that("%s was at event %d and saw event %d next, by %s of %s", viewer, at, m.Seq, s.Transport, s.Gateway)
				}
				at = m.Seq
			}
		}
	})
}

// sameNumbersSameEvents checks G4: an epoch and a number stand for one event, whoever asks and
// whenever, and there is one epoch where logs are durable.
func sameNumbersSameEvents(f *found, r *Request) {
	type number struct {
		epoch string
		seq   uint64
	}
	type sight struct{ raw, viewer string }
	seen := map[number]sight{}
	epochs := map[string]string{}
	r.segments(func(viewer string, s *Segment) {
		epoch := s.Cursor.Epoch
		for i := range s.Messages {
			m := &s.Messages[i]
			if m.Epoch != "" {
				epoch = m.Epoch
				epochs[epoch] = viewer
			}
			if !m.IsEvent() || m.Seq == 1 || epoch == "" {
				continue
			}
			n := number{epoch, m.Seq}
			if before, ok := seen[n]; !ok {
				seen[n] = sight{m.Raw, viewer}
			} else if before.raw != m.Raw {
				f.that("event %d is %s to %s, and %s to %s", m.Seq, before.raw, before.viewer, m.Raw, viewer)
			}
		}
	})
	for _, s := range r.Submits {
		if s.Epoch != "" {
			epochs[s.Epoch] = "a submitter"
		}
	}
	if len(epochs) > 1 && f.rules.Durable {
		var list []string
		for epoch, viewer := range epochs {
			list = append(list, epoch+" to "+viewer)
		}
		f.that("the log has several epochs though nothing was lost: %s", strings.Join(list, ", "))
	}
}
