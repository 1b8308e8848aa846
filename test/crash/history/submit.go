package history

import (
	"slices"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// oneRequestPerID checks G7: of all submits of an id one makes the request, those with the same
// body attach to it, and those with another conflict. No submit is refused in another way than
// that the service can't serve it now.
func oneRequestPerID(f *found, r *Request) {
	first, bodies := 0, map[bool]bool{}
	for _, s := range r.Submits {
		if s.Outcome != Acked {
			continue
		}
		bodies[s.Other] = true
		if !s.Duplicate {
			first++
		}
	}
	if first > 1 && !r.Expect.Short {
		f.that("%d submits were told that they made the request", first)
	}
	if len(bodies) > 1 {
		f.that("submits with different bodies were both acknowledged")
	}
	for i, s := range r.Submits {
		if s.Outcome != Refused || slices.Contains([]string{"SERVICE_UNAVAILABLE", "RATE_LIMITED"}, s.Code) {
			continue
		}
		if s.Code != "CONFLICT" {
			f.that("a submit was refused with %s", s.Code)
		} else if !slices.ContainsFunc(r.Submits, func(o Submit) bool { return o.Other != s.Other && o.From.Before(s.To) }) {
			f.that("submit %d got CONFLICT, and nobody submitted another body", i+1)
		}
	}
	if log := r.log(); len(log) == 1 && !r.Expect.Short && log[0].IsEnd() {
		f.that("the log of long work is one event: %s", log[0].Raw)
	}
}

// cancelWorks checks G8: an accepted cancel is in the log, or the request had ended; what was
// canceled ends as that, and in time. The handler's context ends within a second, which shows in
// the journal where the handler obeys it and nobody touched its worker or the store.
func cancelWorks(f *found, r *Request) {
	end := r.end()
	log := r.log()
	var canceling time.Time // when it was seen first
	asked := slices.ContainsFunc(log, func(m *wire.Message) bool { return m.Status == "canceling" })
	for _, c := range r.Cancels {
		switch {
		case c.Outcome == Refused && c.Code == "NOT_FOUND" && len(log) > 0 && r.ackedBefore(c.From):
			f.that("a cancel of an acknowledged request got NOT_FOUND by %s of %s", c.Transport, c.Gateway)
		case c.Outcome == Refused && c.Code != "SERVICE_UNAVAILABLE" && c.Code != "RATE_LIMITED" && c.Code != "NOT_FOUND":
			f.that("a cancel was refused with %s", c.Code)
		case c.Outcome != Acked || end == nil:
		case c.Status == "canceling" && !asked:
			f.that("a cancel was answered with canceling, and the log has no such event")
		case c.Status != "canceling" && c.Status != status(end):
			f.that("a cancel was answered with %s, and the request is %s", c.Status, status(end))
		}
		if c.Outcome == Acked && c.Status == "canceling" && (canceling.IsZero() || c.To.Before(canceling)) {
			canceling = c.To
		}
	}
	if end == nil {
		return
	}
	if asked && end.Code() != "CANCELED" {
		f.that("a cancel was recorded, and the request ended with %s", end.Raw)
	}
	if end.Code() == "CANCELED" && !r.cancelAsked() {
		f.that("the request was canceled, and nobody asked for that")
	}
	if canceling.IsZero() {
		return
	}
	for _, run := range r.Runs {
		if r.Expect.Obeys && run.Start.Before(canceling) {
			f.endsSoon(run, canceling)
		}
	}
	due := canceling.Add(f.rules.Grace + f.rules.Slack)
	if seen := r.endSeen(); seen.After(due) && f.calm(canceling.Add(-f.rules.Lease), due, f.rules.Slack) {
		f.that("a cancel was recorded at %v, and the end was seen at %v", canceling, seen)
	}
}

// endsSoon checks that a handler returned soon after a cancel was recorded.
func (f *found) endsSoon(run Run, canceling time.Time) {
	const aftermath = 2 * time.Second // of a fault: for connections to come back
	due := canceling.Add(time.Second + f.rules.Notice + f.rules.Slack)
	since := canceling.Add(-time.Second)
	if run.End.IsZero() {
		since = run.Start // its process may have been killed any time
	}
	if (run.End.IsZero() || run.End.After(due)) && f.undisturbed(run.PID, since, due, aftermath) {
		f.that("a cancel was recorded at %v, and the handler of attempt %d (process %d) went on until %v", canceling, run.Attempt, run.PID, run.End)
	}
}

// ackedBefore reports whether an acknowledgment was there at a time.
func (r *Request) ackedBefore(t time.Time) bool {
	return slices.ContainsFunc(r.Submits, func(s Submit) bool { return s.Outcome == Acked && s.To.Before(t) })
}

// endSeen returns when somebody saw the end first.
func (r *Request) endSeen() time.Time {
	var first time.Time
	r.segments(func(_ string, s *Segment) {
		for i := range s.Messages {
			if m := &s.Messages[i]; m.IsEnd() && (first.IsZero() || m.At.Before(first)) {
				first = m.At
			}
		}
	})
	return first
}

func status(end *wire.Message) string {
	switch {
	case end.Type != "error":
		return "completed"
	case end.Code() == "CANCELED":
		return "canceled"
	default:
		return "failed"
	}
}

// foreignersSeeNothing checks G14: who is not of the request's scope is told that there is no
// such request.
func foreignersSeeNothing(f *found, r *Request) {
	for _, p := range r.Probes {
		if p.Outcome == Acked || p.Outcome == Refused && p.Code != "NOT_FOUND" && p.Code != "SERVICE_UNAVAILABLE" && p.Code != "RATE_LIMITED" {
			f.that("%s tried to %s the request of %s:%s and was answered: %s %s", p.As, p.How, r.Tenant, r.User, p.Outcome, p.Code)
		}
	}
}
