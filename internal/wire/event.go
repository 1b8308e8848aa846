package wire

import "github.com/pay-theory/streamer/v2/progress"

// EncodeEvent returns the message that shows event e of the request with that id. It is made
// for [progress.Event.Encoded]. e.Data and e.Error.Details must be valid JSON; they need not
// be valid UTF-8.
func EncodeEvent(id string, e *progress.Event) []byte { return AppendEvent(nil, id, e) }

// AppendEvent appends what EncodeEvent returns to dst.
func AppendEvent(dst []byte, id string, e *progress.Event) []byte {
	m := Outbound{RequestID: id, Seq: e.Seq}
	// Enough for the longest numbers, so that nothing is allocated twice unless a text has escapes.
	size := 144 + len(id) + len(e.Data) + len(e.Reason)
	switch e.Kind {
	case progress.Output:
		m.Type = TypeOutput
		m.Attempt = e.Attempt
		m.Index = e.Index
		m.Data = e.Data
		size -= 40
	case progress.Completed:
		m.Success = e.Success
		if e.Short {
			m.Type = TypeResponse
			m.Data = e.Data
		} else {
			m.Type = TypeComplete
			m.Result = e.Data
			m.Timestamp = e.Time
		}
	case progress.Failed, progress.Canceled:
		m.Type = TypeError
		m.Error = e.Error
	default:
		m.Type = TypeStatus
		m.Status = e.Kind.Status()
		m.Reason = e.Reason
		switch e.Kind {
		case progress.Started:
			m.Attempt = e.Attempt
			m.OutputsFrom = e.Index
		case progress.Retrying:
			m.Attempt = e.Attempt
			m.RetryAfterMS = milliseconds(e.Delay)
			m.Error = e.Error
		}
	}
	if m.Error != nil {
		size += 80 + len(m.Error.Code) + len(m.Error.Message) + len(m.Error.Details)
	}
	if dst == nil {
		dst = make([]byte, 0, size)
	}
	return m.Append(dst)
}

// EncodeProgress returns the message that shows progress p of the request with that id. It is
// made for [progress.Progress.Encoded]. p.Metadata must be nil or valid JSON.
func EncodeProgress(id string, p *progress.Progress) []byte {
	m := Outbound{
		Type:       TypeProgress,
		RequestID:  id,
		Attempt:    p.Attempt,
		Percentage: p.Percentage,
		Message:    p.Message,
		Metadata:   p.Metadata,
		Timestamp:  p.Time,
	}
	return m.Append(make([]byte, 0, 160+len(id)+len(p.Message)+len(p.Metadata)))
}
