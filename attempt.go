package streamer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

const (
	storeDelay   = time.Second      // … of a request whose log can't be read
	unknownDelay = 5 * time.Second  // … of an action without a handler here: other workers may have one
	unknownLimit = 10 * time.Minute // after it, counted from the first time, such a request fails

	maxRaces = 16 // times a ticket is looked at anew because its log moved on meanwhile
)

// attempt is one delivery of a ticket, and the run of the handler that may come of it.
type attempt struct {
	*Mux
	key      progress.Key
	ticket   queue.Ticket
	delivery queue.Delivery
	dead     string    // why the broker gave the ticket up; "" if it has not
	leased   time.Time // since when the lease lasts
	release  func()    // frees the slot and its places
	route    *route
}

// work does what a delivered ticket asks for. release frees what it takes here, once.
func (m *Mux) work(ctx context.Context, d queue.Delivery, release func()) {
	t := d.Ticket()
	a := &attempt{
		Mux: m, key: progress.Key{Scope: t.Scope, ID: t.ID}, ticket: t, delivery: d, leased: time.Now(), release: release,
	}
	if d, ok := d.(queue.Dead); ok {
		a.dead = d.Dead()
	}
	for range maxRaces {
		if a.look(ctx) {
			return
		}
	}
	a.retry(ctx, storeDelay)
	release()
}

// look reads the log and does what it says. It returns false when the log moved on meanwhile.
func (a *attempt) look(ctx context.Context) bool {
	page, err := a.read(ctx)
	st := &page.State
	early := a.early(st)
	switch {
	case errors.Is(err, progress.ErrNotFound):
		a.drop(ctx, "the request is gone")
	case err != nil:
		a.log.Warn("log can't be read", "request_id", a.key.ID, "action", a.ticket.Action, "error", err)
		a.retry(ctx, storeDelay)
	case st.Ended():
		a.drop(ctx, "the request has ended")
	case !a.wanted(&page):
		a.drop(ctx, "another ticket is for this request")
	case st.Phase == progress.Canceling:
		return a.finish(ctx, st, &progress.Event{Kind: progress.Canceled, Error: canceled(st.Reason)})
	case early > 0:
		// Its worker holds the lease still, so this is a second delivery by a queue that can't
		// help it. Clocks that differ only make this a little earlier or later.
		a.retry(ctx, early)
	case a.dead != "":
		a.log.Error("the queue has given a ticket up", "request_id", a.key.ID, "action", st.Action, "attempt", st.Attempt, "reason", a.dead)
		return a.finish(ctx, st, a.failed(lastError(st, NewError(ErrCodeProcessingFailed, "the request failed: it was delivered to workers too often"))))
	case a.route == nil && a.unknowns.wait(a.key) > unknownLimit:
		a.unknowns.forget(a.key)
		return a.finish(ctx, st, a.failed(NewError(ErrCodeInvalidAction, fmt.Sprintf("no worker has a handler for action %q", st.Action))))
	case a.route == nil:
		a.log.Warn("no handler here for a queued action", "request_id", a.key.ID, "action", st.Action)
		a.retry(ctx, unknownDelay)
	case len(page.Events) == 0 || page.Events[0].Request == nil:
		return a.finish(ctx, st, a.failed(a.internal("read a request", errors.New("its log has lost the request"), "request_id", a.key.ID)))
	case st.Used >= a.route.settings.attempts:
		return a.finish(ctx, st, a.failed(exhausted(st)))
	default:
		return a.begin(ctx, &page)
	}
	a.release()
	return true
}

// read returns the request's first event and its state.
func (a *attempt) read(ctx context.Context) (progress.Page, error) {
	ctx, cancel := a.logContext(ctx, appendTimeout)
	defer cancel()
	page, err := a.cfg.log.Read(ctx, a.key, 0, 1)
	if err == nil {
		a.route = a.Mux.route(page.State.Action)
	}
	return page, err
}

// wanted reports whether the ticket may work on the request. Of several tickets for a
// request the first to start an attempt is its ticket from then on. One from the sweep takes
// its place when the request is still as the sweep found it.
func (a *attempt) wanted(page *progress.Page) bool {
	st := &page.State
	switch {
	case a.ticket.Nonce == st.Nonce:
		return true
	case a.ticket.SeenLast > 0:
		return a.ticket.SeenLast == st.Last && a.ticket.SeenBeat == page.Beat
	default:
		return st.Phase == progress.Accepted
	}
}

