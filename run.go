package streamer

import (
	"context"
	"errors"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

// run is an attempt whose handler runs.
type run struct {
	*attempt
	req     *Request
	writer  *writer
	changed chan struct{} // the log got an event that is not the writer's
	unwatch func()
	reason  string // of the client that canceled
}

// start appends the start of the attempt. From before that on, it watches the log for what
// others append. It returns false when the log moved on, or the store can't be reached.
func (r *run) start(ctx context.Context, st *progress.State, rec *progress.Record) bool {
	bounded, cancel := r.logContext(ctx, appendTimeout)
	defer cancel()
	stop, err := r.cfg.log.Watch(bounded, r.key, func(record string) {
		if !r.writer.owns(record) {
			r.notice()
		}
	})
	if err != nil {
		return false
	}
	giveUp := time.AfterFunc(r.cfg.queue.Lease()/3, r.writer.cancel)
	defer giveUp.Stop()
	if !r.writer.begin(st, rec) {
		stop()
		return false
	}
	r.unwatch = stop
	if r.writer.state.Phase == progress.Canceling {
		r.notice()
	}
	r.stats.started.Add(1)
	return true
}

func (r *run) notice() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// supervise runs the handler, keeps the lease, and sees to it that the attempt comes to an
// end: the handler's, or one that is due whatever the handler does.
func (r *run) supervise(ctx context.Context) {
	hctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer r.unwatch()
	defer r.writer.close()
	r.log.Debug("attempt started", "request_id", r.key.ID, "action", r.req.Action, "attempt", r.writer.attempt)
	c := r.Mux.start(progress.NewContext(hctx, r.writer), r.route.queued, r.req, r.writer, func() {
		r.writer.stop(errOver)
		r.release()
	})
	defer r.abandon(c)

	lease := r.cfg.queue.Lease()
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	var limit, grace, last <-chan time.Time
	if d := r.timeout(); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		limit = timer.C
	}
	interrupt := func(cause error, patience time.Duration) {
		cancel(cause)
		r.writer.stop(cause)
		grace = time.After(patience)
	}
	out, changed := c.out, r.changed
	var expel, over <-chan struct{} = r.life.expel, r.life.over
	for {
		select {
		case o := <-out:
			out, limit, grace, expel = nil, nil, nil, nil
			r.conclude(o, context.Cause(hctx))
		case <-r.writer.done:
			r.settle(ctx, cancel)
			return
		case <-over:
			over, last = nil, time.After(2*handBack)
		case <-last:
			r.lose(cancel, "the worker was shut down before it could be handed back")
			return
		case <-tick.C:
			if !r.extend(ctx, lease) {
				r.lose(cancel, "the lease was lost")
				return
			}
			r.writer.alive()
			r.notice() // what a watch may have missed
		case <-changed:
			switch st, err := r.tail(ctx); {
			case err != nil:
			case st.Epoch != r.writer.epoch || st.Attempt != r.writer.attempt:
				r.lose(cancel, "another attempt has started")
				return
			case st.Ended() && !r.writer.owns(st.Record):
				r.lose(cancel, "the request was ended by another worker")
				return
			case st.Phase == progress.Canceling:
				changed = nil
				r.reason = st.Reason
				interrupt(ErrCanceled, r.cfg.grace)
			}
		case <-limit:
			limit = nil
			if hctx.Err() == nil {
				interrupt(ErrTimeout, r.cfg.grace)
			}
		case <-expel:
			expel = nil
			interrupt(ErrShutdown, handBack)
		case <-grace:
			grace, out = nil, nil
			r.abandon(c)
			r.conclude(outcome{err: context.Cause(hctx)}, context.Cause(hctx))
		}
	}
}

// timeout returns the time limit of the attempt, 0 for none.
func (r *run) timeout() time.Duration {
	d := r.route.settings.timeout
	if t := r.req.Timeout; t > 0 && (d == 0 || t < d) {
		d = t
	}
	return d
}

