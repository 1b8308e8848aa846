package streamer

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// Option sets something of a router. Invalid values make NewRouter panic.
type Option interface{ applyRouter(*config) }

// HandleOption sets something of one action. Invalid values make Handle panic.
type HandleOption interface{ applyAction(*settings) }

// SharedOption is an Option, which sets the default for all actions, and a HandleOption.
type SharedOption interface {
	Option
	HandleOption
}

// Limits bound what one request may hold. 0 means the default.
type Limits struct {
	Payload     int // bytes of a payload; default 1 MiB
	Result      int // bytes of a result, as JSON; default 1 MiB
	Output      int // bytes of one output, as JSON; default 256 KiB
	Outputs     int // outputs of a request; default 100,000
	OutputBytes int // bytes of all outputs of an attempt; default 64 MiB
}

// config is what options set, once for a router.
type config struct {
	queue       queue.Queue
	log         progress.Log
	own         io.Closer // log, when it is this router's own
	logger      *slog.Logger
	scope       func(Identity) string
	threshold   time.Duration
	concurrency int
	perTenant   int
	grace       time.Duration
	limits      Limits
	mixed       bool
	fallback    *fallback
	defaults    settings
}

// settings are what handle options set, per action.
type settings struct {
	attempts    int
	backoff     func(attempt int) time.Duration
	timeout     time.Duration
	concurrency int
	retention   time.Duration
	permission  string
	estimate    time.Duration
}

type routerOption func(*config)

func (f routerOption) applyRouter(c *config) { f(c) }

type handleOption func(*settings)

func (f handleOption) applyAction(s *settings) { f(s) }

type sharedOption func(*settings)

func (f sharedOption) applyRouter(c *config)   { f(&c.defaults) }
func (f sharedOption) applyAction(s *settings) { f(s) }

// WithQueue sets the queue that brings requests to workers. Default: a memqueue.Queue of
// this router's own.
func WithQueue(q queue.Queue) Option { return routerOption(func(c *config) { c.queue = q }) }

// WithLog sets where requests' logs are stored. Default: a memlog.Log of this router's own.
func WithLog(l progress.Log) Option { return routerOption(func(c *config) { c.log = l }) }

// WithLocalLog allows a queue that other processes share together with a log that they
// don't, which Run refuses otherwise: their workers would find tickets without a log. Use it
// where this process is the queue's only user.
func WithLocalLog() Option { return routerOption(func(c *config) { c.mixed = true }) }

// WithLogger sets the logger. Payloads, results and tokens are never logged. Default:
// slog.Default().
func WithLogger(l *slog.Logger) Option { return routerOption(func(c *config) { c.logger = l }) }

// WithScope sets the name space and fence of request ids: identities with the same scope see,
// follow and cancel each other's requests, others can't tell that they exist. Default: tenant
// and user together. func(id Identity) string { return id.Tenant } shares within a tenant.
func WithScope(scope func(Identity) string) Option {
	return routerOption(func(c *config) { c.scope = scope })
}

// WithThreshold sets up to which estimate a handler is short work, which runs within the
// submit and is answered at once. 0 queues everything. Default: 5 s.
func WithThreshold(d time.Duration) Option { return routerOption(func(c *config) { c.threshold = d }) }

// WithCancelGrace sets how long a handler has to return after its request was canceled or its
// time limit was reached, before the request ends without it. More than 0; default: 10 s.
func WithCancelGrace(d time.Duration) Option { return routerOption(func(c *config) { c.grace = d }) }

// WithFallback sets the handler of actions that have none of their own. Default: they are
// refused with INVALID_ACTION.
func WithFallback(h Handler, opts ...HandleOption) Option {
	return routerOption(func(c *config) { c.fallback = &fallback{h, opts} })
}

type fallback struct {
	handler Handler
	opts    []HandleOption
}

// WithLimits bounds what one request may hold.
func WithLimits(l Limits) Option { return routerOption(func(c *config) { c.limits = l }) }

// WithConcurrency sets how many handlers Run runs at a time: on a router in all, on an action
// of that action. At least 1; default: 64 in all, and no separate limit for an action.
func WithConcurrency(n int) SharedOption { return concurrency(n) }

type concurrency int

func (n concurrency) applyRouter(c *config)   { c.concurrency = int(n) }
func (n concurrency) applyAction(s *settings) { s.concurrency = int(n) }

// WithTenantConcurrency sets how many handlers Run runs at a time for one tenant (for one
// scope, where identities have no tenant). Tickets over it are handed back to the queue for a
// moment. At least 1; default: no separate limit.
func WithTenantConcurrency(n int) Option { return routerOption(func(c *config) { c.perTenant = n }) }