// early returns how long the lease of the attempt that the ticket has started lasts at least:
// more than 0 only for a second delivery of a ticket that is being worked on.
func (a *attempt) early(st *progress.State) time.Duration {
	if age := time.Since(st.Started); st.Phase == progress.Started && a.ticket.Nonce == st.Nonce && age >= 0 {
		return a.cfg.queue.Lease() - age
	}
	return 0
}

// failed is an end that no handler has a part in.
func (a *attempt) failed(err *Error) *progress.Event {
	return &progress.Event{Kind: progress.Failed, Error: a.failure(&Request{ID: a.key.ID, Action: a.ticket.Action}, err)}
}

// exhausted is the error of a request whose attempts are used up.
func exhausted(st *progress.State) *Error {
	return lastError(st, NewError(ErrCodeProcessingFailed, fmt.Sprintf("the request failed: %d attempts were lost or failed", st.Used)))
}

// lastError adds what is known of a request's attempts.
func lastError(st *progress.State, err *Error) *Error {
	err = err.WithDetail("attempts", st.Used)
	if st.Error != nil {
		err = err.WithDetail("last_error", NewError(st.Error.Code, st.Error.Message))
	}
	return err
}

// finish ends a request that no handler runs for, and drops the ticket. It returns false
// when the log moved on meanwhile.
func (a *attempt) finish(ctx context.Context, st *progress.State, e *progress.Event) bool {
	e.Seq, e.Record, e.Attempt, e.Time = st.Last+1, a.ids.next(), st.Attempt, time.Now()
	rec := &progress.Record{ID: e.Record, Events: []*progress.Event{e}, State: st.Apply(e), Retention: a.settings(st.Action).retention}
	bounded, cancel := a.logContext(ctx, appendTimeout)
	defer cancel()
	err := a.cfg.log.Append(bounded, a.key, st.Record, rec)
	var conflict *progress.ConflictError
	switch {
	case errors.As(err, &conflict), errors.Is(err, progress.ErrNotFound):
		return false
	case err != nil:
		a.log.Warn("end can't be stored", "request_id", a.key.ID, "action", st.Action, "error", err)
		a.retry(ctx, storeDelay)
	default:
		a.stats.ended(e.Kind)
		a.ack(ctx)
	}
	a.release()
	return true
}

// begin starts an attempt and sees it through. It returns false when the log moved on
// meanwhile.
func (a *attempt) begin(ctx context.Context, page *progress.Page) bool {
	st := page.State
	lost := st.Phase == progress.Started
	rec := a.startRecord(st, lost)
	r := &run{attempt: a, changed: make(chan struct{}, 1), req: request(a.key.ID, page)}
	r.writer = newWriter(ctx, a.Mux, a.key, rec.State, r.notice)
	if !r.start(ctx, &st, rec) {
		r.writer.close()
		return false
	}
	r.supervise(ctx)
	return true
}

// startRecord says that an attempt starts, and before that, that the last one was lost.
func (a *attempt) startRecord(st progress.State, lost bool) *progress.Record {
	rec := &progress.Record{ID: a.ids.next()}
	now := time.Now()
	add := func(e *progress.Event) {
		e.Seq, e.Record, e.Time = st.Last+1, rec.ID, now
		st = st.Apply(e)
		rec.Events = append(rec.Events, e)
	}
	if lost {
		add(&progress.Event{Kind: progress.Retrying, Attempt: st.Attempt, Reason: progress.ReasonLost})
	}
	add(&progress.Event{Kind: progress.Started, Attempt: st.Attempt + 1, Index: st.Resume})
	st.Nonce = a.ticket.Nonce
	rec.State = st
	return rec
}

// request returns the request as handlers see it.
func request(id string, page *progress.Page) *Request {
	stored := page.Events[0].Request
	return &Request{
		ID: id, Action: stored.Action, Payload: stored.Payload, Metadata: maps.Clone(stored.Metadata),
		CreatedAt: page.State.Created, Timeout: stored.Timeout,
	}
}

// drop removes a ticket that needs no work.
func (a *attempt) drop(ctx context.Context, why string) {
	a.stats.dropped.Add(1)
	a.log.Debug("ticket dropped", "request_id", a.key.ID, "action", a.ticket.Action, "reason", why)
	a.ack(ctx)
}

// ack removes the ticket. When that fails it comes back, and is dropped then.
func (a *attempt) ack(ctx context.Context) {
	ctx, cancel := a.queueContext(ctx, appendTimeout)
	defer cancel()
	if err := a.delivery.Ack(ctx); err != nil {
		a.log.Warn("ticket can't be removed", "request_id", a.key.ID, "action", a.ticket.Action, "error", err)
	}
}

// retry hands the ticket back.
func (a *attempt) retry(ctx context.Context, delay time.Duration) { a.handBack(ctx, a.delivery, delay) }
