package streamer

import (
	"context"
	"errors"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Cancel asks to end a request. A request that waits is canceled at once, a running one
// has WithCancelGrace to return. It returns the state then, which shows Canceling or an end;
// canceling again, or what has ended, is no error. Errors are as of Attach.
func (m *Mux) Cancel(ctx context.Context, who Identity, id, reason string) (progress.State, error) {
	ctx, cancel := m.logContext(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	key := m.key(who, id)
	st, err := m.cfg.log.Tail(ctx, key)
	if err == nil {
		if r := m.route(st.Action); r != nil && !r.permitted(who) {
			err = progress.ErrNotFound
		}
	}
	began := time.Now()
	for err == nil && !st.Ended() && st.Phase != progress.Canceling {
		rec := m.cancelRecord(st, clip(reason, maxReason))
		err = m.cfg.log.Append(ctx, key, st.Record, rec)
		var conflict *progress.ConflictError
		switch {
		case err == nil:
			m.stats.ended(rec.State.Phase)
			return rec.State, nil
		case errors.As(err, &conflict):
			st, err = conflict.State, nil
		case errors.Is(err, progress.ErrUnavailable) && time.Since(began) < storeTimeout:
			// It may be stored: look, and try again.
			select {
			case <-time.After(jitter(100 * time.Millisecond)):
			case <-ctx.Done():
			}
			st, err = m.cfg.log.Tail(ctx, key)
		}
	}
	return st, m.storeError("cancel a request", err)
}

const maxReason = 1 << 10

// cancelRecord asks a running attempt to end, and ends what does not run.
func (m *Mux) cancelRecord(st progress.State, reason string) *progress.Record {
	e := &progress.Event{Seq: st.Last + 1, Record: m.ids.next(), Attempt: st.Attempt, Time: time.Now()}
	rec := &progress.Record{ID: e.Record, Events: []*progress.Event{e}}
	if st.Phase == progress.Started {
		e.Kind, e.Reason = progress.Canceling, reason
	} else {
		e.Kind, e.Error = progress.Canceled, canceled(reason)
		rec.Retention = m.settings(st.Action).retention
	}
	rec.State = st.Apply(e)
	return rec
}

func canceled(reason string) *progress.Failure {
	if reason == "" {
		reason = "canceled by a client"
	}
	return &progress.Failure{Code: ErrCodeCanceled, Message: reason}
}
