package sse

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/door"
	"github.com/pay-theory/streamer/v2/transport/internal/limit"
)

// Handler serves requests over HTTP. Its methods are safe for concurrent use.
type Handler struct {
	router transport.Router
	cfg    *transport.Config
	log    *slog.Logger
	door   *door.Door
	rates  limit.Rates[owner]
	stats  counters
	loans  sync.Pool // *loan

	warned sync.Once // of middleware that hides deadlines

	mu      sync.Mutex
	closing bool
	active  int           // calls
	idle    chan struct{} // closed when closing and nothing is active
	closed  chan struct{} // closed when closing, before
	spread  time.Duration // over which streams end then
	streams map[*stream]struct{}
}

// owner is whom a call counts for.
type owner struct{ tenant, user string }

// NewHandler returns a handler that serves router. It panics on invalid options.
func NewHandler(router transport.Router, opts ...transport.Option) *Handler {
	if router == nil {
		panic("sse: NewHandler: the router is nil")
	}
	h := &Handler{
		router: router, cfg: transport.NewConfig(opts...),
		idle: make(chan struct{}), closed: make(chan struct{}), streams: make(map[*stream]struct{}),
	}
	h.log = h.cfg.Logger
	h.door = door.New(&h.cfg.Limits)
	h.loans.New = func() any { return new(loan) }
	return h
}

// resource is what a path names.
type resource int

const (
	unknown resource = iota
	requests
	request
	requestEvents
	events
	tickets
)

// methods are what each resource takes.
var methods = [...]string{
	requests:      "POST",
	request:       "GET, HEAD, DELETE",
	requestEvents: "GET, HEAD",
	events:        "GET, HEAD",
	tickets:       "POST",
}

// resolve returns what path names, and the id in it.
func resolve(path string) (what resource, id string) {
	switch path {
	case "/requests", "/requests/":
		return requests, ""
	case "/events":
		return events, ""
	case "/tickets":
		return tickets, ""
	}
	id, ok := strings.CutPrefix(path, "/requests/")
	if !ok {
		return unknown, ""
	}
	what = request
	if short, ok := strings.CutSuffix(id, "/events"); ok {
		what, id = requestEvents, short
	}
	if strings.Contains(id, "/") {
		return unknown, ""
	}
	return what, id
}

// call is one HTTP request.
type call struct {
	h     *Handler
	w     http.ResponseWriter
	r     *http.Request
	who   streamer.Identity
	visit door.Visit
	id    string // of the request that it is about; "": none, or not known yet
}

var (
	errRestarting = streamer.NewError(streamer.ErrCodeServiceUnavailable, "server is restarting").WithRetry(time.Second)
	errPath       = streamer.NewError(streamer.ErrCodeNotFound,
		"no such resource: paths are /requests, /requests/{id}, /requests/{id}/events, /events and /tickets, below where the service has them")
	errNotFound = streamer.NewError(streamer.ErrCodeNotFound, "no such request")
)

// ServeHTTP serves one call. Paths start with /requests, /events or /tickets.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.cfg.CORS(w, r) {
		return
	}
	c := &call{h: h, w: w, r: r}
	what, id := resolve(r.URL.Path)
	c.id = id
	switch {
	case what == unknown:
		c.fail(errPath)
		return
	case !allows(methods[what], r.Method):
		w.Header().Set("Allow", methods[what])
		c.refuse(http.StatusMethodNotAllowed, fmt.Sprintf("method %s is not for this resource: use one of %s", clip(r.Method), methods[what]))
		return
	case !h.enter():
		c.fail(errRestarting)
		return
	}
	defer h.leave()
	if err := c.admit(); err != nil {
		h.stats.refused.Add(1)
		c.fail(err)
		return
	}
	defer c.visit.Leave()
	h.stats.calls.Add(1)
	c.serve(what)
}

