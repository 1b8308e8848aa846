package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// maxDataDepth is how deep what handlers return may be nested: as encoding/json allows, and
// the message around it.
const maxDataDepth = 10_001

// Outbound is a message from server to client. Which fields it has depends on Type.
type Outbound struct {
	Type      string
	RequestID string
	Ref       string // of the message that this is the direct reply to

	Epoch   string // acknowledgment, attached, gap
	Seq     uint64 // events; 0: none
	Action  string // attached
	Status  string // acknowledgment, attached, status, gap: see progress.Kind.Status
	Attempt int    // 0: before the first

	Message   string // acknowledgment, progress
	Duplicate bool   // acknowledgment
	Timestamp time.Time

	Success bool            // response, complete
	Data    json.RawMessage // response, output
	Result  json.RawMessage // complete

	OutputsFrom  int    // status running: index of the next output, given from attempt 2 on
	Index        int    // output
	RetryAfterMS int64  // status retrying
	Reason       string // status retrying and canceling, gap, goaway
	Error        *progress.Failure

	Percentage float64         // progress: 0–100
	Metadata   json.RawMessage // progress: an object, or nil

	Oldest uint64 // attached, gap
	Last   uint64 // attached, gap
	After  uint64 // attached, gap

	V              int // welcome, as all to Caps
	Session        string
	PingIntervalMS int64
	PongTimeoutMS  int64
	AuthExpiresAt  time.Time // zero: never
	RetentionMS    int64
	Limits         Limits
	Caps           []string

	ExpiresAt     time.Time // authenticated; zero: never
	ExpiresInMS   int64     // auth_expiring
	ReconnectInMS int64     // goaway
	DeadlineMS    int64     // goaway
}

// Limits are what a connection may use.
type Limits struct {
	MaxMessageBytes int
	MaxInflight     int
	MaxAttached     int
}

// Append appends the message, as a server sends it, to dst.
func (m *Outbound) Append(dst []byte) []byte {
	dst = appendQuoted(append(dst, `{"type":`...), m.Type)
	dst = appendStringOpt(dst, "request_id", m.RequestID)
	switch m.Type {
	case TypeWelcome:
		dst = m.appendWelcome(dst)
	case TypeAcknowledgment:
		dst = appendString(dst, "epoch", m.Epoch)
		dst = appendUint(dst, "seq", m.Seq)
		dst = appendString(dst, "status", m.Status)
		dst = appendString(dst, "message", m.Message)
		dst = appendBool(dst, "duplicate", m.Duplicate)
		dst = appendTimeOpt(dst, "timestamp", m.Timestamp)
	case TypeResponse:
		dst = appendUint(dst, "seq", m.Seq)
		dst = appendBool(dst, "success", m.Success)
		dst = appendRawOpt(dst, "data", m.Data)
	case TypeAttached:
		dst = appendString(dst, "epoch", m.Epoch)
		dst = appendString(dst, "action", m.Action)
		dst = appendString(dst, "status", m.Status)
		dst = appendInt(dst, "attempt", m.Attempt)
		dst = appendUint(dst, "oldest", m.Oldest)
		dst = appendUint(dst, "last", m.Last)
		dst = appendUint(dst, "after", m.After)
	case TypeStatus:
		dst = m.appendStatus(dst)
	case TypeProgress:
		dst = appendInt(dst, "attempt", m.Attempt)
		dst = appendPercentage(dst, m.Percentage)
		dst = appendString(dst, "message", m.Message)
		dst = appendRawOpt(dst, "metadata", m.Metadata)
		dst = appendTimeOpt(dst, "timestamp", m.Timestamp)
	case TypeOutput:
		dst = appendUint(dst, "seq", m.Seq)
		dst = appendInt(dst, "attempt", m.Attempt)
		dst = appendInt(dst, "index", m.Index)
		dst = appendRawOpt(dst, "data", m.Data)
	case TypeComplete:
		dst = appendUint(dst, "seq", m.Seq)
		dst = appendBool(dst, "success", m.Success)
		dst = appendRawOpt(dst, "result", m.Result)
		dst = appendTimeOpt(dst, "timestamp", m.Timestamp)
	case TypeError:
		if m.Seq > 0 {
			dst = appendUint(dst, "seq", m.Seq)
		}
		dst = appendFailureOpt(dst, m.Error)
	case TypeGap:
		dst = appendString(dst, "epoch", m.Epoch)
		dst = appendUint(dst, "after", m.After)
		dst = appendUint(dst, "oldest", m.Oldest)
		dst = appendUint(dst, "last", m.Last)
		dst = appendString(dst, "reason", m.Reason)
		dst = appendString(dst, "status", m.Status)
		dst = appendInt(dst, "attempt", m.Attempt)
	case TypeAuthenticated:
		dst = appendTimeOpt(dst, "expires_at", m.ExpiresAt)
	case TypeAuthExpiring:
		dst = appendInt(dst, "expires_in_ms", m.ExpiresInMS)
	case TypeGoaway:
		dst = appendString(dst, "reason", m.Reason)
		dst = appendInt(dst, "reconnect_in_ms", m.ReconnectInMS)
		dst = appendInt(dst, "deadline_ms", m.DeadlineMS)
	}
	return append(appendStringOpt(dst, "ref", m.Ref), '}')
}