// conclude has the writer append what the attempt comes to.
func (r *run) conclude(o outcome, cause error) {
	e := r.conclusion(o, cause)
	e.Attempt, e.Time = r.writer.attempt, time.Now()
	r.writer.finish(e, r.route.settings.retention)
}

func (r *run) conclusion(o outcome, cause error) *progress.Event {
	if o.err == nil && cause != nil && r.writer.missesOutputs() {
		o = outcome{err: cause} // outputs that the handler made are not in the log
	}
	switch {
	case errors.Is(cause, ErrCanceled):
		return &progress.Event{Kind: progress.Canceled, Error: canceled(r.reason)}
	case errors.Is(cause, ErrShutdown) && o.err != nil:
		return &progress.Event{Kind: progress.Retrying, Reason: progress.ReasonShutdown}
	}
	var public *Error
	err := o.err
	if err == nil && o.result != nil && !o.result.Success && o.result.Error != nil {
		err = o.result.Error
	}
	if errors.As(err, &public) && public != nil && public.retry && !errors.Is(cause, ErrTimeout) && r.writer.used < r.route.settings.attempts {
		delay := public.RetryAfter
		if delay == 0 {
			delay = r.backoff()
		}
		return &progress.Event{Kind: progress.Retrying, Reason: progress.ReasonError, Delay: delay, Error: r.failure(r.req, public)}
	}
	return r.end(r.req, o, cause)
}

// backoff asks the action's WithBackoff how long to wait.
func (r *run) backoff() (d time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked("ask WithBackoff", r.req, v)
			d = defaultBackoff(r.writer.used)
		}
	}()
	return max(r.route.settings.backoff(r.writer.used), 0)
}

// settle does what the attempt's last event, or the lack of it, asks for.
func (r *run) settle(ctx context.Context, cancel context.CancelCauseFunc) {
	e, err := r.writer.result()
	if err != nil {
		r.lose(cancel, err.Error())
		return
	}
	attrs := []any{"request_id", r.key.ID, "action", r.req.Action, "attempt", e.Attempt}
	if e.Kind == progress.Retrying {
		if e.Reason == progress.ReasonShutdown {
			r.stats.returned.Add(1)
			r.log.Info("attempt handed back on shutdown", attrs...)
		} else {
			r.stats.retried.Add(1)
			r.log.Info("attempt failed, another follows", append(attrs, "code", e.Error.Code, "delay", e.Delay)...)
		}
		r.retry(ctx, e.Delay)
		return
	}
	if e.Error != nil {
		attrs = append(attrs, "code", e.Error.Code)
	}
	r.stats.ended(e.Kind)
	r.log.Info("request "+string(e.Kind), attrs...)
	r.ack(ctx)
}

// lose gives up an attempt that is no longer this worker's. It leaves the ticket alone: it
// is another's.
func (r *run) lose(cancel context.CancelCauseFunc, why string) {
	r.stats.fenced.Add(1)
	r.log.Warn("attempt lost", "request_id", r.key.ID, "action", r.req.Action, "attempt", r.writer.attempt, "reason", why)
	r.writer.stop(ErrLeaseLost)
	cancel(ErrLeaseLost)
}

// extend keeps the lease. It returns false when the lease is lost, or has run out while the
// queue could not be reached.
func (r *run) extend(ctx context.Context, lease time.Duration) bool {
	ctx, cancel := r.queueContext(ctx, min(lease/3, storeTimeout))
	defer cancel()
	began := time.Now()
	err := r.delivery.Extend(ctx)
	switch {
	case err == nil:
		r.leased = began
		return true
	case errors.Is(err, queue.ErrLeaseLost):
		return false
	default:
		r.log.Warn("lease can't be extended", "request_id", r.key.ID, "action", r.req.Action, "error", err)
		return time.Since(r.leased)+lease/3 < lease
	}
}

// tail asks how the request stands. It must not keep the lease from being extended.
func (r *run) tail(ctx context.Context) (progress.State, error) {
	ctx, cancel := r.logContext(ctx, min(r.cfg.queue.Lease()/3, storeTimeout))
	defer cancel()
	return r.cfg.log.Tail(ctx, r.key)
}
