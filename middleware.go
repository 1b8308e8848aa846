package streamer

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"
)

// Logging returns middleware that logs the end of every handler run to l: Info for success,
// Warn for an error, with request_id, action, attempt and duration. Payloads and results are
// not logged.
func Logging(l *slog.Logger) Middleware {
	return func(next HandlerFunc) HandlerFunc {
		return func(ctx context.Context, req *Request, p Reporter) (*Result, error) {
			began := time.Now()
			result, err := next(ctx, req, p)
			attrs := []any{"request_id", req.ID, "action", req.Action, "attempt", Attempt(ctx), "duration", time.Since(began)}
			if err != nil {
				l.WarnContext(ctx, "handler failed", append(attrs, "error", err)...)
			} else {
				l.InfoContext(ctx, "handler done", attrs...)
			}
			return result, err
		}
	}
}

// Recover returns middleware that turns a panic of the handler into an error, so that
// middleware outside of it sees one. (Without it the router catches panics as well, behind all
// middleware.) The panic and its stack are in the error's text, for the log; clients see
// INTERNAL_ERROR.
func Recover() Middleware {
	return func(next HandlerFunc) HandlerFunc {
		return func(ctx context.Context, req *Request, p Reporter) (result *Result, err error) {
			defer func() {
				if v := recover(); v != nil {
					result, err = nil, &errPanic{value: v, stack: debug.Stack()}
				}
			}()
			return next(ctx, req, p)
		}
	}
}

// Timeout returns middleware that limits a handler run to d, more than 0: the context that the
// handler gets ends with the cause ErrTimeout, and an error it returns then becomes TIMEOUT.
// WithTimeout does more: it ends the request even if the handler ignores its context.
func Timeout(d time.Duration) Middleware {
	return func(next HandlerFunc) HandlerFunc {
		return func(ctx context.Context, req *Request, p Reporter) (*Result, error) {
			ctx, cancel := context.WithTimeoutCause(ctx, d, ErrTimeout)
			defer cancel()
			result, err := next(ctx, req, p)
			if err != nil && errors.Is(context.Cause(ctx), ErrTimeout) {
				err = NewError(ErrCodeTimeout, "the request took longer than its time limit")
			}
			return result, err
		}
	}
}
