package streamer

import (
	"context"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Handler does the work of one action. Beside EstimatedDuration it must have the method of
// [Processor] or [ProgressProcessor], and may have that of [Validator].
//
// A handler runs at least once for a request: after a crash or a lost lease it runs again,
// for a short time perhaps beside the old run. It should be idempotent; [Attempt] tells runs
// apart and serves other systems as a fencing token.
type Handler interface {
	// EstimatedDuration says how long a request takes. Up to the router's threshold (5 s
	// unless WithThreshold says otherwise) it is short work: it runs within the submit and is
	// answered at once. Above, it is queued for a worker.
	EstimatedDuration() time.Duration
}

// Processor is a Handler without progress. Returning an *Error ends the request with it,
// or, with WithRetry, asks for another attempt. Any other error is INTERNAL_ERROR to clients.
type Processor interface {
	Process(ctx context.Context, req *Request) (*Result, error)
}

// ProgressProcessor is a Handler with progress. A worker prefers it to Processor; short work
// prefers Processor.
type ProgressProcessor interface {
	ProcessWithProgress(ctx context.Context, req *Request, p Reporter) (*Result, error)
}

// Validator is a Handler that looks at a request before it is accepted. Returning an *Error
// refuses the request with it; any other error refuses it as VALIDATION_ERROR, its text goes
// to the log only.
type Validator interface {
	Validate(req *Request) error
}

// HandlerFunc is a handler as a function, and what middleware wraps. As a [Handler] it counts
// as long work unless WithEstimate says otherwise.
type HandlerFunc func(ctx context.Context, req *Request, p Reporter) (*Result, error)

// unknownDuration is the estimate of handlers that have none: it queues them.
const unknownDuration = time.Hour

// EstimatedDuration implements Handler.
func (f HandlerFunc) EstimatedDuration() time.Duration { return unknownDuration }

// ProcessWithProgress implements ProgressProcessor: it calls f.
func (f HandlerFunc) ProcessWithProgress(ctx context.Context, req *Request, p Reporter) (*Result, error) {
	return f(ctx, req, p)
}

// Middleware wraps the run of a handler. It wraps a function, not a Handler, so that no
// optional method is lost.
type Middleware func(next HandlerFunc) HandlerFunc

// binding is a Handler taken apart: bind is the one place that looks for optional methods.
type binding struct {
	estimate time.Duration
	validate func(req *Request) error // nil: none
	short    HandlerFunc              // within the submit
	queued   HandlerFunc              // by a worker
}

func bind(h Handler) (binding, bool) {
	b := binding{estimate: h.EstimatedDuration()}
	if v, ok := h.(Validator); ok {
		b.validate = v.Validate
	}
	if p, ok := h.(Processor); ok {
		b.short = func(ctx context.Context, req *Request, _ Reporter) (*Result, error) { return p.Process(ctx, req) }
		b.queued = b.short
	}
	if p, ok := h.(ProgressProcessor); ok {
		b.queued = p.ProcessWithProgress
		if b.short == nil {
			b.short = b.queued
		}
	}
	return b, b.queued != nil
}

// Output appends one partial output to the request's log; every viewer gets each output once
// and in order. v is encoded as JSON. Output returns when the value is taken, which waits only
// while too much is unwritten; it is stored soon after, at the latest with the next
// Checkpoint or the end. The error tells why nothing more will be stored (the attempt was
// superseded or canceled, or a limit was reached), after which the handler should return.
func Output(ctx context.Context, v any) error {
	run, ok := progress.FromContext(ctx)
	if !ok {
		return errNoRun
	}
	return run.Output(v)
}

// Checkpoint stores v, encoded as JSON of at most 64 KiB, as the point that a later attempt
// may go on from. It returns nil when v and all outputs before it are stored. A new attempt
// numbers its outputs on from those that the checkpoint covers.
func Checkpoint(ctx context.Context, v any) error {
	run, ok := progress.FromContext(ctx)
	if !ok {
		return errNoRun
	}
	return run.Checkpoint(v)
}

// LastCheckpoint decodes the last checkpoint of this or an earlier attempt into the value
// that into points to. It returns false when there is none.
func LastCheckpoint(ctx context.Context, into any) (bool, error) {
	run, ok := progress.FromContext(ctx)
	if !ok {
		return false, errNoRun
	}
	return run.LastCheckpoint(into)
}

// Attempt returns the number of the attempt that ctx belongs to, from 1. It grows with every
// attempt of a request, so it can fence writes to other systems. Outside of a handler it is 0.
func Attempt(ctx context.Context) int {
	if run, ok := progress.FromContext(ctx); ok {
		return run.Attempt()
	}
	return 0
}
