package streamer

import (
	"context"
	"errors"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// shortTimeout limits short work of actions without a limit of their own.
const shortTimeout = 30 * time.Second

// answer runs short work and stores its end.
func (s *submission) answer(ctx context.Context) (*Receipt, error) {
	if receipt, err := s.find(ctx); err == nil || !errors.Is(err, progress.ErrNotFound) {
		return receipt, err
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	w := s.begin(context.WithoutCancel(ctx))
	out, left := w.wait(ctx.Done())
	if left {
		s.life.spawn(func() {
			out, _ := w.wait(nil)
			// Whoever asked has gone; who asks again with the same id gets the answer.
			_, _ = s.conclude(w, out)
		})
		return nil, NewError(ErrCodeServiceUnavailable, "the wait for the answer has ended: ask again with the same id").WithRetry(time.Second)
	}
	return s.conclude(w, out)
}

// conclude stores the end that an outcome of short work makes.
func (s *submission) conclude(w *shortWork, out outcome) (*Receipt, error) {
	defer w.cancel(nil)
	cause := context.Cause(w.ctx)
	switch {
	case errors.Is(out.err, ErrDefer):
		return s.accept(w.ctx)
	case out.err != nil && errors.Is(cause, ErrShutdown):
		return nil, errDraining
	}
	e := s.end(s.req, out, cause)
	e.Seq, e.Record, e.Short, e.Time = 1, s.ids.next(), true, time.Now()
	e.Request = s.stored()
	rec := &progress.Record{ID: e.Record, Events: []*progress.Event{e}, Retention: s.route.settings.retention}
	rec.State = s.state().Apply(e)
	ctx, cancel := s.logContext(context.WithoutCancel(w.ctx), storeTimeout)
	defer cancel()
	if receipt, err := s.append(ctx, rec); receipt != nil || err != nil {
		return receipt, err
	}
	s.stats.answered.Add(1)
	receipt := s.receipt(rec.State)
	receipt.End = e
	return receipt, nil
}

// shortWork is a handler that runs within a submit.
type shortWork struct {
	*submission
	ctx    context.Context // of the handler
	cancel context.CancelCauseFunc
	call   *call
	limit  *time.Timer
	grace  <-chan time.Time // after the context was ended
}

// begin calls the handler.
func (s *submission) begin(ctx context.Context) *shortWork {
	limit := shortTimeout
	if d := s.route.settings.timeout; d > 0 {
		limit = d
	}
	if d := s.req.Timeout; d > 0 {
		limit = min(limit, d)
	}
	w := &shortWork{submission: s, limit: time.NewTimer(limit)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.call = s.start(progress.NewContext(w.ctx, shortRun{}), s.route.short, s.req, progress.Discard, nil)
	return w
}

// wait returns what comes of the handler, or left when the caller goes first.
func (w *shortWork) wait(gone <-chan struct{}) (out outcome, left bool) {
	var expel <-chan struct{} = w.life.expel
	for {
		select {
		case out := <-w.call.out:
			w.limit.Stop()
			return out, false
		case <-gone:
			return outcome{}, true
		case <-w.limit.C:
			w.cancel(ErrTimeout)
			w.grace = time.After(w.cfg.grace)
		case <-expel:
			expel = nil
			w.cancel(ErrShutdown)
			w.grace = time.After(handBack)
		case <-w.grace:
			w.abandon(w.call)
			return outcome{err: context.Cause(w.ctx)}, false
		}
	}
}