// AppendRef appends message, an encoded one that many share, with the ref of the client's
// message that it answers.
func AppendRef(dst, message []byte, ref string) []byte {
	dst = append(dst, message[:len(message)-1]...)
	return append(appendStringOpt(dst, "ref", ref), '}')
}

func (m *Outbound) appendWelcome(dst []byte) []byte {
	dst = appendInt(dst, "v", m.V)
	dst = appendString(dst, "session", m.Session)
	dst = appendInt(dst, "ping_interval_ms", m.PingIntervalMS)
	dst = appendInt(dst, "pong_timeout_ms", m.PongTimeoutMS)
	dst = appendTimeOpt(dst, "auth_expires_at", m.AuthExpiresAt)
	dst = appendInt(dst, "retention_ms", m.RetentionMS)
	dst = append(appendName(dst, "limits"), `{"max_message_bytes":`...)
	dst = strconv.AppendInt(dst, int64(m.Limits.MaxMessageBytes), 10)
	dst = appendInt(dst, "max_inflight", m.Limits.MaxInflight)
	dst = append(appendInt(dst, "max_attached", m.Limits.MaxAttached), '}')
	return appendStrings(dst, "caps", m.Caps)
}

func (m *Outbound) appendStatus(dst []byte) []byte {
	dst = appendUint(dst, "seq", m.Seq)
	dst = appendString(dst, "status", m.Status)
	dst = appendIntOpt(dst, "attempt", m.Attempt)
	if m.Status == progress.Started.Status() && m.Attempt > 1 {
		dst = appendInt(dst, "outputs_from", m.OutputsFrom)
	}
	dst = appendStringOpt(dst, "reason", m.Reason)
	if m.Status == progress.Retrying.Status() {
		dst = appendInt(dst, "retry_after_ms", m.RetryAfterMS)
	}
	return appendFailureOpt(dst, m.Error)
}

func appendFailureOpt(dst []byte, f *progress.Failure) []byte {
	if f == nil {
		return dst
	}
	return appendFailure(dst, "error", f)
}

func appendPercentage(dst []byte, p float64) []byte {
	if !(p > 0) { // NaN too, which JSON can't say
		p = 0
	}
	return strconv.AppendFloat(appendName(dst, "percentage"), min(p, 100), 'g', -1, 64)
}

// DecodeOutbound reads a server's message. Unknown fields are ignored, and all fields of an
// unknown type apart from RequestID and Ref. The error says what is no JSON in valid UTF-8, or
// which known field has the wrong shape. The message shares no memory with data.
func DecodeOutbound(data []byte) (*Outbound, error) {
	s := scanner{data: data, limit: maxDataDepth, loose: true}
	m := new(Outbound)
	if s.peek() == '{' {
		s.outbound(m)
	} else if s.skip(); s.err == nil {
		s.wrong = "a message must be a JSON object"
	}
	s.end()
	switch {
	case s.err != nil:
		return nil, fmt.Errorf("wire: %w", s.err)
	case m.Type == "" && s.wrong == "":
		return nil, errors.New(`wire: "type" is missing`)
	case s.wrong != "" && knownOutbound(m.Type):
		return nil, errors.New("wire: " + s.wrong)
	}
	return m, nil
}

