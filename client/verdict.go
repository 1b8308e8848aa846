package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
)

const (
	restartSpread   = 5 * time.Second // over which clients come back after a restart
	overloadedFloor = 5 * time.Second
	maxFloor        = time.Hour // of what a server can make a client wait
)

// verdict is what the end of a connection, or of the attempt to make one, means.
type verdict struct {
	err    error           // what happened
	stop   *streamer.Error // what pending calls fail with; nil: connect again
	denied bool            // the token was refused: stop when it happens twice in a row
	tooBig bool            // a message of this client was larger than the server takes
	floor  time.Duration   // before which not to connect again
	spread time.Duration   // over which to connect again, at least
}

// byStatus applies the rule of HTTP, which close codes above 4000 follow too.
func byStatus(status int, message string, err error, floor time.Duration) verdict {
	v := verdict{err: err, floor: max(0, min(floor, maxFloor))}
	code := streamer.ErrCodeServiceUnavailable
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		return v
	case status == http.StatusUnauthorized:
		code = streamer.ErrCodeUnauthorized
		v.denied = true
	case status == http.StatusForbidden:
		code = streamer.ErrCodeForbidden
	case status == http.StatusBadRequest:
		code = streamer.ErrCodeValidation
	}
	v.stop = streamer.NewError(code, "connection refused: "+message)
	return v
}

// byClose judges a close frame.
func byClose(closed websocket.CloseError, err error) verdict {
	reason := closed.Reason
	if reason == "" {
		reason = closed.Code.String()
	}
	refused := func(code string) verdict {
		return verdict{err: err, stop: streamer.NewError(code, "connection closed: "+reason)}
	}
	switch code := int(closed.Code); {
	case code >= 4000:
		return byStatus(code-4000, reason, err, hint(closed.Reason))
	case code == wire.CloseRestart:
		return verdict{err: err, spread: restartSpread}
	case code == wire.CloseOverloaded:
		return verdict{err: err, floor: overloadedFloor, spread: restartSpread}
	case code == wire.CloseTooBig:
		v := refused(streamer.ErrCodePayloadTooLarge)
		v.tooBig = true
		return v
	case closed.Code == websocket.StatusPolicyViolation:
		return refused(streamer.ErrCodeForbidden)
	case closed.Code == websocket.StatusProtocolError, closed.Code == websocket.StatusUnsupportedData,
		closed.Code == websocket.StatusInvalidFramePayloadData, closed.Code == websocket.StatusMandatoryExtension:
		return refused(streamer.ErrCodeInternalError)
	}
	return verdict{err: err}
}

// hint reads retry_after_ms=N in a close reason.
func hint(reason string) time.Duration {
	_, digits, found := strings.Cut(reason, "retry_after_ms")
	if !found {
		return 0
	}
	digits = strings.TrimLeft(digits, "=: ")
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	ms, _ := strconv.ParseInt(digits, 10, 32) // 0 without digits, the largest with too many
	return time.Duration(ms) * time.Millisecond
}

// judge returns the verdict on the error that ended a connection.
func judge(err error) verdict {
	if closed, ok := errors.AsType[websocket.CloseError](err); ok {
		return byClose(closed, err)
	}
	if refused, ok := errors.AsType[*handshakeError](err); ok {
		return byStatus(refused.status, refused.Error(), err, refused.retryAfter)
	}
	if broken, ok := errors.AsType[*protocolError](err); ok {
		return verdict{err: err, stop: streamer.NewError(streamer.ErrCodeInternalError, broken.Error())}
	}
	if errors.Is(err, websocket.ErrMessageTooBig) || errors.Is(err, errTooLarge) {
		return verdict{err: err, stop: streamer.NewError(streamer.ErrCodePayloadTooLarge, "a message of the server is larger than WithLimits allows")}
	}
	if e, ok := errors.AsType[*streamer.Error](err); ok && (e.Code == streamer.ErrCodeUnauthorized || e.Code == streamer.ErrCodeForbidden) {
		return verdict{err: err, stop: e} // of the token source
	}
	return verdict{err: err}
}

// errTooLarge says that an event of a stream is larger than the client takes.
var errTooLarge = errors.New("an event of the server is too large")

// protocolError says that the peer does not speak the protocol.
type protocolError struct{ what string }

func (e *protocolError) Error() string { return e.what }

// handshakeError is an HTTP answer that does not open a WebSocket.
type handshakeError struct {
	status     int
	detail     string
	retryAfter time.Duration
}

func (e *handshakeError) Error() string {
	text := fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	if e.detail != "" {
		text += ": " + e.detail
	}
	return text
}

// dialError says why a dial failed, without the URL, whose query may hold a secret.
func dialError(resp *http.Response, err error, now time.Time) error {
	if resp == nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return &protocolError{"the server's WebSocket handshake is broken: " + err.Error()}
	}
	e := &handshakeError{status: resp.StatusCode}
	if text := resp.Header.Get("Retry-After"); text != "" {
		if seconds, err := strconv.ParseInt(text, 10, 32); err == nil || errors.Is(err, strconv.ErrRange) {
			e.retryAfter = time.Duration(seconds) * time.Second
		} else if t, err := http.ParseTime(text); err == nil {
			e.retryAfter = t.Sub(now)
		}
	}
	if resp.Body == nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		return e
	}
	var problem struct {
		Detail       string `json:"detail"`
		RetryAfterMS int64  `json:"retry_after_ms"`
	}
	if body, err := io.ReadAll(resp.Body); err == nil && json.Unmarshal(body, &problem) == nil {
		e.detail = problem.Detail
		ms := min(problem.RetryAfterMS, maxFloor.Milliseconds()) // a time.Duration holds fewer than an int64
		e.retryAfter = max(e.retryAfter, time.Duration(ms)*time.Millisecond)
	}
	return e
}
