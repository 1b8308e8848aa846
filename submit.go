package streamer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

// storeTimeout bounds what a submit, attach or cancel waits for log and queue.
const storeTimeout = 2 * time.Second

// Submit accepts req, or attaches to the request that has its id already. It returns when
// the request is stored and queued, or, for short work, has ended. ctx bounds only the wait;
// what was accepted goes on. The error is an *Error: VALIDATION_ERROR, INVALID_ACTION,
// FORBIDDEN, CONFLICT, PAYLOAD_TOO_LARGE, RATE_LIMITED, SERVICE_UNAVAILABLE, INTERNAL_ERROR,
// or, from Validate, any code.
// An error of short work is no error of Submit: it is the Receipt's End.
func (m *Mux) Submit(ctx context.Context, who Identity, req *Request) (*Receipt, error) {
	receipt, err := m.submit(ctx, who, req)
	if err != nil {
		m.stats.refused.Add(1)
		return nil, err
	}
	if receipt.Duplicate {
		m.stats.repeated.Add(1)
	}
	return receipt, nil
}

func (m *Mux) submit(ctx context.Context, who Identity, req *Request) (*Receipt, error) {
	if !m.life.enter() {
		return nil, errDraining
	}
	defer m.life.leave()

	if req.Action == "" {
		return nil, NewError(ErrCodeInvalidAction, "the action is missing")
	}
	r := m.route(req.Action)
	if r == nil {
		return nil, NewError(ErrCodeInvalidAction, fmt.Sprintf("no handler for action %q", clip(req.Action, maxAction)))
	}
	if !r.permitted(who) {
		return nil, NewError(ErrCodeForbidden, fmt.Sprintf("action %q needs permission %q", req.Action, r.settings.permission))
	}
	req, err := m.admit(who, req)
	if err != nil {
		return nil, err
	}
	s := &submission{Mux: m, route: r, key: m.key(who, req.ID), req: req, digest: digest(req), group: m.group(who)}
	if r.settings.estimate <= m.cfg.threshold && m.cfg.threshold > 0 {
		return s.answer(ctx)
	}
	if err := s.validate(); err != nil {
		// A request that exists is attached to, whatever Validate thinks of it by now.
		if receipt, found := s.find(ctx); found == nil {
			return receipt, nil
		}
		return nil, err
	}
	return s.accept(ctx)
}

// admit checks req against limits and identity and returns the copy that is stored.
func (m *Mux) admit(who Identity, req *Request) (*Request, error) {
	c := *req
	if c.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, m.internal("make a request id", err)
		}
		c.ID = id.String()
	}
	switch {
	case !wire.ValidID(c.ID):
		return nil, NewError(ErrCodeValidation, "the request id must be 1 to 128 of A-Z a-z 0-9 . _ ~ -")
	case len(c.Action) > maxAction || !utf8.ValidString(c.Action):
		return nil, NewError(ErrCodeValidation, fmt.Sprintf("the action must be 1 to %d bytes of UTF-8", maxAction))
	case len(c.Payload) > m.cfg.limits.Payload:
		return nil, NewError(ErrCodePayloadTooLarge, fmt.Sprintf("the payload has %d bytes, at most %d are taken", len(c.Payload), m.cfg.limits.Payload))
	case len(c.Payload) > 0 && !json.Valid(c.Payload):
		return nil, NewError(ErrCodeValidation, "the payload is not valid JSON")
	case c.Timeout < 0:
		return nil, NewError(ErrCodeValidation, "the timeout must not be negative")
	case len(c.Metadata) > wire.MaxMetadata:
		return nil, NewError(ErrCodeValidation, fmt.Sprintf("the metadata has %d entries, at most %d are taken", len(c.Metadata), wire.MaxMetadata))
	}
	c.CreatedAt = time.Now()
	c.Metadata = maps.Clone(req.Metadata)
	if c.Metadata == nil {
		c.Metadata = make(map[string]string, 2)
	}
	size := 0
	for k, v := range c.Metadata {
		size += len(k) + len(v)
		if strings.HasPrefix(k, "streamer.") {
			return nil, NewError(ErrCodeValidation, fmt.Sprintf("metadata %q: names that start with \"streamer.\" are reserved", clip(k, 64)))
		}
	}
	if size > wire.MaxMetadataBytes {
		return nil, NewError(ErrCodeValidation, fmt.Sprintf("the metadata has %d bytes, at most %d are taken", size, wire.MaxMetadataBytes))
	}
	for _, own := range [2]struct{ name, value string }{{"user_id", who.User}, {"tenant_id", who.Tenant}} {
		if claimed, ok := c.Metadata[own.name]; ok && claimed != own.value {
			return nil, NewError(ErrCodeValidation, fmt.Sprintf("metadata %q contradicts the identity of this client: leave it out", own.name))
		}
		if own.value != "" {
			c.Metadata[own.name] = own.value
		}
	}
	return &c, nil
}

