package streamer

import (
	"encoding/json"
	"errors"
	"maps"
	"time"
)

// Codes of errors that the library makes. Handlers may use them, and codes of their own:
// [A-Z][A-Z0-9_]{0,63}.
const (
	ErrCodeValidation         = "VALIDATION_ERROR"    // malformed, or refused by the handler's Validate
	ErrCodeInvalidAction      = "INVALID_ACTION"      // no handler of that name
	ErrCodeNotFound           = "NOT_FOUND"           // no such request for this identity: unknown, foreign or expired
	ErrCodeUnauthorized       = "UNAUTHORIZED"        // no valid identity
	ErrCodeForbidden          = "FORBIDDEN"           // this identity may not
	ErrCodeConflict           = "CONFLICT"            // the id was used before with another action or payload
	ErrCodePayloadTooLarge    = "PAYLOAD_TOO_LARGE"   // a payload, output or result over its limit
	ErrCodeRateLimited        = "RATE_LIMITED"        // too much at once; see RetryAfter
	ErrCodeServiceUnavailable = "SERVICE_UNAVAILABLE" // draining, store down or full; see RetryAfter
	ErrCodeTimeout            = "TIMEOUT"             // the action's time limit
	ErrCodeCanceled           = "CANCELED"            // canceled by a client
	ErrCodeProcessingFailed   = "PROCESSING_FAILED"   // attempts used up; details: attempts, last_error
	ErrCodeInternalError      = "INTERNAL_ERROR"      // a bug in a handler or here; details: error_id, which the log has

	// Codes of the older system, kept so that code which names them compiles. They are never sent.
	ErrCodeDuplicateRequest = ErrCodeConflict           // DUPLICATE_REQUEST
	ErrCodeStorageError     = ErrCodeServiceUnavailable // STORAGE_ERROR
	ErrCodeConnectionClosed = ErrCodeServiceUnavailable // CONNECTION_CLOSED
	ErrCodeInvalidMessage   = ErrCodeValidation         // INVALID_MESSAGE
	ErrCodeProtocolError    = ErrCodeValidation         // PROTOCOL_ERROR
)

// Error is an error that clients may see: all its exported fields cross the wire. Handlers
// return it to say what went wrong; any other error reaches clients as INTERNAL_ERROR with a
// generic text. Client calls return it too: use errors.As.
type Error struct {
	Code    string
	Message string
	Details map[string]any

	// RetryAfter is how long to wait before trying again. 0: not said.
	RetryAfter time.Duration

	retry bool
}

// NewError returns an error with a code and a text for the client.
func NewError(code, message string) *Error {
	return &Error{Code: code, Message: message}
}

// WithRetry returns a copy that asks for another attempt after d; with d 0 the action's
// backoff decides. When no attempt is left the error ends the request, and the client sees d
// as a hint for when to try again.
func (e *Error) WithRetry(d time.Duration) *Error {
	c := *e
	c.RetryAfter = max(d, 0)
	c.retry = true
	return &c
}

// WithDetail returns a copy with one more detail. value must be encodable as JSON.
func (e *Error) WithDetail(key string, value any) *Error {
	c := *e
	c.Details = maps.Clone(e.Details)
	if c.Details == nil {
		c.Details = make(map[string]any, 1)
	}
	c.Details[key] = value
	return &c
}

// Error returns "CODE: message".
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Why an attempt's context ended: context.Cause of a handler's context is one of these.
var (
	ErrCanceled  = errors.New("request canceled by a client")
	ErrLeaseLost = errors.New("attempt superseded: the lease was lost or another attempt has started")
	ErrTimeout   = errors.New("time limit of the action reached")
	ErrShutdown  = errors.New("worker is shutting down")
)

// ErrDefer is returned by Process of a handler whose estimate is short, to say that this
// request will take longer: it is then accepted and queued like long work, and the handler is
// called again by a worker.
var ErrDefer = errors.New("streamer: queue this request")

// jsonError is an Error on the wire.
type jsonError struct {
	Code         string         `json:"code"`
	Message      string         `json:"message"`
	Details      map[string]any `json:"details,omitempty"`
	RetryAfterMS int64          `json:"retry_after_ms,omitempty"`
}

// MarshalJSON encodes the error as the wire protocol does.
func (e *Error) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonError{e.Code, e.Message, e.Details, e.RetryAfter.Milliseconds()})
}

// UnmarshalJSON decodes what MarshalJSON encodes.
func (e *Error) UnmarshalJSON(data []byte) error {
	var j jsonError
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*e = Error{Code: j.Code, Message: j.Message, Details: j.Details, RetryAfter: time.Duration(j.RetryAfterMS) * time.Millisecond}
	return nil
}