// admit finds out whose call it is and counts it.
func (c *call) admit() *streamer.Error {
	h := c.h
	visit, err := h.door.Enter(transport.Address(c.r))
	if err != nil {
		return err
	}
	c.visit = visit
	c.who, err = h.cfg.AdmitCall(c.r, h.router)
	if err == nil {
		err = c.visit.Admit(c.who)
	}
	if o := (owner{c.who.Tenant, c.who.User}); err == nil && o != (owner{}) {
		limits := &h.cfg.Limits
		if wait, ok := h.rates.Take(o, time.Now(), limits.MessageRate, limits.MessageBurst); !ok {
			h.stats.limited.Add(1)
			err = streamer.NewError(streamer.ErrCodeRateLimited, "too many calls").WithRetry(wait)
		}
	}
	if err != nil {
		c.visit.Leave()
	}
	return err
}

func (c *call) serve(what resource) {
	if (what == request || what == requestEvents) && !wire.ValidID(c.id) {
		// It can't exist, which is all there is to know of what does not.
		c.id = ""
		c.fail(errNotFound)
		return
	}
	switch {
	case what == requests:
		c.submit()
	case what == tickets:
		c.issue()
	case what == request && c.r.Method == http.MethodDelete:
		c.cancel()
	case what == request:
		c.show()
	default:
		c.follow(what)
	}
}

// issue serves POST /tickets.
func (c *call) issue() {
	ticket, lifetime, err := c.h.router.IssueTicket(c.r.Context(), c.who)
	if err != nil {
		c.fail(err)
		return
	}
	c.answer(http.StatusCreated, fmt.Appendf(nil, `{"ticket":%q,"expires_in_ms":%d}`, ticket, lifetime.Milliseconds()))
}

// answer writes a JSON body.
func (c *call) answer(status int, body []byte) {
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	c.w.WriteHeader(status)
	c.w.Write(body)
}

// fail answers with an error that is not the end of a request.
func (c *call) fail(err error) {
	transport.Problem{Failure: transport.Failure(err), RequestID: c.id}.Write(c.w)
}

// refuse answers what HTTP has a status of its own for.
func (c *call) refuse(status int, message string) {
	c.h.stats.invalid.Add(1)
	transport.Problem{
		Status: status, Failure: &progress.Failure{Code: streamer.ErrCodeValidation, Message: message}, RequestID: c.id,
	}.Write(c.w)
}

// invalid answers what makes no sense.
func (c *call) invalid(message string) { c.refuse(http.StatusBadRequest, message) }

// control returns what bounds the call's reads and writes in time.
func (c *call) control() *http.ResponseController { return http.NewResponseController(c.w) }

// patient lets the answer be written up to d from now, and the time a write may take, whatever
// the server's WriteTimeout. It also keeps HTTP/2 from ending the call before. The server itself
// clears the deadline before the connection's next call.
func (c *call) patient(d time.Duration) {
	if err := c.control().SetWriteDeadline(time.Now().Add(d + c.h.cfg.WriteTimeout)); errors.Is(err, http.ErrNotSupported) {
		c.h.warn()
	}
}

// warn says that writes can't be bounded.
func (h *Handler) warn() {
	h.warned.Do(func() {
		h.log.Warn("middleware hides SetWriteDeadline: clients that do not read hold their stream until the system notices; give its http.ResponseWriter an Unwrap method")
	})
}

// enter counts a call, unless the handler is closing.
func (h *Handler) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	h.active++
	return true
}

func (h *Handler) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active--
	if h.closing && h.active == 0 {
		close(h.idle)
	}
}

// allows reports whether a method is in a list.
func allows(list, method string) bool {
	for m := range strings.SplitSeq(list, ", ") {
		if m == method {
			return true
		}
	}
	return false
}

// clip bounds what of a client's input is shown back.
func clip(s string) string {
	if len(s) > 32 {
		s = s[:32]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// counters are what Stats reads.
type counters struct {
	attached                                            atomic.Int64
	calls, refused, limited, invalid, sent, bytes, gaps atomic.Uint64
	timeout                                             atomic.Uint64
}