// submission is a request on its way into its log.
type submission struct {
	*Mux
	route  *route
	key    progress.Key
	req    *Request
	digest string
	group  string
}

// validate asks the handler's Validate.
func (s *submission) validate() (err error) {
	if s.route.validate == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked("Validate", s.req, v)
		}
	}()
	err = s.route.validate(s.req)
	var public *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &public) && public != nil:
		return public
	default:
		s.log.Info("request refused by Validate", "request_id", s.req.ID, "action", s.req.Action, "error", err)
		return NewError(ErrCodeValidation, fmt.Sprintf("the payload is not valid for action %q", s.req.Action))
	}
}

// accept stores the request and enqueues it. The two belong together, so the end of ctx
// does not part them.
func (s *submission) accept(ctx context.Context) (*Receipt, error) {
	ctx, cancel := s.logContext(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if full := s.gate.check(s.key.Scope); full != nil {
		if receipt, err := s.find(ctx); !errors.Is(err, progress.ErrNotFound) {
			return receipt, err
		}
		return nil, s.storeError("enqueue a request", full)
	}
	e := &progress.Event{Seq: 1, Kind: progress.Accepted, Record: s.ids.next(), Time: s.req.CreatedAt, Request: s.stored()}
	rec := &progress.Record{ID: e.Record, Events: []*progress.Event{e}, State: s.state().Apply(e)}
	if receipt, err := s.append(ctx, rec); receipt != nil || err != nil {
		return receipt, err
	}
	if err := s.enqueue(ctx); refuses(err) {
		s.gate.shut(s.key.Scope, err)
		return s.withdraw(ctx, rec.State, err)
	} else if err != nil {
		return nil, s.storeError("enqueue a request", err)
	}
	s.stats.accepted.Add(1)
	return s.receipt(rec.State), nil
}

// append stores the first record of a log. It returns a receipt when the log exists.
func (s *submission) append(ctx context.Context, rec *progress.Record) (*Receipt, error) {
	err := s.cfg.log.Append(ctx, s.key, "", rec)
	var conflict *progress.ConflictError
	if errors.As(err, &conflict) {
		return s.repeated(ctx, conflict.State)
	}
	return nil, s.storeError("accept a request", err)
}

func (s *submission) state() progress.State {
	return progress.State{
		Epoch: rand.Text()[:12], Action: s.req.Action, Digest: s.digest, Group: s.group, Created: s.req.CreatedAt,
	}
}

func (s *submission) stored() *progress.Request {
	return &progress.Request{Action: s.req.Action, Payload: s.req.Payload, Metadata: s.req.Metadata, Timeout: s.req.Timeout}
}

func (s *submission) enqueue(ctx context.Context) error {
	ctx, cancel := s.queueContext(ctx, storeTimeout)
	defer cancel()
	t := queue.Ticket{Scope: s.key.Scope, ID: s.key.ID, Action: s.req.Action, Group: s.group, Nonce: s.ids.next()}
	return s.cfg.queue.Enqueue(ctx, t)
}

// find looks for the request in the log. The error wraps progress.ErrNotFound when it is new.
func (s *submission) find(ctx context.Context) (*Receipt, error) {
	ctx, cancel := s.logContext(ctx, storeTimeout)
	defer cancel()
	st, err := s.cfg.log.Tail(ctx, s.key)
	if errors.Is(err, progress.ErrNotFound) {
		return nil, err
	}
	if err != nil {
		return nil, s.storeError("look for a request", err)
	}
	return s.repeated(ctx, st)
}

// repeated returns the receipt of a request that exists in state st.
func (s *submission) repeated(ctx context.Context, st progress.State) (*Receipt, error) {
	if st.Digest != s.digest {
		return nil, NewError(ErrCodeConflict, fmt.Sprintf("request id %q was used before with another action or payload", s.key.ID))
	}
	receipt := s.receipt(st)
	receipt.Duplicate = true
	switch {
	case st.Phase == progress.Accepted:
		// Whoever accepted it may have died before it was enqueued. A ticket too many is dropped;
		// where there is no room for one, its own is there, or the sweep makes up for it.
		if err := s.enqueue(ctx); err != nil && !refuses(err) {
			return nil, s.storeError("enqueue a request", err)
		}
	case st.Ended() && st.Last == 1:
		page, err := s.cfg.log.Read(ctx, s.key, 0, 1)
		if err == nil && len(page.Events) == 0 {
			err = fmt.Errorf("%w: the end of short work is missing", progress.ErrUnavailable)
		}
		if err != nil {
			return nil, s.storeError("read a request", err)
		}
		receipt.End = page.Events[0]
	}
	return receipt, nil
}

func (s *submission) receipt(st progress.State) *Receipt {
	return &Receipt{ID: s.key.ID, State: st, Viewer: &Viewer{mux: s.Mux, key: s.key, page: progress.Page{State: st}}}
}

// Attach returns a viewer of a request. It returns NOT_FOUND, as an *Error, for a request
// that is unknown, expired or of another scope alike, and SERVICE_UNAVAILABLE.
func (m *Mux) Attach(ctx context.Context, who Identity, id string) (*Viewer, error) {
	v := &Viewer{mux: m, key: m.key(who, id)}
	read := m.cfg.log.Read
	if l, ok := m.cfg.log.(progress.Fresh); ok {
		read = l.ReadFresh
	}
	page, err := v.read(ctx, read, 0, 1)
	if err != nil {
		return nil, err
	}
	if r := m.route(page.State.Action); r != nil && !r.permitted(who) {
		return nil, errNotFound
	}
	page.Events = nil
	v.page = page
	return v, nil
}

var (
	errDraining = NewError(ErrCodeServiceUnavailable, "the service is shutting down: try again").WithRetry(time.Second)
	errNotFound = NewError(ErrCodeNotFound, "no such request")
)

// storeError turns an error of log or queue into what a client may see.
func (m *Mux) storeError(doing string, err error) error {
	var public *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &public):
		return public
	case errors.Is(err, progress.ErrNotFound):
		return errNotFound
	case errors.Is(err, progress.ErrTooLarge), errors.Is(err, queue.ErrTooLarge):
		return NewError(ErrCodePayloadTooLarge, "the request is larger than the store takes")
	case errors.Is(err, queue.ErrScopeFull):
		return NewError(ErrCodeRateLimited, "too many of your requests are waiting or running already: try again later").WithRetry(5 * time.Second)
	case errors.Is(err, progress.ErrFull), errors.Is(err, queue.ErrFull):
		m.log.Warn("no room", "doing", doing, "error", err)
		return NewError(ErrCodeServiceUnavailable, "too many requests are held already: try again later").WithRetry(5 * time.Second)
	default:
		if !errors.Is(err, context.Canceled) { // which is the caller's doing
			m.outage.warn(m.log, doing, err)
		}
		return NewError(ErrCodeServiceUnavailable, "the store can't be reached: try again").WithRetry(time.Second)
	}
}

// internal logs err and returns what the client sees of it.
func (m *Mux) internal(doing string, err error, attrs ...any) *Error {
	id := m.ids.next()
	m.log.Error("internal error", append([]any{"doing", doing, "error_id", id, "error", err}, attrs...)...)
	return NewError(ErrCodeInternalError, "internal error").WithDetail("error_id", id)
}

// digest tells a repeated submit from a conflicting one.
func digest(req *Request) string {
	h := sha256.New()
	h.Write([]byte(req.Action))
	h.Write([]byte{0})
	h.Write(req.Payload)
	var sum [sha256.Size]byte
	return base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0])[:16])
}

// group is whom a request counts for where work is shared fairly: the tenant, or, without
// one, the scope.
func (m *Mux) group(who Identity) string {
	if who.Tenant != "" {
		return who.Tenant
	}
	return m.cfg.scope(who)
}

// clip cuts s at n bytes, on a rune boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
