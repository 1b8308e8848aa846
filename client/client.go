package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
)

const (
	submitPause  = 100 * time.Millisecond // at least, before a submit is repeated that was refused for now
	submitPauses = 5                      // doublings of submitPause
)

// ErrClosed is what calls return after Close of the client, or Detach of the handle.
var ErrClosed = errors.New("client: closed")

// Client calls one streamer service. All methods are safe for concurrent use.
//
// It has no goroutine before the first call, and one when a connection is open.
type Client struct {
	url    string
	calls  bool         // over HTTP
	polls  atomic.Int64 // until when (Unix nanoseconds) event streams are known to be of no use
	cfg    config
	asking chan struct{} // has a value while the token source is asked
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	life   context.Context // until Close; nil before the first use
	stop   context.CancelFunc

	count   uint64 // of flows and calls, for their order
	flows   map[string]*flow
	waiting [kinds][]*call   // in order
	sent    map[string]*call // by ref
	cancels int              // calls of that kind
	budget  budget

	link      *link // in charge of the connection; nil: nothing needs one
	conn      *conn // in use; nil: none
	moving    bool  // to another connection
	failures  int   // in a row
	denied    bool  // the newest token was refused
	notBefore time.Time
	refused   *streamer.Error // why connecting was given up
	lastErr   error           // of the connection

	state   State
	states  []State // that the application's function has not seen
	telling bool
}

// New returns a client of the service at a URL. It does no I/O.
//
// A URL ws://… or wss://… is that of a WebSocket. One http://… or https://… is where the HTTP
// handler is mounted, so that /requests and /events are below it: requests are submitted and
// canceled by calls, and one event stream shows all of them; where something on the way holds
// the stream back it is polling. The connection is [Open] when the server has answered the
// first of them. Both behave the same.
func New(rawURL string, opts ...Option) (*Client, error) {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return nil, errors.New("client: New: the URL can't be parsed")
	case u.Scheme != "ws" && u.Scheme != "wss" && u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("client: New: URL scheme %q: must be ws, wss, http or https", u.Scheme)
	case u.Host == "":
		return nil, errors.New("client: New: the URL has no host")
	case u.Fragment != "":
		return nil, errors.New("client: New: the URL must not have a fragment")
	case u.RawQuery != "" && strings.HasPrefix(u.Scheme, "http"):
		return nil, errors.New("client: New: an http or https URL must not have a query")
	}
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("client: New: %w", err)
	}
	return &Client{
		url:    rawURL,
		calls:  strings.HasPrefix(u.Scheme, "http"),
		cfg:    cfg,
		asking: make(chan struct{}, 1),
		flows:  make(map[string]*flow),
		sent:   make(map[string]*call),
		budget: budget{limit: 64 * cfg.limits.Buffer},
		state:  State{Phase: Idle},
	}, nil
}

// Close ends the connection and everything that waits, with ErrClosed, and returns when
// nothing of the client runs any more, within a few seconds. Requests go on at the server.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		old := c.conn
		if old != nil {
			c.orphan(old)
		}
		c.fail(ErrClosed)
		if old != nil {
			old.close("done")
		}
		c.setState(State{Phase: Closed, Err: ErrClosed})
		if c.stop != nil {
			c.stop()
		}
	}
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

// State returns how the connection stands.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Request submits a request and waits for its end. params is encoded as JSON; nil sends none,
// and a json.RawMessage is sent as it is. Data of the result is a json.RawMessage, byte for
// byte what the server sent; [Call] decodes it. The error is a *streamer.Error when the server
// refused the request or it failed, and wraps ctx.Err() when ctx ended first.
func (c *Client) Request(ctx context.Context, action string, params any, opts ...CallOption) (*streamer.Result, error) {
	return c.RequestWithProgress(ctx, action, params, nil, opts...)
}

// RequestWithProgress is Request, and calls onProgress with the newest progress whenever it
// changes, in the goroutine of the caller and before it returns. Progress that comes while
// onProgress runs is merged; the last one before the end is always shown.
func (c *Client) RequestWithProgress(ctx context.Context, action string, params any, onProgress func(Progress), opts ...CallOption) (*streamer.Result, error) {
	r, err := c.submit(ctx, action, params, opts, -1)
	if err != nil {
		return nil, err
	}
	defer r.Detach()
	return r.wait(ctx, onProgress)
}

// Call is Request, and decodes the result's data into a value of type Out. A result without
// success is an error with the code PROCESSING_FAILED.
func Call[Out any](ctx context.Context, c *Client, action string, params any, opts ...CallOption) (Out, error) {
	var out Out
	result, err := c.Request(ctx, action, params, opts...)
	if err != nil {
		return out, err
	}
	if !result.Success {
		return out, streamer.NewError(streamer.ErrCodeProcessingFailed, "the result of "+action+" says that it did not succeed")
	}
	if data, ok := result.Data.(json.RawMessage); ok {
		if err := json.Unmarshal(data, &out); err != nil {
			return out, fmt.Errorf("client: result of %s: %w", action, err)
		}
	}
	return out, nil
}

// Submit submits a request and returns when the server has stored it, or, for short work,
// when it has ended. The end of ctx does not tell which of the two happened; [WithID]
// allows to find out. Errors are as of Request.
func (c *Client) Submit(ctx context.Context, action string, params any, opts ...CallOption) (*Request, error) {
	return c.submit(ctx, action, params, opts, c.cfg.limits.Buffer)
}

