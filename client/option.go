package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"github.com/pay-theory/streamer/v2/internal/wire"
)

// Option sets something of a Client. Invalid values make New return an error.
type Option interface{ applyClient(*config) }

// CallOption sets something of one request.
type CallOption interface{ applyCall(*settings) }

// SharedOption is an Option, which sets the default for all requests, and a CallOption.
type SharedOption interface {
	Option
	CallOption
}

// AttachOption sets something of an Attach.
type AttachOption interface{ applyAttach(*cursor) }

// TokenSource returns the token that a connection authenticates with. It is asked before
// each connect and when the server says that a token expires; never twice at a time. It must
// return soon after ctx ends. When its error is a *streamer.Error with the code UNAUTHORIZED
// or FORBIDDEN the client gives up, after any other it asks again later.
type TokenSource func(ctx context.Context) (string, error)

// Limits bound what a Client holds. 0 means the default.
type Limits struct {
	Pending int // requests and cancels that have not come to their end; default 10,000
	Buffer  int // bytes of events of one request that no iterator has taken yet; default 1 MiB. 64 times as many for all requests
	Message int // bytes of a message from the server; default 16 MiB
}

// config is what options set, once for a client.
type config struct {
	token          TokenSource // nil: none
	http           *http.Client
	header         http.Header
	logger         *slog.Logger
	backoffMin     time.Duration
	backoffMax     time.Duration
	connectTimeout time.Duration
	stateFunc      func(State)
	limits         Limits
	defaults       settings
}

// settings are what call options set, per request.
type settings struct {
	id          string
	metadata    map[string]string
	timeout     time.Duration
	noRetry     bool
	cancelOnEnd bool
}

// cursor is a place in a log.
type cursor struct {
	epoch string
	after uint64
}

type option func(*config)

func (f option) applyClient(c *config) { f(c) }

type callOption func(*settings)

func (f callOption) applyCall(s *settings) { f(s) }

type sharedOption func(*settings)

func (f sharedOption) applyClient(c *config) { f(&c.defaults) }
func (f sharedOption) applyCall(s *settings) { f(s) }

type attachOption func(*cursor)

func (f attachOption) applyAttach(c *cursor) { f(c) }

// WithToken sets the token that connections authenticate with. It is sent as an
// "Authorization: Bearer" header and never logged. Default: none.
func WithToken(token string) Option {
	return WithTokenSource(func(context.Context) (string, error) { return token, nil })
}

// WithTokenSource sets where the token for each connection comes from. Over HTTP it is also
// asked when a call is answered 401, which is then repeated once.
func WithTokenSource(source TokenSource) Option {
	return option(func(c *config) { c.token = source })
}

// WithHTTPClient sets the HTTP client that connects, for its transport, proxy and TLS
// settings. Its Timeout is not used over HTTP, where it would cut streams. Default:
// http.DefaultClient.
func WithHTTPClient(hc *http.Client) Option { return option(func(c *config) { c.http = hc }) }

// WithHeader adds headers to each connect.
func WithHeader(header http.Header) Option {
	return option(func(c *config) { maps.Copy(c.header, header.Clone()) })
}

// WithLogger sets the logger. Tokens, payloads and results are never logged. Default:
// slog.Default().
func WithLogger(l *slog.Logger) Option { return option(func(c *config) { c.logger = l }) }

// WithBackoff sets how long to wait before connecting again: at random up to a bound, which
// is least after the first failure, doubles with each that follows, and stays at most. What
// the server asks for comes on top. A connection that lasted 5 s starts over. Both are more
// than 0; default: 0.5 s and 20 s.
func WithBackoff(least, most time.Duration) Option {
	return option(func(c *config) { c.backoffMin, c.backoffMax = least, most })
}

// WithConnectTimeout sets how long a connect may take, from asking for the token to the
// server's welcome. Over HTTP it is also how long the first bytes of an event stream may take,
// before polling is tried in its place. More than 0; default: 10 s.
func WithConnectTimeout(d time.Duration) Option {
	return option(func(c *config) { c.connectTimeout = d })
}

// WithStateFunc sets a function that is called with every new state of the connection, one
// call at a time and in order. While a call takes long the oldest of more than 16 waiting
// states are left out. It must not call Close.
func WithStateFunc(f func(State)) Option { return option(func(c *config) { c.stateFunc = f }) }

