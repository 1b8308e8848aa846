package streamer

import (
	"context"
	"errors"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// batch is what goes into the log in one step.
type batch struct {
	rec        *progress.Record // nil: progress alone
	prev       string           // ID of the record before
	progress   *progress.Progress
	outputs    int // events that are outputs
	size       int
	checkpoint *checkpoint
	start      bool           // of the attempt
	final      bool           // the attempt's last
	lost       bool           // progress alone was not stored
	state      progress.State // after it
}

// batch takes what is to be appended next, or nil.
func (w *writer) batch() *batch {
	b := &batch{}
	var events []*progress.Event
	for _, e := range w.pending {
		if len(events) == maxRecord || len(events) > 0 && b.size+len(e.Data) > maxRecordSize {
			break
		}
		events = append(events, e)
		b.size += len(e.Data)
	}
	b.outputs = len(events)
	all := b.outputs == len(w.pending)
	if all && w.final != nil {
		events = append(events, w.final)
		b.final = true
	}
	if c := w.checkpoint; c != nil && (len(w.pending) == 0 || w.pending[0].Index+b.outputs >= c.outputs) {
		b.checkpoint = c
	}
	b.progress = w.report.take(b.final)
	if len(events) == 0 && b.checkpoint == nil {
		if b.progress == nil {
			return nil
		}
		return b
	}
	b.rec = &progress.Record{Events: events, Progress: b.progress}
	w.number(b, w.state)
	return b
}

// number makes b's record the one after st.
func (w *writer) number(b *batch, st progress.State) {
	b.prev = st.Record
	b.rec.ID = w.mux.ids.next()
	if b.final {
		last := &b.rec.Events[len(b.rec.Events)-1]
		if st.Phase == progress.Canceling && (*last).Kind != progress.Canceled {
			// The cancel request was recorded first: whatever the attempt came to, this is its end.
			*last = &progress.Event{Kind: progress.Canceled, Attempt: w.attempt, Time: (*last).Time, Error: canceled(st.Reason)}
		}
		if (*last).Kind.Ends() {
			b.rec.Retention = w.retention
		}
	}
	for _, e := range b.rec.Events {
		e.Seq, e.Record = st.Last+1, b.rec.ID
		st = st.Apply(e)
	}
	st.Record = b.rec.ID
	if b.checkpoint != nil {
		st.Checkpoint, st.Resume = b.checkpoint.data, b.checkpoint.outputs
	}
	b.rec.State = st
}

// settle takes note of what became of b.
func (w *writer) settle(b *batch, err error) {
	if b.checkpoint != nil {
		w.checkpoint = nil
		b.checkpoint.settle(err)
	}
	var public *Error
	switch {
	case errors.As(err, &public) && (b.outputs > 0 || b.final && w.final.Kind == progress.Completed):
		w.spoil(public)
		return
	case err != nil:
		w.fail(err)
		return
	}
	if b.rec == nil {
		if b.lost {
			w.report.lost()
		}
		return
	}
	w.state = b.state
	if w.state.Phase == progress.Canceling && w.refused == nil {
		w.refuse(ErrCanceled)
		w.canceling()
	}
	w.pending = w.pending[b.outputs:]
	if len(w.pending) == 0 {
		w.pending = nil
	}
	w.size -= b.size
	if b.final {
		w.final = b.rec.Events[len(b.rec.Events)-1]
		w.stored = true
		if w.failed == nil { // else somebody has given up meanwhile
			close(w.done)
		}
	}
	w.room.Broadcast()
}

// spoil gives up outputs, or a result, that the store won't take. As none may be lost, the
// request fails.
func (w *writer) spoil(err *Error) {
	w.refuse(err)
	w.missing = true
	w.pending, w.size = nil, 0
	if c := w.checkpoint; c != nil {
		w.checkpoint = nil
		c.settle(err)
	}
	if w.final != nil {
		w.final = spoiled(w.final, err)
	}
}

func spoiled(final *progress.Event, err *Error) *progress.Event {
	if final.Kind != progress.Completed {
		return final
	}
	return &progress.Event{
		Kind: progress.Failed, Attempt: final.Attempt, Time: final.Time, Error: &progress.Failure{Code: err.Code, Message: err.Message},
	}
}

// append stores b. It tries until it knows the outcome, or the attempt is over.
func (w *writer) append(b *batch) error {
	if b.rec == nil {
		b.lost = !w.setProgress(b.progress)
		return nil
	}
	began := time.Now()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		w.sent.Store(&b.rec.ID)
		ctx, cancel := w.mux.logContext(w.ctx, appendTimeout)
		err := w.mux.cfg.log.Append(ctx, w.key, b.prev, b.rec)
		cancel()
		var conflict *progress.ConflictError
		switch {
		case err == nil:
			b.state = b.rec.State
			return nil
		case errors.As(err, &conflict):
			if err := w.reconcile(b, conflict.State); err != errAgain {
				return err
			}
		case errors.Is(err, progress.ErrNotFound):
			return errGone
		case errors.Is(err, progress.ErrTooLarge):
			return NewError(ErrCodePayloadTooLarge, "an output or the result is larger than the store takes")
		case errors.Is(err, progress.ErrFull):
			if time.Since(began) > fullPatience {
				return NewError(ErrCodeServiceUnavailable, "the store has no room for the outputs of this request")
			}
		case !errors.Is(err, progress.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && w.ctx.Err() == nil:
			return w.mux.internal("append to a log", err)
		}
		w.mux.log.Debug("append is tried again", "request_id", w.key.ID, "attempt", w.attempt, "error", err)
		select {
		case <-w.ctx.Done():
			return errOver
		case <-time.After(jitter(pause)):
		}
	}
}

var errAgain = errors.New("try again")

// reconcile looks at the state that b's append found. It returns nil when b is stored,
// errAgain when b was changed to follow what is there, and else why it can't be stored.
func (w *writer) reconcile(b *batch, st progress.State) error {
	own := st.Epoch == b.rec.State.Epoch && st.Attempt == b.rec.State.Attempt
	if !own {
		return ErrLeaseLost
	}
	if n := len(b.rec.Events); n > 0 && st.Last >= b.rec.Events[n-1].Seq {
		ctx, cancel := w.mux.logContext(w.ctx, appendTimeout)
		page, err := w.mux.cfg.log.Read(ctx, w.key, b.rec.Events[0].Seq-1, 1)
		cancel()
		switch {
		case errors.Is(err, progress.ErrNotFound):
			return errGone
		case err != nil:
			if w.ctx.Err() != nil {
				return errOver
			}
			return errAgain // as it is: the log tells us again
		case len(page.Events) == 1 && page.Events[0].Record == b.rec.ID:
			b.state = st
			return nil
		}
	}
	if b.start || st.Phase != progress.Canceling {
		return ErrLeaseLost
	}
	// The record that was sent may still be on its way: it must not change.
	rec := &progress.Record{Progress: b.rec.Progress, Events: make([]*progress.Event, 0, len(b.rec.Events))}
	for _, e := range b.rec.Events {
		rec.Events = append(rec.Events, &progress.Event{
			Kind: e.Kind, Attempt: e.Attempt, Time: e.Time, Index: e.Index, Data: e.Data, Success: e.Success,
			Error: e.Error, Reason: e.Reason, Delay: e.Delay,
		})
	}
	b.rec = rec
	w.number(b, st)
	return errAgain
}

// setProgress stores progress alone, and reports whether it did.
func (w *writer) setProgress(p *progress.Progress) bool {
	ctx, cancel := w.mux.logContext(w.ctx, appendTimeout)
	defer cancel()
	err := w.mux.cfg.log.SetProgress(ctx, w.key, p)
	if err != nil && w.ctx.Err() == nil {
		w.mux.log.Debug("progress is not stored", "request_id", w.key.ID, "attempt", w.attempt, "error", err)
	}
	return err == nil
}
