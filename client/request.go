package client

import (
	"context"
	"iter"

	streamer "github.com/pay-theory/streamer/v2"
)

// Request is a handle of a request at the server. All methods are safe for concurrent use.
//
// The client follows the request until its end, whether anybody waits for it or not, and
// connects again for that if it has to. Detach says that nobody wants it any more.
type Request struct {
	c        *Client
	flow     *flow
	settings settings
	after    uint64        // where iterations start
	start    int64         // the same as a position
	missed   *Event        // a gap before the start
	gone     chan struct{} // closed by Detach
	detached bool          // guarded by the client's mutex
}

// ID returns the request's id.
func (r *Request) ID() string { return r.flow.id }

// Wait waits for the end of the request and returns its result. Errors are as of
// Client.Request. It may be called many times.
func (r *Request) Wait(ctx context.Context) (*streamer.Result, error) { return r.wait(ctx, nil) }

func (r *Request) wait(ctx context.Context, onProgress func(Progress)) (*streamer.Result, error) {
	c, f := r.c, r.flow
	c.mu.Lock()
	defer c.mu.Unlock()
	f.waiters++
	c.review(f)
	defer func() {
		f.waiters--
		c.review(f)
	}()
	for shown := 0; ; {
		if p := f.progress; p != nil && onProgress != nil && shown < f.reports {
			shown = f.reports
			c.unlocked(func() { onProgress(*p) })
			continue
		}
		switch {
		case f.journal.end != nil:
			return f.journal.end.result(f.id)
		case f.err != nil:
			return nil, f.err
		case r.detached:
			return nil, ErrClosed
		case ctx.Err() != nil:
			if r.settings.cancelOnEnd {
				c.cancelUnheard(f.id)
			}
			return nil, c.waitError(f.id, ctx.Err())
		}
		var reported <-chan struct{}
		if onProgress != nil {
			reported = f.reported.wait()
		}
		c.unlocked(func() {
			select {
			case <-f.done:
			case <-r.gone:
			case <-reported:
			case <-ctx.Done():
			}
		})
	}
}

// unlocked calls f without the mutex, which is held before and after.
func (c *Client) unlocked(f func()) {
	c.mu.Unlock()
	defer c.mu.Lock()
	f()
}

// Events yields what happens to the request: its events from where the handle starts, each
// once and in order, and the newest progress in between. For a handle of Submit that is from
// event 1 on, for one of Attach after the given cursor. Iterations are independent of each
// other, and may start late: what is not held any more is read from the server again.
//
// The last pair has an error if the request failed or was canceled (with its last event), or
// if the iteration can't go on (with the zero Event): ctx ended, the handle was detached, the
// client closed or refused, the log expired. Without an error the iteration ends after
// Completed. To break off cancels nothing.
//
// A loop body that is slower than the events holds up nothing else. Beyond a limit (see
// WithLimits) events wait at the server.
func (r *Request) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		it := r.iterate()
		defer it.stop()
		for {
			e, err := it.next(ctx)
			if err == nil && e == nil {
				return
			}
			switch {
			case err != nil:
				yield(Event{}, err)
				return
			case e.Kind.Ends() && e.Error != nil:
				yield(*e, e.Error)
				return
			case !yield(*e, nil), e.Kind.Ends():
				return
			}
		}
	}
}

// Cancel asks to end the request, and returns when that is recorded or the request has ended.
// The handler may take some time to stop, and may even succeed; Wait tells. reason is for
// those who follow the request.
func (r *Request) Cancel(ctx context.Context, reason string) error {
	c, f := r.c, r.flow
	c.mu.Lock()
	switch {
	case f.journal.end != nil:
		c.mu.Unlock()
		return nil
	case c.closed:
		c.mu.Unlock()
		return ErrClosed
	}
	cl := c.newCancel(f.id, reason)
	c.enqueue(cl)
	c.want(ctx)
	c.mu.Unlock()

	select {
	case <-cl.done:
		return cl.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandon(cl)
	return c.waitError(f.id, ctx.Err())
}

// Detach ends the handle: the client forgets the request if there is no other handle of it.
// The request goes on at the server. What still waits on the handle gets ErrClosed.
func (r *Request) Detach() {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if !r.detached {
		r.detached = true
		close(r.gone)
		r.c.leave(r.flow)
	}
}
