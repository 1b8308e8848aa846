package streamer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/pay-theory/streamer/v2/progress"
)

// call is one run of a handler on a goroutine of its own, so that a handler which ignores its
// context holds up nothing but its slot.
type call struct {
	out   chan outcome // gets one value when the handler has returned
	phase atomic.Int32
}

const (
	callRunning int32 = iota
	callReturned
	callAbandoned
)

// outcome is what became of a call.
type outcome struct {
	result *Result
	data   json.RawMessage // result.Data as JSON
	err    error
}

// errPanic is the outcome of a handler that panicked or left its goroutine.
type errPanic struct {
	value any
	stack []byte
}

func (e *errPanic) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// start calls f with the middleware around it. returned, if not nil, runs when f has returned,
// whoever waits for it or not, and before that shows.
func (m *Mux) start(ctx context.Context, f HandlerFunc, req *Request, p Reporter, returned func()) *call {
	c := &call{out: make(chan outcome, 1)}
	m.stats.running.Add(1)
	m.life.spawn(func() {
		out := outcome{err: &errPanic{value: "runtime.Goexit was called"}}
		defer func() {
			if v := recover(); v != nil {
				out = outcome{err: &errPanic{value: v, stack: debug.Stack()}}
			}
			if c.phase.Swap(callReturned) == callAbandoned {
				m.stats.stuck.Add(-1)
			} else {
				m.stats.running.Add(-1)
			}
			if returned != nil {
				returned()
			}
			c.out <- out
		}()
		result, err := m.wrap(f)(ctx, req, p)
		var data json.RawMessage
		if err == nil && result != nil {
			if data, err = m.json.encode(result.Data); err != nil {
				err = fmt.Errorf("the result can't be encoded as JSON: %w", err)
			}
		}
		out = outcome{result, data, err}
	})
	return c
}

// abandon says that nobody waits for the call any more.
func (m *Mux) abandon(c *call) {
	if c.phase.CompareAndSwap(callRunning, callAbandoned) {
		m.stats.running.Add(-1)
		m.stats.stuck.Add(1)
	}
}

// end returns the end that an outcome makes, without its place in the log. cause is why the
// handler's context ended, or nil.
func (m *Mux) end(req *Request, out outcome, cause error) *progress.Event {
	if err := m.refusal(req, out, cause); err != nil {
		return &progress.Event{Kind: progress.Failed, Error: m.failure(req, err)}
	}
	return &progress.Event{Kind: progress.Completed, Data: out.data, Success: out.result.Success}
}

// refusal returns why an outcome is no success, as clients may see it, or nil.
func (m *Mux) refusal(req *Request, out outcome, cause error) *Error {
	var public *Error
	var panicked *errPanic
	switch {
	case out.err == nil && out.result == nil:
		return m.internal("run a handler", errors.New("it returned neither a result nor an error"), m.attrs(req)...)
	case out.err == nil && !out.result.Success && out.result.Error != nil:
		public = out.result.Error
	case out.err == nil:
		if len(out.data) > m.cfg.limits.Result {
			return NewError(ErrCodePayloadTooLarge, fmt.Sprintf("the result has %d bytes, at most %d are kept", len(out.data), m.cfg.limits.Result))
		}
		return nil
	case errors.As(out.err, &panicked):
		return m.panicked("run a handler", req, panicked)
	case errors.Is(cause, ErrTimeout):
		return NewError(ErrCodeTimeout, "the request took longer than its time limit")
	case errors.As(out.err, &public) && public != nil:
	default:
		return m.internal("run a handler", out.err, m.attrs(req)...)
	}
	if !validCode(public.Code) {
		return m.internal("run a handler", fmt.Errorf("error code %q: want [A-Z][A-Z0-9_]{0,63}: %w", public.Code, public), m.attrs(req)...)
	}
	return public
}

// panicked logs a panic and returns what the client sees of it.
func (m *Mux) panicked(doing string, req *Request, v any) *Error {
	p, ok := v.(*errPanic)
	if !ok {
		p = &errPanic{value: v, stack: debug.Stack()}
	}
	return m.internal(doing, p, append(m.attrs(req), slog.String("stack", string(p.stack)))...)
}

func (m *Mux) attrs(req *Request) []any {
	return []any{slog.String("request_id", req.ID), slog.String("action", req.Action)}
}

const (
	maxMessage = 4 << 10
	maxDetails = 16 << 10
)

// failure returns err as events keep it.
func (m *Mux) failure(req *Request, err *Error) *progress.Failure {
	f := &progress.Failure{Code: err.Code, Message: clip(err.Message, maxMessage), RetryAfter: err.RetryAfter}
	if len(err.Details) == 0 {
		return f
	}
	details, jsonErr := m.json.encode(err.Details)
	switch {
	case jsonErr != nil:
		m.log.Warn("details of an error can't be encoded as JSON", append(m.attrs(req), "code", err.Code, "error", jsonErr)...)
	case len(details) > maxDetails:
		m.log.Warn("details of an error are too large to be kept", append(m.attrs(req), "code", err.Code, "bytes", len(details), "limit", maxDetails)...)
	default:
		f.Details = details
	}
	return f
}

// validCode reports whether code is [A-Z][A-Z0-9_]{0,63}.
func validCode(code string) bool {
	for i, c := range []byte(code) {
		upper := 'A' <= c && c <= 'Z'
		if !upper && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return len(code) >= 1 && len(code) <= 64
}

// shortRun is what the context of short work carries.
type shortRun struct{}

var errShort = errors.New("streamer: short work has no outputs and no checkpoints: return ErrDefer to have the request queued, or estimate more than the threshold")

func (shortRun) Attempt() int                     { return 1 }
func (shortRun) Output(any) error                 { return errShort }
func (shortRun) Checkpoint(any) error             { return errShort }
func (shortRun) LastCheckpoint(any) (bool, error) { return false, nil }
