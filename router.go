package streamer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

// Router is what applications need of a [Mux].
type Router interface {
	Handle(action string, h Handler, opts ...HandleOption)
	Submit(ctx context.Context, who Identity, req *Request) (*Receipt, error)
	Attach(ctx context.Context, who Identity, id string) (*Viewer, error)
	Cancel(ctx context.Context, who Identity, id, reason string) (progress.State, error)
	Run(ctx context.Context) error
	Shutdown(ctx context.Context) error
}

var _ Router = (*Mux)(nil)

// Mux routes requests to handlers by action: it accepts them, queues what takes long, runs
// what is queued, and lets viewers follow. All methods are safe for concurrent use.
//
// A process that only accepts requests and shows them (a gateway) doesn't call Run; one that
// only works (a worker) mounts no transport. Both register the handlers.
type Mux struct {
	cfg config
	log *slog.Logger
	ids idSource

	json encoders

	localLog, localQueue bool // in this process

	mu         sync.RWMutex
	routes     map[string]*route
	fallback   *route
	middleware []Middleware

	life     life
	crowd    crowd
	gate     gate
	unknowns unknowns
	outage   outage
	stats    counters
	depth    atomic.Pointer[queue.Depth] // as of the newest look
	waiting  atomic.Int64                // since when Run waits for a ticket, as Unix nanoseconds; later than now when it doesn't
}

// NewRouter returns a router. Without options all is in memory, and complete: it lasts as
// long as the process.
func NewRouter(opts ...Option) *Mux {
	m := &Mux{cfg: newConfig(opts), ids: newIDSource(), routes: make(map[string]*route), life: newLife()}
	m.crowd = newCrowd(m.cfg.perTenant)
	m.waiting.Store(math.MaxInt64)
	m.log = m.cfg.logger
	m.localLog, m.localQueue = local(m.cfg.log), local(m.cfg.queue)
	if f := m.cfg.fallback; f != nil {
		m.fallback = m.newRoute("", f.handler, f.opts)
	}
	return m
}

// route is a registered action.
type route struct {
	action   string // "" for the fallback
	settings settings
	binding
}

// Handle registers the handler of an action. It panics when action is empty, longer than 128
// bytes or taken, when h has neither Process nor ProcessWithProgress, and on invalid options.
func (m *Mux) Handle(action string, h Handler, opts ...HandleOption) {
	if action == "" || len(action) > maxAction {
		panic(fmt.Sprintf("streamer: Handle: action %q: want 1 to %d bytes", action, maxAction))
	}
	r := m.newRoute(action, h, opts)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.routes[action]; taken {
		panic(fmt.Sprintf("streamer: Handle: action %q has a handler already", action))
	}
	m.routes[action] = r
}

const maxAction = 128

func (m *Mux) newRoute(action string, h Handler, opts []HandleOption) *route {
	where := fmt.Sprintf("Handle(%q)", action)
	if action == "" {
		where = "WithFallback"
	}
	if f, ok := h.(HandlerFunc); h == nil || ok && f == nil {
		panic(fmt.Sprintf("streamer: %s: the handler is nil", where))
	}
	b, ok := bind(h)
	if !ok {
		panic(fmt.Sprintf("streamer: %s: %T has neither Process nor ProcessWithProgress", where, h))
	}
	s := m.cfg.defaults
	s.estimate = b.estimate
	for _, o := range opts {
		o.applyAction(&s)
	}
	s.check(where)
	return &route{action: action, settings: s, binding: b}
}

