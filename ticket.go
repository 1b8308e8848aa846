package streamer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

const (
	ticketLifetime = 30 * time.Second
	ticketScope    = "streamer.tickets"

	// The note that a ticket was used has to outlive the ticket.
	ticketUsed = 2 * ticketLifetime
)

var errNoTicket = NewError(ErrCodeUnauthorized, "the ticket is not valid: it was used, or is older than "+ticketLifetime.String()+"; get a new one")

// IssueTicket returns a secret that stands for who until RedeemTicket is called with it, or
// for the time returned. It is for transports, whose clients can't always send a token; it has
// nothing to do with the tickets of the queue. The log keeps it, so that every router on the
// same log can redeem it. The error is an *Error: SERVICE_UNAVAILABLE.
func (m *Mux) IssueTicket(ctx context.Context, who Identity) (ticket string, lifetime time.Duration, err error) {
	if !who.Expires.IsZero() {
		lifetime = time.Until(who.Expires)
	}
	if lifetime <= 0 || lifetime > ticketLifetime {
		lifetime = ticketLifetime
	}
	data, err := json.Marshal(who)
	if err != nil {
		return "", 0, m.internal("issue a ticket", err)
	}
	ticket = rand.Text()
	err = m.note(ctx, ticketKey(ticket, ""), data, lifetime)
	return ticket, lifetime, m.storeError("issue a ticket", err)
}

// RedeemTicket returns the identity that a ticket was issued for. It does so once, whichever
// routers are asked. Errors are *Error: UNAUTHORIZED when the ticket was used, is too old, or
// was never issued, and SERVICE_UNAVAILABLE, after which the ticket may be used up.
func (m *Mux) RedeemTicket(ctx context.Context, ticket string) (Identity, error) {
	page, err := m.noted(ctx, ticketKey(ticket, ""))
	if err != nil {
		return Identity{}, err
	}
	var who Identity
	// No request has a log without an action, so whatever scopes there are, no client can have
	// written this one.
	if page.State.Action != "" || len(page.Events) != 1 || json.Unmarshal(page.Events[0].Data, &who) != nil {
		return Identity{}, errNoTicket
	}
	// Of all who note this first, the log lets one.
	err = m.note(ctx, ticketKey(ticket, ".used"), nil, ticketUsed)
	if _, used := errors.AsType[*progress.ConflictError](err); used {
		return Identity{}, errNoTicket
	}
	return who, m.storeError("redeem a ticket", err)
}

// ticketKey names the log of a ticket without telling the ticket to who reads the store.
func ticketKey(ticket, suffix string) progress.Key {
	sum := sha256.Sum256([]byte(ticket))
	return progress.Key{Scope: ticketScope, ID: base64.RawURLEncoding.EncodeToString(sum[:]) + suffix}
}

// note stores a log of one event, which is its end.
func (m *Mux) note(ctx context.Context, key progress.Key, data json.RawMessage, retention time.Duration) error {
	ctx, cancel := m.logContext(ctx, storeTimeout)
	defer cancel()
	e := &progress.Event{Seq: 1, Kind: progress.Completed, Record: m.ids.next(), Time: time.Now(), Short: true, Data: data}
	rec := &progress.Record{ID: e.Record, Events: []*progress.Event{e}, Retention: retention}
	rec.State = progress.State{Epoch: e.Record, Created: e.Time}.Apply(e)
	return m.cfg.log.Append(ctx, key, "", rec)
}

// noted reads what note stored.
func (m *Mux) noted(ctx context.Context, key progress.Key) (progress.Page, error) {
	ctx, cancel := m.logContext(ctx, storeTimeout)
	defer cancel()
	page, err := m.cfg.log.Read(ctx, key, 0, 1)
	if errors.Is(err, progress.ErrNotFound) {
		return progress.Page{}, errNoTicket
	}
	if err != nil {
		return progress.Page{}, m.storeError("look for a ticket", err)
	}
	return page, nil
}
