package streamer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

const (
	gateTime  = 100 * time.Millisecond
	maxGates  = 1024             // scopes that are remembered at a time
	withdrawn = time.Millisecond // how long the log of a request stays for which the queue had no room
)

// gate remembers for a moment that the queue had no room: new requests are refused then
// without a write to the log.
type gate struct {
	mu     sync.Mutex
	whole  time.Time            // until when nothing is let through
	scopes map[string]time.Time // … of a scope
}

// shut takes note of an error of Enqueue, if it says that there was no room.
func (g *gate) shut(scope string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	switch {
	case errors.Is(err, queue.ErrFull):
		g.whole = now.Add(gateTime)
		return
	case !errors.Is(err, queue.ErrScopeFull):
		return
	}
	if len(g.scopes) >= maxGates {
		for scope, until := range g.scopes {
			if until.Before(now) {
				delete(g.scopes, scope)
			}
		}
	}
	if g.scopes == nil {
		g.scopes = make(map[string]time.Time)
	}
	if len(g.scopes) < maxGates {
		g.scopes[scope] = now.Add(gateTime)
	}
}

// check returns why a new request would be refused, or nil.
func (g *gate) check(scope string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	switch {
	case now.Before(g.whole):
		return queue.ErrFull
	case now.Before(g.scopes[scope]):
		return queue.ErrScopeFull
	default:
		return nil
	}
}

// refuses reports whether a queue has refused a ticket, and is sure to have.
func refuses(err error) bool {
	return errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrScopeFull) || errors.Is(err, queue.ErrTooLarge)
}

// withdraw ends a request that was stored and has found no room in the queue: nobody was told
// that it is accepted, and its id is to be free again. It returns a receipt when the request
// goes on, as somebody who submitted it too had more luck.
func (s *submission) withdraw(ctx context.Context, st progress.State, cause error) (*Receipt, error) {
	var public *Error
	errors.As(s.storeError("enqueue a request", cause), &public)
	e := &progress.Event{Seq: st.Last + 1, Kind: progress.Failed, Record: s.ids.next(), Time: time.Now(), Error: s.failure(s.req, public)}
	rec := &progress.Record{ID: e.Record, Events: []*progress.Event{e}, State: st.Apply(e), Retention: withdrawn}
	err := s.cfg.log.Append(ctx, s.key, st.Record, rec)
	var conflict *progress.ConflictError
	if errors.As(err, &conflict) {
		return s.repeated(ctx, conflict.State)
	}
	if err != nil {
		s.log.Warn("refused request can't be withdrawn, it may be worked on later", "request_id", s.key.ID, "action", s.req.Action, "error", err)
	}
	return nil, public
}
