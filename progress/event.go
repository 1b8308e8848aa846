package progress

import (
	"encoding/json"
	"time"
)

// Kind tells what an event says.
type Kind string

// The kinds of events. Every log starts with Accepted (or, for short work, with its end),
// and has at most one end, which is its last event.
const (
	Accepted  Kind = "accepted"  // the request is stored and will be worked on
	Started   Kind = "started"   // an attempt began
	Output    Kind = "output"    // one partial output of the attempt
	Retrying  Kind = "retrying"  // the attempt is over, another will follow
	Canceling Kind = "canceling" // a client asked to cancel the running attempt
	Completed Kind = "completed" // end: the handler's result
	Failed    Kind = "failed"    // end: an error
	Canceled  Kind = "canceled"  // end: canceled by a client
)

// Ends reports whether an event of this kind is a request's end.
func (k Kind) Ends() bool { return k == Completed || k == Failed || k == Canceled }

// Status returns the status that a request has after an event of this kind, in the words
// of the wire protocol: queued, running, retrying, canceling, completed, failed, canceled.
func (k Kind) Status() string {
	switch k {
	case Accepted:
		return "queued"
	case Started, Output:
		return "running"
	default:
		return string(k)
	}
}

// Event is a numbered, lossless entry of a request's log. An Event is immutable once it was
// handed to a Log, and shared by all who read it.
type Event struct {
	Seq     uint64    `json:"seq"` // 1, 2, 3 … within the log
	Kind    Kind      `json:"kind"`
	Record  string    `json:"record,omitempty"` // ID of the record it was appended with
	Attempt int       `json:"attempt,omitempty"`
	Time    time.Time `json:"time"`

	Request *Request        `json:"request,omitempty"` // Accepted; and the end of short work
	Index   int             `json:"index,omitempty"`   // Output: its number within the request. Started: the number its next output gets
	Data    json.RawMessage `json:"data,omitempty"`    // Output, Completed
	Success bool            `json:"success,omitempty"` // Completed: what the handler's result said
	Short   bool            `json:"short,omitempty"`   // an end that was reached without queueing
	Error   *Failure        `json:"error,omitempty"`   // Failed, Canceled, Retrying
	Reason  string          `json:"reason,omitempty"`  // Canceling: the client's. Retrying: error, lost or shutdown
	Delay   time.Duration   `json:"delay,omitempty"`   // Retrying: until the next attempt

	encoded cache
}

// Encoded returns encode(id, e), computed once: all viewers in a process share the bytes,
// which nobody may change. Every caller must pass the same function.
func (e *Event) Encoded(id string, encode func(id string, e *Event) []byte) []byte {
	if b := e.encoded.load(); b != nil {
		return b
	}
	return e.encoded.store(encode(id, e))
}

// Request is what a log keeps of the request that it belongs to.
type Request struct {
	Action   string            `json:"action"`
	Payload  json.RawMessage   `json:"payload,omitempty"` // as it was sent, byte for byte
	Metadata map[string]string `json:"metadata,omitempty"`
	Timeout  time.Duration     `json:"timeout,omitempty"` // of an attempt, as the client asked; 0: the action's
}

// Failure is the public part of an error: all of it may be shown to the client.
type Failure struct {
	Code       string          `json:"code"`
	Message    string          `json:"message"`
	Details    json.RawMessage `json:"details,omitempty"` // a JSON object, or nil
	RetryAfter time.Duration   `json:"retry_after,omitempty"`
}

// State says where a request stands after a record. The core computes it with Apply; a Log
// stores it with each record and returns it as it is.
type State struct {
	Epoch   string    `json:"epoch"` // tells this log from another that had the same key
	Action  string    `json:"action"`
	Digest  string    `json:"digest"`          // of action and payload: tells a repeated submit from a conflicting one
	Group   string    `json:"group,omitempty"` // whom the request counts for where work is shared fairly
	Created time.Time `json:"created"`

	Last    uint64 `json:"last"`              // seq of the newest event
	Record  string `json:"record"`            // ID of the newest record
	Phase   Kind   `json:"phase"`             // kind of the newest event that is not an Output
	Attempt int    `json:"attempt,omitempty"` // number of the newest attempt, 0 before the first
	Used    int    `json:"used,omitempty"`    // attempts that count against the limit
	Nonce   string `json:"nonce,omitempty"`   // of the ticket that the newest attempt was started for

	Started time.Time `json:"started,omitzero"` // when the newest attempt started

	Outputs int `json:"outputs,omitempty"` // number the next output gets

	Reason string   `json:"reason,omitempty"` // of the newest Canceling
	Error  *Failure `json:"error,omitempty"`  // of the newest Retrying that had one

	Delay time.Duration `json:"delay,omitempty"` // of the newest Retrying

	Resume     int             `json:"resume,omitempty"`     // Outputs as of the last checkpoint
	Checkpoint json.RawMessage `json:"checkpoint,omitempty"` // the handler's, from this or an earlier attempt
}

// Ended reports whether the request has reached its end.
func (s *State) Ended() bool { return s.Phase.Ends() }

// Apply returns the state after e, which must be the next event: e.Seq == s.Last+1.
func (s State) Apply(e *Event) State {
	s.Last = e.Seq
	s.Record = e.Record
	if e.Kind == Output {
		s.Outputs = e.Index + 1
		return s
	}
	s.Phase = e.Kind
	switch e.Kind {
	case Started:
		s.Attempt = e.Attempt
		s.Started = e.Time
		s.Used++
		s.Outputs = e.Index
	case Retrying:
		if e.Reason == ReasonShutdown {
			s.Used--
		}
		if e.Error != nil {
			s.Error = e.Error
		}
		s.Delay = e.Delay
	case Canceling:
		s.Reason = e.Reason
	}
	return s
}

// Reasons of a Retrying event.
const (
	ReasonError    = "error"    // the handler's error asked for a retry
	ReasonLost     = "lost"     // the worker was lost
	ReasonShutdown = "shutdown" // the worker shut down; the attempt does not count
)