// WithLimits bounds what the client holds.
func WithLimits(l Limits) Option { return option(func(c *config) { c.limits = l }) }

// WithCancelOnContextEnd cancels a request when the context of a call that waits for it ends:
// of Request, RequestWithProgress, Call, Submit, and of the handle's Wait and Events. By
// default the end of a context only ends the waiting.
func WithCancelOnContextEnd() SharedOption {
	return sharedOption(func(s *settings) { s.cancelOnEnd = true })
}

// WithoutRetry makes a submit fail at once that the server refuses for now. By default a
// submit that is refused with SERVICE_UNAVAILABLE or RATE_LIMITED and a time to wait is
// repeated after that time or somewhat later, until the context ends.
func WithoutRetry() SharedOption { return sharedOption(func(s *settings) { s.noRetry = true }) }

// WithID names the request: [A-Za-z0-9._~-]{1,128}. Submitting the same id again with the
// same action and params attaches to the request that is there. Default: a new UUIDv7.
func WithID(id string) CallOption { return callOption(func(s *settings) { s.id = id }) }

// WithMetadata adds metadata to the request. The server sets "user_id" and "tenant_id" itself.
func WithMetadata(metadata map[string]string) CallOption {
	return callOption(func(s *settings) {
		if s.metadata == nil {
			s.metadata = make(map[string]string, len(metadata))
		}
		maps.Copy(s.metadata, metadata)
	})
}

// WithTimeout limits one attempt of the request at the server to less than the action's own
// limit; after it the request ends with TIMEOUT. Whole milliseconds, rounded up. It is no limit of the
// waiting: that is the context's.
func WithTimeout(d time.Duration) CallOption { return callOption(func(s *settings) { s.timeout = d }) }

const (
	maxEpoch = 64        // bytes
	maxSeq   = 1<<53 - 1 // that a server takes
	noEpoch  = "~"       // is that of no log
)

// After attaches behind the event with that epoch and seq, as a program stored them from the
// last Event it has dealt with. Where the log is another one, which is always so when no server
// gave that epoch, the events begin with a Gap.
func After(epoch string, seq uint64) AttachOption {
	if epoch != "" && (!wire.ValidID(epoch) || len(epoch) > maxEpoch) {
		epoch = noEpoch
	}
	return attachOption(func(c *cursor) { *c = cursor{epoch, min(seq, maxSeq)} })
}

// newConfig applies options and defaults, and says what makes no sense.
func newConfig(opts []Option) (config, error) {
	c := config{
		http:           http.DefaultClient,
		header:         make(http.Header),
		backoffMin:     500 * time.Millisecond,
		backoffMax:     20 * time.Second,
		connectTimeout: 10 * time.Second,
	}
	for _, o := range opts {
		o.applyClient(&c)
	}
	if c.logger == nil {
		c.logger = slog.Default()
	}
	l := &c.limits
	if l.Pending == 0 {
		l.Pending = 10_000
	}
	if l.Buffer == 0 {
		l.Buffer = 1 << 20
	}
	if l.Message == 0 {
		l.Message = 16 << 20
	}
	switch {
	case c.http == nil:
		return c, errors.New("WithHTTPClient(nil)")
	case c.backoffMin <= 0 || c.backoffMax < c.backoffMin:
		return c, fmt.Errorf("WithBackoff(%v, %v): must be more than 0, and the second not less than the first", c.backoffMin, c.backoffMax)
	case c.connectTimeout <= 0:
		return c, fmt.Errorf("WithConnectTimeout(%v): must be more than 0", c.connectTimeout)
	case min(l.Pending, l.Buffer, l.Message) < 0:
		return c, fmt.Errorf("WithLimits(%+v): must not be negative", *l)
	}
	return c, nil
}

// newSettings applies the options of one request.
func (c *config) newSettings(opts []CallOption) (settings, error) {
	s := c.defaults
	for _, o := range opts {
		o.applyCall(&s)
	}
	switch {
	case s.id != "" && !wire.ValidID(s.id):
		return s, fmt.Errorf("client: WithID(%q): an id is 1 to 128 of A-Z a-z 0-9 . _ ~ -", s.id)
	case s.timeout < 0:
		return s, fmt.Errorf("client: WithTimeout(%v): must not be negative", s.timeout)
	}
	return s, nil
}
