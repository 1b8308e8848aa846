package sse

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

// pageSize is how many events of a request are read at once.
const pageSize = 64

// set is the requests that a call follows. It is of the call's goroutine, but for changed.
type set struct {
	c        *call
	followed []*followed
	changed  chan struct{} // of capacity 1: a log has something new
}

// followed is one of them.
type followed struct {
	set    *set
	id     string
	viewer *streamer.Viewer // nil: it can't be followed
	stop   func()
	cursor view.Cursor
	over   bool // nothing more is to be shown
	stalls int  // reads that failed in a row

	dirty atomic.Bool // the log has something new
}

func newSet(c *call) *set { return &set{c: c, changed: make(chan struct{}, 1)} }

// add follows a request. It is dirty at first.
func (s *set) add(id string, viewer *streamer.Viewer, cursor view.Cursor) (*followed, error) {
	f := &followed{set: s, id: id, viewer: viewer, cursor: cursor}
	f.dirty.Store(true)
	stop, err := viewer.Watch(s.c.context(), f.notice)
	if err != nil {
		return nil, err
	}
	f.stop = stop
	s.followed = append(s.followed, f)
	s.c.h.stats.attached.Add(1)
	return f, nil
}

// refuse notes a request that can't be followed, for its cursor.
func (s *set) refuse(at wire.Cursor) {
	s.followed = append(s.followed, &followed{
		set: s, id: at.ID, cursor: view.Cursor{Epoch: at.Epoch, After: at.After}, over: true,
	})
}

// notice is called when the log has changed.
func (f *followed) notice() {
	f.dirty.Store(true)
	f.set.wake()
}

// wake has the call look at what has changed.
func (s *set) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// attach follows what cursors name, and returns what a client is told first of each. What can't
// be followed is told as an error; it is the error of all if it leaves nothing to follow: one
// that may be gone the next time even where the other requests have ended, so that the client
// comes back.
func (s *set) attach(cursors []wire.Cursor) (told []*wire.Outbound, err error) {
	refused := 0
	for _, at := range cursors {
		m, failed := s.join(at)
		if failed == nil {
			told = append(told, m)
			continue
		}
		s.refuse(at)
		told = append(told, refusal(at.ID, failed))
		refused++
		if err == nil || transient(failed) {
			err = failed
		}
	}
	if refused == len(cursors) || s.done() && transient(err) {
		return nil, err
	}
	return told, nil
}

// join follows a request from where its log can be shown, and returns what is told of that.
func (s *set) join(at wire.Cursor) (*wire.Outbound, error) {
	viewer, err := s.c.h.router.Attach(s.c.context(), s.c.who, at.ID)
	if err != nil {
		return nil, err
	}
	page, err := view.Page(s.c.context(), viewer, at)
	if err != nil {
		return nil, err
	}
	m, from, gap := view.Attach(&page, at)
	f, err := s.add(at.ID, viewer, from)
	if err != nil {
		return nil, err
	}
	if gap {
		s.c.h.stats.gaps.Add(1)
	}
	f.over = !gap && page.State.Ended() && at.After >= page.State.Last
	return m, nil
}

// stop ends the following of all.
func (s *set) stop() {
	for _, f := range s.followed {
		if f.viewer != nil {
			f.stop()
			s.c.h.stats.attached.Add(-1)
		}
	}
	s.followed = nil
}

// done reports whether nothing more is to be shown of any.
func (s *set) done() bool {
	for _, f := range s.followed {
		if !f.over {
			return false
		}
	}
	return true
}

// wait waits until ready, which is asked again when something has changed, but no longer than d,
// and not when the client has gone or the handler is closing.
func (s *set) wait(d time.Duration, ready func() bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !ready() {
		select {
		case <-s.changed:
		case <-timer.C:
			return
		case <-s.c.context().Done():
			return
		case <-s.c.h.closed:
			return
		}
	}
}

// context is that of reads for the call.
func (c *call) context() context.Context { return c.r.Context() }

// end returns the request's end, which page says there is.
func (f *followed) end(page *progress.Page) (*progress.Event, error) {
	last, err := f.viewer.Read(f.set.c.context(), page.State.Last-1, 1)
	if err != nil {
		return nil, err
	}
	if len(last.Events) != 1 || !last.Events[0].Kind.Ends() {
		return nil, errNotFound // the log is another one by now
	}
	return last.Events[0], nil
}

// transient reports whether an error may be gone the next time.
func transient(err error) bool {
	var public *streamer.Error
	return errors.As(err, &public) && public.Code == streamer.ErrCodeServiceUnavailable
}