// Use adds middleware around the handlers of all actions, registered before or after. The
// first one added is the outermost. Requests that run already are not affected.
func (m *Mux) Use(mw ...Middleware) {
	for _, f := range mw {
		if f == nil {
			panic("streamer: Use: a middleware is nil")
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.middleware = append(m.middleware[:len(m.middleware):len(m.middleware)], mw...)
}

// route returns the route of an action, the fallback, or nil.
func (m *Mux) route(action string) *route {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r, ok := m.routes[action]; ok {
		return r
	}
	return m.fallback
}

// wrap puts the middleware around f.
func (m *Mux) wrap(f HandlerFunc) HandlerFunc {
	m.mu.RLock()
	mws := m.middleware
	m.mu.RUnlock()
	for i := len(mws) - 1; i >= 0; i-- {
		f = mws[i](f)
	}
	return f
}

// settings returns those of an action, registered here or not.
func (m *Mux) settings(action string) settings {
	if r := m.route(action); r != nil {
		return r.settings
	}
	return m.cfg.defaults
}

// Retention returns how long logs stay after the end of their request, unless the action
// says otherwise.
func (m *Mux) Retention() time.Duration { return m.cfg.defaults.retention }

// logContext bounds a call to the log, unless the log is in this process and can't hang.
func (m *Mux) logContext(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return bound(ctx, d, m.localLog)
}

// queueContext bounds a call to the queue in the same way.
func (m *Mux) queueContext(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return bound(ctx, d, m.localQueue)
}

func bound(ctx context.Context, d time.Duration, local bool) (context.Context, context.CancelFunc) {
	if local {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// Ready returns nil when requests can be accepted: no Shutdown has begun and the store took a
// write just now. It is what a readiness probe should ask; it takes up to 2 s.
func (m *Mux) Ready(ctx context.Context) error {
	select {
	case <-m.life.draining:
		return ErrShutdown
	default:
	}
	if err := m.note(ctx, progress.Key{Scope: "streamer.probe", ID: m.ids.next()}, nil, time.Second); err != nil {
		return fmt.Errorf("streamer: the log store takes no writes: %w", err)
	}
	return nil
}

// Stats are counts since the router was made, and gauges of now. They are for metrics: each is
// exact, but they are not read in one instant.
type Stats struct {
	Accepted  uint64 // requests accepted for queueing
	Answered  uint64 // short requests answered
	Repeated  uint64 // submits of requests that existed
	Refused   uint64 // submits that returned an error
	Started   uint64 // attempts
	Completed uint64 // requests ended here, queued ones
	Failed    uint64
	Canceled  uint64
	Retried   uint64 // attempts that ended with another to follow
	Returned  uint64 // attempts handed back on shutdown
	Fenced    uint64 // attempts lost: their lease ended or another started
	Dropped   uint64 // tickets that needed no work
	Swept     uint64 // tickets enqueued again for requests without a sign of life

	// Queue is what the queue holds, looked at every few seconds while Run works here; zero
	// when it can't tell. With what runs on all machines it says how far workers are behind.
	Queue queue.Depth

	Slots   int // handlers Run may run at a time
	Running int // handlers that run
	Stuck   int // handlers that ignore the end of their context: their request has ended or moved, their slot is taken
}

type counters struct {
	accepted, answered, repeated, refused, started, completed, failed, canceled atomic.Uint64
	retried, returned, fenced, dropped, swept                                   atomic.Uint64
	running, stuck                                                              atomic.Int64
}

// Stats returns the router's counts.
func (m *Mux) Stats() Stats {
	s := &m.stats
	var depth queue.Depth
	if d := m.depth.Load(); d != nil {
		depth = *d
	}
	return Stats{
		Queue:    depth,
		Accepted: s.accepted.Load(), Answered: s.answered.Load(), Repeated: s.repeated.Load(), Refused: s.refused.Load(),
		Started: s.started.Load(), Completed: s.completed.Load(), Failed: s.failed.Load(), Canceled: s.canceled.Load(),
		Retried: s.retried.Load(), Returned: s.returned.Load(), Fenced: s.fenced.Load(), Dropped: s.dropped.Load(), Swept: s.swept.Load(),
		Slots: m.cfg.concurrency, Running: int(s.running.Load()), Stuck: int(s.stuck.Load()),
	}
}

// ended counts a queued request's end.
func (s *counters) ended(k progress.Kind) {
	switch k {
	case progress.Completed:
		s.completed.Add(1)
	case progress.Failed:
		s.failed.Add(1)
	case progress.Canceled:
		s.canceled.Add(1)
	}
}

// key returns the key of the log of who's request id.
func (m *Mux) key(who Identity, id string) progress.Key {
	return progress.Key{Scope: m.cfg.scope(who), ID: id}
}

// defaultScope is tenant and user, joined so that no two pairs give the same.
func defaultScope(who Identity) string {
	return url.PathEscape(who.Tenant) + "/" + url.PathEscape(who.User)
}

// permitted reports whether who may use r.
func (r *route) permitted(who Identity) bool {
	if r.settings.permission == "" {
		return true
	}
	for _, p := range who.Permissions {
		if p == r.settings.permission {
			return true
		}
	}
	return false
}

// idSource makes ids that no other source makes: for records, tickets and errors.
type idSource struct {
	prefix string
	n      *atomic.Uint64
}

func newIDSource() idSource { return idSource{prefix: rand.Text()[:13] + ".", n: new(atomic.Uint64)} }

func (s idSource) next() string { return s.prefix + strconv.FormatUint(s.n.Add(1), 36) }

var errNoRun = errors.New("streamer: no request runs in this context: pass on the context that the handler was given")