// WithAttempts sets how often a request is tried at most, lost workers included. At least 1;
// default: 3.
func WithAttempts(n int) SharedOption { return sharedOption(func(s *settings) { s.attempts = n }) }

// WithBackoff sets how long to wait after the attempt with that number (from 1) when the
// handler's error does not say. Default: 1 s, doubling up to 1 min.
func WithBackoff(f func(attempt int) time.Duration) SharedOption {
	return sharedOption(func(s *settings) { s.backoff = f })
}

// WithTimeout limits one attempt; after it the request ends with TIMEOUT. 0, the default: no
// limit for queued work, 30 s for short work.
func WithTimeout(d time.Duration) SharedOption {
	return sharedOption(func(s *settings) { s.timeout = d })
}

// WithRetention sets how long a request's log stays after its end. More than 0; default:
// 24 h, and 15 min with a log in memory.
func WithRetention(d time.Duration) SharedOption {
	return sharedOption(func(s *settings) { s.retention = d })
}

// WithPermission lets only identities that have the permission submit, follow and cancel
// requests of the action.
func WithPermission(permission string) HandleOption {
	return handleOption(func(s *settings) { s.permission = permission })
}

// WithEstimate overrides the handler's EstimatedDuration.
func WithEstimate(d time.Duration) HandleOption {
	return handleOption(func(s *settings) { s.estimate = d })
}

// newConfig applies options and defaults, and panics on what makes no sense.
func newConfig(opts []Option) config {
	c := config{
		threshold:   5 * time.Second,
		concurrency: 64,
		perTenant:   math.MaxInt,
		grace:       10 * time.Second,
		scope:       defaultScope,
		defaults:    settings{attempts: 3, backoff: defaultBackoff, concurrency: math.MaxInt},
	}
	for _, o := range opts {
		o.applyRouter(&c)
	}
	if c.logger == nil {
		c.logger = slog.Default()
	}
	if c.queue == nil {
		c.queue = memqueue.New()
	}
	if c.log == nil {
		own := memlog.New()
		c.log, c.own = own, own
	}
	if c.defaults.retention == 0 {
		c.defaults.retention = 24 * time.Hour
		if local(c.log) {
			c.defaults.retention = 15 * time.Minute
		}
	}
	orDefault := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orDefault(&c.limits.Payload, 1<<20)
	orDefault(&c.limits.Result, 1<<20)
	orDefault(&c.limits.Output, 256<<10)
	orDefault(&c.limits.Outputs, 100_000)
	orDefault(&c.limits.OutputBytes, 64<<20)
	switch l := c.limits; {
	case c.scope == nil:
		panic("streamer: WithScope(nil)")
	case c.concurrency < 1:
		panic(fmt.Sprintf("streamer: NewRouter: WithConcurrency(%d): at least 1 is needed", c.concurrency))
	case c.perTenant < 1:
		panic(fmt.Sprintf("streamer: WithTenantConcurrency(%d): at least 1 is needed", c.perTenant))
	case c.threshold < 0:
		panic(fmt.Sprintf("streamer: WithThreshold(%v): must not be negative", c.threshold))
	case c.grace <= 0:
		panic(fmt.Sprintf("streamer: WithCancelGrace(%v): must be more than 0", c.grace))
	case min(l.Payload, l.Result, l.Output, l.Outputs, l.OutputBytes) < 0:
		panic(fmt.Sprintf("streamer: WithLimits(%+v): must not be negative", l))
	}
	c.defaults.check("NewRouter")
	return c
}

func (s *settings) check(where string) {
	switch {
	case s.attempts < 1:
		panic(fmt.Sprintf("streamer: %s: WithAttempts(%d): at least 1 is needed", where, s.attempts))
	case s.backoff == nil:
		panic(fmt.Sprintf("streamer: %s: WithBackoff(nil)", where))
	case s.timeout < 0:
		panic(fmt.Sprintf("streamer: %s: WithTimeout(%v): must not be negative", where, s.timeout))
	case s.concurrency < 1:
		panic(fmt.Sprintf("streamer: %s: WithConcurrency(%d): at least 1 is needed", where, s.concurrency))
	case s.retention <= 0:
		panic(fmt.Sprintf("streamer: %s: WithRetention(%v): must be more than 0", where, s.retention))
	case s.estimate < 0:
		panic(fmt.Sprintf("streamer: %s: WithEstimate(%v): must not be negative", where, s.estimate))
	}
}

func defaultBackoff(attempt int) time.Duration {
	return min(time.Second<<min(attempt-1, 6), time.Minute)
}

// local reports whether v, a log or queue, lives and dies with this process. Calls to such
// can't hang, and are not bounded in time.
func local(v any) bool {
	l, ok := v.(interface{ ProcessLocal() })
	if ok {
		l.ProcessLocal()
	}
	return ok
}