// Attach returns a handle of a request that was submitted before, here or elsewhere by the
// same user. The error is a *streamer.Error with the code NOT_FOUND when there is none, which
// may be because its retention is over.
func (c *Client) Attach(ctx context.Context, id string, opts ...AttachOption) (*Request, error) {
	if !wire.ValidID(id) {
		return nil, fmt.Errorf("client: Attach(%q): an id is 1 to 128 of A-Z a-z 0-9 . _ ~ -", id)
	}
	var at cursor
	for _, o := range opts {
		o.applyAttach(&at)
	}
	return c.attach(ctx, id, at)
}

func (c *Client) submit(ctx context.Context, action string, params any, opts []CallOption, limit int) (*Request, error) {
	s, err := c.cfg.newSettings(opts)
	if err != nil {
		return nil, err
	}
	payload, err := encode(params)
	if err != nil {
		return nil, fmt.Errorf("client: params of %s: %w", action, err)
	}
	if s.id == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
		s.id = id.String()
	}
	m := wire.Inbound{
		Type:      wire.TypeRequest,
		ID:        s.id,
		Action:    action,
		Payload:   payload,
		Metadata:  s.metadata,
		TimeoutMS: int64((s.timeout + time.Millisecond - 1) / time.Millisecond),
	}
	for n := 0; ; n++ {
		r, err := c.try(ctx, &m, s, limit)
		refused, ok := errors.AsType[*streamer.Error](err)
		if !ok || s.noRetry || refused.RetryAfter <= 0 ||
			refused.Code != streamer.ErrCodeServiceUnavailable && refused.Code != streamer.ErrCodeRateLimited {
			return r, err
		}
		delay := min(max(refused.RetryAfter, submitPause<<min(n, submitPauses)), maxFloor)
		if err := pause(ctx, delay+rand.N(delay)); err != nil {
			return nil, fmt.Errorf("client: request %s: %w (%w)", s.id, err, refused)
		}
	}
}

// try submits a request once.
func (c *Client) try(ctx context.Context, m *wire.Inbound, s settings, limit int) (*Request, error) {
	c.mu.Lock()
	f, _, err := c.enter(ctx, m.ID, cursor{}, limit)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	cl := c.newCall(submit, m.ID)
	cl.flow = f
	m.Ref = cl.ref
	cl.message = m.Append(nil)
	c.enqueue(cl)
	c.mu.Unlock()

	select {
	case <-cl.done:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-cl.done:
		if cl.err == nil {
			return &Request{c: c, flow: f, settings: s, start: f.place(0), gone: make(chan struct{})}, nil
		}
		c.leave(f)
		return nil, cl.err
	default:
	}
	sent := cl.on != nil
	err = c.waitError(m.ID, ctx.Err())
	c.abandon(cl)
	if sent && s.cancelOnEnd {
		c.cancelUnheard(m.ID)
	}
	c.leave(f)
	return nil, err
}

// attach is Attach with a cursor.
func (c *Client) attach(ctx context.Context, id string, at cursor) (*Request, error) {
	c.mu.Lock()
	f, fresh, err := c.enter(ctx, id, at, c.cfg.limits.Buffer)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	if fresh {
		f.known = true
		c.ask(f)
	}
	c.mu.Unlock()

	select {
	case <-f.ready:
	case <-f.done:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-f.ready:
	default:
		err := f.err
		if err == nil {
			err = c.waitError(id, ctx.Err())
		}
		c.leave(f)
		return nil, err
	}
	if f.err != nil {
		return nil, f.err
	}
	r := &Request{c: c, flow: f, settings: c.cfg.defaults, after: at.after, gone: make(chan struct{})}
	switch {
	case fresh:
		r.start = int64(at.after) + 1
	case at.epoch == "" || at.epoch == f.epoch:
		r.start = f.place(at.after)
	default: // a cursor of another log
		r.start = f.place(0)
		r.missed = gap(f.epoch, "recreated", 1, f.attempt)
	}
	return r, nil
}

// enter joins a flow and has it connected. It is called with the mutex held.
func (c *Client) enter(ctx context.Context, id string, at cursor, limit int) (*flow, bool, error) {
	switch {
	case c.closed:
		return nil, false, ErrClosed
	case ctx.Err() != nil:
		return nil, false, fmt.Errorf("client: request %s: %w", id, ctx.Err())
	case c.refused != nil && time.Now().Before(c.notBefore):
		return nil, false, c.refused
	}
	f, fresh, err := c.join(id, at, limit)
	if err == nil {
		c.want(ctx)
	}
	return f, fresh, err
}

// cancelUnheard cancels a request for a caller that does not wait for the answer. It is
// called with the mutex held.
func (c *Client) cancelUnheard(id string) {
	if c.closed || c.pending() >= 2*c.cfg.limits.Pending {
		return
	}
	c.enqueue(c.newCancel(id, "the caller's context ended"))
}

func (c *Client) newCancel(id, reason string) *call {
	cl := c.newCall(cancel, id)
	cl.message = (&wire.Inbound{Type: wire.TypeCancel, ID: id, Reason: reason, Ref: cl.ref}).Append(nil)
	return cl
}

// waitError is the error of a call whose context ended first. It is called with the mutex held.
func (c *Client) waitError(id string, err error) error {
	if (c.conn == nil || c.conn.welcomed.IsZero()) && c.lastErr != nil {
		return fmt.Errorf("client: request %s: %w (not connected: %v)", id, err, c.lastErr)
	}
	return fmt.Errorf("client: request %s: %w", id, err)
}

// encode returns params as JSON.
func encode(params any) (json.RawMessage, error) {
	switch p := params.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		if len(p) > 0 && !json.Valid(p) {
			return nil, errors.New("not valid JSON")
		}
		return p, nil
	default:
		return json.Marshal(p)
	}
}

// pause waits for d or the end of ctx, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
