package transport

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

// Status returns the HTTP status of an error code. A code of a handler's own is 422.
func Status(code string) int {
	switch code {
	case streamer.ErrCodeValidation:
		return http.StatusBadRequest
	case streamer.ErrCodeInvalidAction, streamer.ErrCodeNotFound:
		return http.StatusNotFound
	case streamer.ErrCodeUnauthorized:
		return http.StatusUnauthorized
	case streamer.ErrCodeForbidden:
		return http.StatusForbidden
	case streamer.ErrCodePayloadTooLarge:
		return http.StatusRequestEntityTooLarge
	case streamer.ErrCodeRateLimited:
		return http.StatusTooManyRequests
	case streamer.ErrCodeServiceUnavailable:
		return http.StatusServiceUnavailable
	case streamer.ErrCodeTimeout:
		return http.StatusGatewayTimeout
	case streamer.ErrCodeCanceled:
		return http.StatusConflict
	case streamer.ErrCodeProcessingFailed, streamer.ErrCodeInternalError:
		return http.StatusInternalServerError
	default:
		return http.StatusUnprocessableEntity
	}
}

// Problem is an error as an HTTP answer, application/problem+json as RFC 9457 has it.
type Problem struct {
	Status    int // 0: of the code
	Failure   *progress.Failure
	RequestID string
	Seq       uint64 // the error is the end of its request; 0: it is not
}

// problem is the body of an answer.
type problem struct {
	Type         string          `json:"type"`
	Title        string          `json:"title"`
	Status       int             `json:"status"`
	Detail       string          `json:"detail"`
	Code         string          `json:"code"`
	RequestID    string          `json:"request_id,omitempty"`
	Seq          uint64          `json:"seq,omitempty"`
	RetryAfterMS int64           `json:"retry_after_ms,omitempty"`
	Details      json.RawMessage `json:"details,omitempty"`
}

// WriteError answers an HTTP request with an error.
func WriteError(w http.ResponseWriter, err error) { Problem{Failure: Failure(err)}.Write(w) }

// Write answers an HTTP request with the problem.
func (p Problem) Write(w http.ResponseWriter) {
	f := p.Failure
	status := p.Status
	if status == 0 {
		status = Status(f.Code)
	}
	body, err := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: f.Message, Code: f.Code,
		RequestID: p.RequestID, Seq: p.Seq, RetryAfterMS: f.RetryAfter.Milliseconds(), Details: f.Details,
	})
	if err != nil { // details that are no JSON, which no store of ours gives back
		f = &progress.Failure{Code: f.Code, Message: f.Message, RetryAfter: f.RetryAfter}
		Problem{status, f, p.RequestID, p.Seq}.Write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if f.RetryAfter > 0 {
		h.Set("Retry-After", seconds(f.RetryAfter))
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	w.Write(body)
}

// seconds returns d as the header Retry-After has it: in whole seconds, at least 1.
func seconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}

// Failure returns err as the wire carries it. What is no *streamer.Error is an INTERNAL_ERROR
// with a generic text.
func Failure(err error) *progress.Failure {
	var public *streamer.Error
	if !errors.As(err, &public) || public == nil {
		return &progress.Failure{Code: streamer.ErrCodeInternalError, Message: "internal error"}
	}
	f := &progress.Failure{Code: public.Code, Message: public.Message, RetryAfter: public.RetryAfter}
	if len(public.Details) > 0 {
		if details, err := json.Marshal(public.Details); err == nil {
			f.Details = details
		}
	}
	return f
}