// knownOutbound: what has no type at all counts as known, since its faults are ours to tell.
func knownOutbound(t string) bool {
	switch t {
	case "", TypeWelcome, TypeAcknowledgment, TypeResponse, TypeAttached, TypeStatus, TypeProgress, TypeOutput, TypeComplete,
		TypeError, TypeGap, TypeAuthenticated, TypeAuthExpiring, TypeGoaway, TypePing, TypePong:
		return true
	}
	return false
}

func (s *scanner) outbound(m *Outbound) {
	for s.open(); s.more('}'); {
		switch string(s.name()) {
		case "type":
			m.Type = s.text("type", 0)
		case "request_id":
			m.RequestID = s.text("request_id", 0)
		case "ref":
			m.Ref = s.text("ref", 0)
		case "epoch":
			m.Epoch = s.text("epoch", 0)
		case "seq":
			m.Seq = s.uint("seq", maxSeq)
		case "action":
			m.Action = s.text("action", 0)
		case "status":
			m.Status = s.text("status", 0)
		case "attempt":
			m.Attempt = s.int("attempt")
		case "message":
			m.Message = s.text("message", 0)
		case "duplicate":
			m.Duplicate = s.bool("duplicate")
		case "timestamp":
			m.Timestamp = s.time("timestamp")
		case "success":
			m.Success = s.bool("success")
		case "data":
			m.Data = s.raw()
		case "result":
			m.Result = s.raw()
		case "outputs_from":
			m.OutputsFrom = s.int("outputs_from")
		case "index":
			m.Index = s.int("index")
		case "retry_after_ms":
			m.RetryAfterMS = s.ms("retry_after_ms")
		case "reason":
			m.Reason = s.text("reason", 0)
		case "error":
			m.Error = s.failure()
		case "percentage":
			m.Percentage = s.float("percentage")
		case "metadata":
			m.Metadata = s.optional()
		case "oldest":
			m.Oldest = s.uint("oldest", maxSeq)
		case "last":
			m.Last = s.uint("last", maxSeq)
		case "after":
			m.After = s.uint("after", maxSeq)
		case "v":
			m.V = s.int("v")
		case "session":
			m.Session = s.text("session", 0)
		case "ping_interval_ms":
			m.PingIntervalMS = s.ms("ping_interval_ms")
		case "pong_timeout_ms":
			m.PongTimeoutMS = s.ms("pong_timeout_ms")
		case "auth_expires_at":
			m.AuthExpiresAt = s.time("auth_expires_at")
		case "retention_ms":
			m.RetentionMS = s.ms("retention_ms")
		case "limits":
			m.Limits = s.limits()
		case "caps":
			m.Caps = s.texts("caps", math.MaxInt, 0)
		case "expires_at":
			m.ExpiresAt = s.time("expires_at")
		case "expires_in_ms":
			m.ExpiresInMS = s.ms("expires_in_ms")
		case "reconnect_in_ms":
			m.ReconnectInMS = s.ms("reconnect_in_ms")
		case "deadline_ms":
			m.DeadlineMS = s.ms("deadline_ms")
		default:
			s.skip()
		}
	}
}

func (s *scanner) failure() *progress.Failure {
	if !s.begins("error", '{', "an object") {
		return nil
	}
	f := new(progress.Failure)
	for s.more('}') {
		switch string(s.name()) {
		case "code":
			f.Code = s.text("code", 0)
		case "message":
			f.Message = s.text("message", 0)
		case "details":
			f.Details = s.optional()
		case "retry_after_ms":
			f.RetryAfter = time.Duration(s.ms("retry_after_ms")) * time.Millisecond
		default:
			s.skip()
		}
	}
	return f
}

func (s *scanner) limits() Limits {
	var l Limits
	if !s.begins("limits", '{', "an object") {
		return l
	}
	for s.more('}') {
		switch string(s.name()) {
		case "max_message_bytes":
			l.MaxMessageBytes = s.int("max_message_bytes")
		case "max_inflight":
			l.MaxInflight = s.int("max_inflight")
		case "max_attached":
			l.MaxAttached = s.int("max_attached")
		default:
			s.skip()
		}
	}
	return l
}
