package client

import (
	"encoding/json"
	"time"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

// Kinds of an Event beside those of package progress. They are no entries of the log and have
// no Seq.
const (
	// Progressed shows the newest progress. Progress is merged: an iterator that is slower
	// gets the newest only.
	Progressed progress.Kind = "progress"

	// Gap says that events are missing, or that the log is another than before; see Event.Gap.
	Gap progress.Kind = "gap"
)

// Event is what an iteration over a request yields: an event of its log, progress, or a gap.
// Kinds that this version does not know may come, and are to be ignored.
type Event struct {
	Kind  progress.Kind
	Epoch string // tells logs under the same id apart
	Seq   uint64 // 1, 2, 3 … within the log

	Attempt int       // Started, Output, Retrying, Progressed, Gap
	Time    time.Time // where the server says it

	Index int             // Output: its number within the request
	Data  json.RawMessage // Output and Completed, as the handler's value is encoded

	// OutputsFrom is the number that the next output gets after Started. The handler makes
	// outputs from there on anew: those with this or a higher Index are void.
	OutputsFrom int

	Success  bool            // Completed: what the handler's result says
	Reason   string          // Retrying: error, lost or shutdown. Canceling: the client's
	Delay    time.Duration   // Retrying: until the next attempt
	Error    *streamer.Error // Failed, Canceled, Retrying
	Progress *Progress       // Progressed
	Gap      *GapInfo        // Gap
}

// Progress is the newest state of an attempt.
type Progress struct {
	Attempt    int             // from 1
	Percentage float64         // 0–100, never falling within an attempt
	Message    string          //
	Metadata   json.RawMessage // a JSON object, or nil
	Time       time.Time       // of the report
}

// GapInfo tells what a Gap is about. The next event is number Oldest of the log.
type GapInfo struct {
	Reason string // expired: older events are gone. recreated: another log. ahead: the log is shorter than it was
	After  uint64 // seq of the last event before the gap
	Oldest uint64 // seq of the first event after it
}

// event returns what a numbered message says.
func event(epoch string, m *wire.Outbound) *Event {
	e := &Event{
		Epoch:       epoch,
		Seq:         m.Seq,
		Attempt:     m.Attempt,
		Time:        m.Timestamp,
		Index:       m.Index,
		OutputsFrom: m.OutputsFrom,
		Reason:      m.Reason,
		Delay:       time.Duration(m.RetryAfterMS) * time.Millisecond,
		Error:       publicError(m.Error),
	}
	switch m.Type {
	case wire.TypeOutput:
		e.Kind = progress.Output
		e.Data = m.Data
	case wire.TypeResponse:
		e.Kind = progress.Completed
		e.Data = m.Data
		e.Success = m.Success
	case wire.TypeComplete:
		e.Kind = progress.Completed
		e.Data = m.Result
		e.Success = m.Success
	case wire.TypeError:
		e.Kind = progress.Failed
		if e.Error == nil {
			e.Error = streamer.NewError(streamer.ErrCodeInternalError, "the server did not say why the request failed")
		}
		if e.Error.Code == streamer.ErrCodeCanceled {
			e.Kind = progress.Canceled
		}
	case wire.TypeStatus:
		e.Kind = statusKind(m.Status)
	default:
		e.Kind = progress.Kind(m.Type)
	}
	return e
}

// statusKind is the reverse of progress.Kind.Status, for events that are sent as a status.
func statusKind(status string) progress.Kind {
	switch status {
	case progress.Accepted.Status():
		return progress.Accepted
	case progress.Started.Status():
		return progress.Started
	default:
		return progress.Kind(status)
	}
}

// endStatus reports whether a request with this status has ended.
func endStatus(status string) bool { return progress.Kind(status).Ends() }

func publicError(f *progress.Failure) *streamer.Error {
	if f == nil {
		return nil
	}
	e := streamer.NewError(f.Code, f.Message)
	e.RetryAfter = f.RetryAfter
	if len(f.Details) > 0 {
		// Details are for people and for programs that know them: what is no object is left out.
		_ = json.Unmarshal(f.Details, &e.Details)
	}
	return e
}

// size is what an event counts for in buffers, in bytes.
func (e *Event) size() int { return 256 + len(e.Data) }

// result returns what an end means to those who wait for it.
func (e *Event) result(id string) (*streamer.Result, error) {
	if e.Error != nil {
		return nil, e.Error
	}
	r := &streamer.Result{RequestID: id, Success: e.Success}
	if e.Data != nil {
		r.Data = e.Data
	}
	return r, nil
}
