// Package history has what was seen of each request, and the checks that it is what the
// guarantees of docs/guarantees.md allow: one check for each guarantee, a function of one
// request's history and of the faults that were caused meanwhile.
package history

import (
	"encoding/json"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// Request is all that was done to a request and seen of it.
type Request struct {
	ID     string
	Tenant string
	User   string
	Shared bool // another tenant has a request of that id, so the journal does not tell them apart

	Action  string
	Payload json.RawMessage
	Expect  Expect

	Submits []Submit
	Cancels []Cancel
	Views   []*View
	Probes  []Probe
	Runs    []Run     // of its handler, by the journal, as they started
	Audit   *Segment  // the whole log, read after the end on a connection that was left alone
	GaveUp  time.Time // when the end was not waited for any longer; zero if it came
}

// Expect is what the request's handler does when it is left alone.
type Expect struct {
	Result   string // JSON; "": any, or none
	Exact    bool   // Result byte for byte
	Attempt  bool   // the result is {"attempt":n} with the number of the last attempt
	Fails    string // code of the failure that the handler ends with
	Retries  bool   // the handler asks for a retry until its attempts are used up
	Outputs  int    // {"i":0}, {"i":1} …
	Progress float64
	Obeys    bool // the handler returns at once when its context ends
	Short    bool // it runs within the submit
}

// Outcome is what became of a call.
type Outcome string

// Outcomes of calls.
const (
	Acked   Outcome = "acknowledged" // or answered with the end of short work
	Refused Outcome = "refused"      // with Code
	Unknown Outcome = "unknown"      // no answer came
)

// Submit is one try to submit the request.
type Submit struct {
	From, To  time.Time
	Gateway   string
	Transport string
	Other     bool // with another payload
	Outcome   Outcome
	Code      string
	Epoch     string // "" where the answer does not say
	Duplicate bool
	End       *wire.Message // of short work
}

// Cancel is one try to cancel the request.
type Cancel struct {
	From, To  time.Time
	Gateway   string
	Transport string
	Outcome   Outcome
	Code      string // why it was refused
	Status    string // of the request, by the answer
}

// View is what one viewer saw, over all its connections.
type View struct {
	Viewer   string
	Segments []*Segment
}

// Segment is what a viewer saw on one connection.
type Segment struct {
	Gateway   string
	Transport string
	Cursor    wire.Cursor // from where it asked to be shown
	Submitted bool        // it began with a submit: event 1 is the acknowledgment
	From, To  time.Time
	Messages  []wire.Message
}

// Probe is a try to see or cancel the request as somebody else.
type Probe struct {
	From    time.Time
	As      string
	How     string
	Outcome Outcome
	Code    string
}

// Run is one call of the request's handler.
type Run struct {
	Attempt    int
	PID        int
	Start, End time.Time // End is zero when the handler never returned
}

// Fault is something that was done to a process on purpose.
type Fault struct {
	Kind     string // kill, stop, term, crash, quorum
	Process  string
	Role     string
	PID      int
	From, To time.Time // To: when the process was itself again; zero: not yet
}

// ofStore reports whether it was done to where logs and tickets are.
func (f *Fault) ofStore() bool { return f.Role == "nats" || f.Role == "aws" }

// Touches reports whether the fault, or what it leaves behind for a while, overlaps a time.
func (f *Fault) Touches(from, to time.Time, aftermath time.Duration) bool {
	return f.From.Before(to) && (f.To.IsZero() || f.To.Add(aftermath).After(from))
}

// Rules are the settings that the checks depend on.
type Rules struct {
	Attempts int
	Lease    time.Duration
	Grace    time.Duration // of a cancel
	Slack    time.Duration // for a machine that is busy with other things
	Notice   time.Duration // after which a process sees what another one has stored, where it looks for that now and then
	Stray    time.Duration // a ticket may wait longer for, when the queue gave it to a process that was just killed
	Durable  bool          // no event that was stored can be lost

	// VolatileProgress says that the newest progress is kept in the memory of the processes
	// themselves. With one of them it falls back to what the last event brought, until another
	// attempt starts.
	VolatileProgress bool
}

// Violation is a guarantee that did not hold.
type Violation struct {
	Guarantee string // G1 …
	What      string
}

// cancelAsked reports whether somebody tried to cancel.
func (r *Request) cancelAsked() bool { return len(r.Cancels) > 0 }

// log returns the events of the audit by seq - 1, nil when there is no whole log.
func (r *Request) log() []*wire.Message {
	if r.Audit == nil {
		return nil
	}
	var events []*wire.Message
	for i := range r.Audit.Messages {
		if m := &r.Audit.Messages[i]; m.IsEvent() {
			if m.Seq != uint64(len(events))+1 {
				return nil
			}
			events = append(events, m)
		}
	}
	return events
}

// end returns the request's end by the audit, or nil.
func (r *Request) end() *wire.Message {
	log := r.log()
	if n := len(log); n > 0 && log[n-1].IsEnd() {
		return log[n-1]
	}
	return nil
}

// segments calls do for all that was shown to anybody, the audit too.
func (r *Request) segments(do func(viewer string, s *Segment)) {
	for _, v := range r.Views {
		for _, s := range v.Segments {
			do(v.Viewer, s)
		}
	}
	if r.Audit != nil {
		do("audit", r.Audit)
	}
}
