package streamer

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Viewer reads the log of one request. It holds no resources; its methods may be called
// concurrently.
type Viewer struct {
	mux  *Mux
	key  progress.Key
	page progress.Page
}

// ID returns the request's id.
func (v *Viewer) ID() string { return v.key.ID }

// Page returns the state, oldest event and progress as they were at Attach, without events.
// The viewer of a Receipt knows the state alone. It may be a moment behind what another process
// has shown: for a cursor beyond Page().State.Last, Read says what is there.
func (v *Viewer) Page() progress.Page { return v.page }

// Read returns up to limit (at least 1) events after number after, with the state and
// progress of then. Errors are *Error: NOT_FOUND when the log is gone by now,
// SERVICE_UNAVAILABLE.
func (v *Viewer) Read(ctx context.Context, after uint64, limit int) (progress.Page, error) {
	return v.read(ctx, v.mux.cfg.log.Read, after, limit)
}

// read reads by one of the log's methods.
func (v *Viewer) read(ctx context.Context, by func(context.Context, progress.Key, uint64, int) (progress.Page, error), after uint64, limit int) (progress.Page, error) {
	ctx, cancel := v.mux.logContext(ctx, storeTimeout)
	defer cancel()
	page, err := by(ctx, v.key, after, limit)
	if err != nil {
		return progress.Page{}, v.mux.storeError("read a request", err)
	}
	return page, nil
}

// Watch calls notify after every change of the log, progress included, and when it is
// removed. notify must return at once and may be called from several goroutines. stop ends that; it must be called.
func (v *Viewer) Watch(ctx context.Context, notify func()) (stop func(), err error) {
	ctx, cancel := v.mux.logContext(ctx, storeTimeout)
	defer cancel()
	stop, err = v.mux.cfg.log.Watch(ctx, v.key, func(string) { notify() })
	if err != nil {
		return nil, v.mux.storeError("watch a request", err)
	}
	return stop, nil
}

const (
	pageSize   = 256
	leastPause = 50 * time.Millisecond // before the store is asked again
	mostPause  = time.Second
)

// Events yields the events after number after, those to come too, up to the request's end.
// While the store does not answer it waits. When it can't go on, the last pair has an error:
// an *Error, or ctx's. Where events were lost since the last one it is a CONFLICT.
func (v *Viewer) Events(ctx context.Context, after uint64) iter.Seq2[*progress.Event, error] {
	return func(yield func(*progress.Event, error) bool) {
		after := after
		changed := make(chan struct{}, 1)
		var stop func()
		err := patiently(ctx, func() (err error) {
			stop, err = v.Watch(ctx, func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
			return err
		})
		if err != nil {
			yield(nil, err)
			return
		}
		defer stop()
		for {
			var page progress.Page
			err := patiently(ctx, func() (err error) {
				page, err = v.Read(ctx, after, pageSize)
				return err
			})
			if err == nil {
				if reason, gap := page.Gap(v.page.State.Epoch, after); gap {
					err = NewError(ErrCodeConflict, "events of the request are missing: "+reason)
				}
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
				after = e.Seq
			}
			if after == page.State.Last {
				if page.State.Ended() {
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
					yield(nil, ctx.Err())
					return
				}
			}
		}
	}
}

// patiently calls f until the store answers, or ctx ends.
func patiently(ctx context.Context, f func() error) error {
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		err := f()
		var public *Error
		if ctx.Err() != nil || !errors.As(err, &public) || public.Code != ErrCodeServiceUnavailable {
			return err
		}
		select {
		case <-time.After(jitter(pause)):
		case <-ctx.Done():
		}
	}
}
