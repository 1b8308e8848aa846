package fault

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Log is a progress.Log that passes calls on to another, with faults. What the other can do
// beyond progress.Log is hidden.
type Log struct {
	// Of all calls.
	Unavailable Fault // nothing is done; progress.ErrUnavailable
	AnswerLost  Fault // all is done; progress.ErrUnavailable nevertheless. Watch: never
	TimedOut    Fault // all is done or nothing, by chance; context.DeadlineExceeded
	Delay       Fault // the call begins late, or its answer comes late

	// Of Append.
	DoneLate Fault // progress.ErrUnavailable at once, and the append is tried after a while

	// Of Read.
	ShortPage Fault // fewer events than asked for and there are, at least one

	// Of each notification.
	NotifiedTwice Fault // now, and once more after a while
	NotifiedLate  Fault // not now, but after a while

	inner   progress.Log
	longest time.Duration
	dice    *dice
}

var _ progress.Log = (*Log)(nil)

// NewLog returns a log without faults until their rates are set. What happens "late" or
// "after a while" does so within longest.
func NewLog(inner progress.Log, seed uint64, longest time.Duration) *Log {
	return &Log{inner: inner, longest: longest, dice: newDice(seed)}
}

// Append appends rec, or not, or later.
func (l *Log) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	if l.dice.hit(&l.DoneLate) {
		ctx := context.WithoutCancel(ctx)
		time.AfterFunc(l.dice.upTo(l.longest), func() {
			// Whether it was done is for the log to tell, as after a crash.
			_ = l.inner.Append(ctx, key, prev, rec)
		})
		return logAnswerLost()
	}
	return l.call(ctx, func() error { return l.inner.Append(ctx, key, prev, rec) })
}

// SetProgress sets the progress, or not.
func (l *Log) SetProgress(ctx context.Context, key progress.Key, p *progress.Progress) error {
	return l.call(ctx, func() error { return l.inner.SetProgress(ctx, key, p) })
}

// Tail returns the inner log's state.
func (l *Log) Tail(ctx context.Context, key progress.Key) (state progress.State, err error) {
	err = l.call(ctx, func() (err error) {
		state, err = l.inner.Tail(ctx, key)
		return err
	})
	if err != nil {
		return progress.State{}, err
	}
	return state, nil
}

// Read returns a page of the inner log, or a shorter one.
func (l *Log) Read(ctx context.Context, key progress.Key, after uint64, limit int) (page progress.Page, err error) {
	if limit > 1 && l.dice.hit(&l.ShortPage) {
		limit = 1 + l.dice.below(min(limit, 100)-1)
	}
	err = l.call(ctx, func() (err error) {
		page, err = l.inner.Read(ctx, key, after, limit)
		return err
	})
	if err != nil {
		return progress.Page{}, err
	}
	return page, nil
}

// Watch watches the inner log; some calls come late, and some twice.
func (l *Log) Watch(ctx context.Context, key progress.Key, notify func(record string)) (func(), error) {
	if err := l.before(ctx); err != nil {
		return nil, err
	}
	var stopped atomic.Bool
	later := func(record string) {
		time.AfterFunc(l.dice.upTo(l.longest), func() {
			if !stopped.Load() {
				notify(record)
			}
		})
	}
	stop, err := l.inner.Watch(ctx, key, func(record string) {
		if l.dice.hit(&l.NotifiedLate) {
			later(record)
			return
		}
		if l.dice.hit(&l.NotifiedTwice) {
			later(record)
		}
		notify(record)
	})
	if err != nil {
		return nil, err
	}
	return func() {
		stopped.Store(true)
		stop()
	}, nil
}

// Open yields what the inner log does, but may break off anywhere.
func (l *Log) Open(ctx context.Context, idle time.Duration) iter.Seq2[progress.Pending, error] {
	return func(yield func(progress.Pending, error) bool) {
		for p, err := range l.inner.Open(ctx, idle) {
			if err == nil {
				err = l.before(ctx)
			}
			if err != nil {
				yield(progress.Pending{}, err)
				return
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// call does a call with the faults that any call can have.
func (l *Log) call(ctx context.Context, do func() error) error {
	if err := l.before(ctx); err != nil {
		return err
	}
	if l.dice.hit(&l.TimedOut) {
		if l.dice.below(2) == 0 {
			_ = do() // nobody hears the answer
		}
		return fmt.Errorf("fault: timed out: %w", context.DeadlineExceeded)
	}
	if err := do(); err != nil {
		return err
	}
	if l.dice.hit(&l.AnswerLost) {
		return logAnswerLost()
	}
	return l.dice.pause(ctx, &l.Delay, l.longest)
}

func (l *Log) before(ctx context.Context) error {
	if err := l.dice.pause(ctx, &l.Delay, l.longest); err != nil {
		return err
	}
	if l.dice.hit(&l.Unavailable) {
		return fmt.Errorf("fault: nothing was done: %w", progress.ErrUnavailable)
	}
	return nil
}

func logAnswerLost() error {
	return fmt.Errorf("fault: the answer was lost: %w", progress.ErrUnavailable)
}

// below returns a number from 0 to n-1.
func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}
