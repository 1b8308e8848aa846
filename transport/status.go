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

// problem is an error as RFC 9457 has it.
type problem struct {
	Type         string `json:"type"`
	Title        string `json:"title"`
	Status       int    `json:"status"`
	Detail       string `json:"detail"`
	Code         string `json:"code"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

// WriteError answers an HTTP request with an error, as application/problem+json.
func WriteError(w http.ResponseWriter, err *streamer.Error) {
	status := Status(err.Code)
	body, _ := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: err.Message, Code: err.Code, RetryAfterMS: err.RetryAfter.Milliseconds(),
	})
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if err.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((err.RetryAfter+time.Second-1)/time.Second)))
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	w.Write(body)
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
