package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/cutproxy"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

// server is a streamer service whose requests the test drives by hand.
type server struct {
	t     testing.TB
	net   *network
	plans cutproxy.Plans

	mu        sync.Mutex
	requests  map[string]*request
	sessions  map[*session]bool
	handshake func(w http.ResponseWriter, r *http.Request) bool // returns true when it has answered
	intercept func(s *session, m *wire.Inbound) bool            // returns true when it has answered
	welcome   wire.Outbound
	tokens    []string // of the handshakes
	inbound   []*wire.Inbound
	dials     []time.Time
	wg        sync.WaitGroup
}

// request is a log, and whether submits find it.
type request struct {
	epoch    string
	action   string
	events   []*progress.Event
	oldest   uint64
	attempt  int
	progress *progress.Progress
	short    bool
}

func newServer(t testing.TB) *server {
	s := &server{
		t:        t,
		net:      &network{conns: make(chan net.Conn), closed: make(chan struct{})},
		requests: make(map[string]*request),
		sessions: make(map[*session]bool),
		welcome: wire.Outbound{
			Type: wire.TypeWelcome, V: 1, Session: "s", PingIntervalMS: 25000, PongTimeoutMS: 10000,
			Limits: wire.Limits{MaxMessageBytes: 65536, MaxInflight: 32, MaxAttached: 256}, Caps: []string{wire.CapBatch},
		},
	}
	hs := &http.Server{Handler: s}
	s.wg.Go(func() { _ = hs.Serve(s.net) })
	t.Cleanup(func() {
		close(s.net.closed)
		_ = hs.Close()
		s.drop()
		s.wg.Wait()
	})
	return s
}

// client returns a client of the server.
func (s *server) client(opts ...client.Option) *client.Client {
	dial := cutproxy.DialFunc(s.net.dial)
	if s.plans != nil {
		dial = cutproxy.Dial(dial, s.plans)
	}
	transport := &http.Transport{DialContext: dial}
	opts = append([]client.Option{
		client.WithHTTPClient(&http.Client{Transport: transport}),
		client.WithLogger(slog.New(slog.DiscardHandler)),
	}, opts...)
	c, err := client.New("ws://server/ws", opts...)
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		require.NoError(s.t, c.Close())
		transport.CloseIdleConnections()
	})
	return c
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	handshake := s.handshake
	s.tokens = append(s.tokens, r.Header.Get("Authorization"))
	s.dials = append(s.dials, time.Now())
	s.mu.Unlock()
	if handshake != nil && handshake(w, r) {
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"streamer.v1"}})
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	x := &session{s: s, ws: ws, cancel: cancel, cursors: make(map[string]uint64), wake: make(chan struct{}, 1)}
	s.mu.Lock()
	s.sessions[x] = true
	s.mu.Unlock()
	s.wg.Go(func() { x.write(ctx) })
	x.read(ctx)
	cancel()
	s.mu.Lock()
	delete(s.sessions, x)
	s.mu.Unlock()
	_ = ws.CloseNow()
}

// refuse answers handshakes with a status; 0 lets them in.
func (s *server) refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshake = nil
	if status != 0 {
		s.handshake = func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(status)
			return true
		}
	}
}

// session is a connection.
type session struct {
	s      *server
	ws     *websocket.Conn
	cancel context.CancelFunc
	wake   chan struct{}

	// Guarded by s.mu.
	out     [][]byte
	cursors map[string]uint64 // of what is attached
	bye     *websocket.CloseError
	greeted bool
}

func (x *session) read(ctx context.Context) {
	for {
		_, frame, err := x.ws.Read(ctx)
		if err != nil {
			return
		}
		for text := range wire.SplitBatch(frame) {
			m, err := wire.DecodeInbound(text)
			if err != nil {
				x.s.t.Errorf("the client sent %s: %v", text, err)
				return
			}
			x.s.mu.Lock()
			x.s.inbound = append(x.s.inbound, m)
			intercept := x.s.intercept
			x.s.mu.Unlock()
			if intercept != nil && intercept(x, m) {
				continue
			}
			x.s.mu.Lock()
			x.serve(m)
			x.s.mu.Unlock()
		}
	}
}

// write sends all that is queued as one frame.
func (x *session) write(ctx context.Context) {
	for {
		x.s.mu.Lock()
		var frame []byte
		for i, m := range x.out {
			if i > 0 {
				frame = append(frame, '\n')
			}
			frame = append(frame, m...)
		}
		x.out = nil
		bye := x.bye
		x.s.mu.Unlock()
		switch {
		case len(frame) > 0:
			if x.ws.Write(ctx, websocket.MessageText, frame) != nil {
				return
			}
			continue
		case bye != nil:
			_ = x.ws.Close(bye.Code, bye.Reason)
			return
		}
		select {
		case <-x.wake:
		case <-ctx.Done():
			return
		}
	}
}

// send queues a message. Called with s.mu held.
func (x *session) send(m *wire.Outbound) { x.raw(m.Append(nil)) }

func (x *session) raw(message []byte) {
	x.out = append(x.out, message)
	x.poke()
}

func (x *session) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// serve is what a streamer service does. Called with s.mu held.
func (x *session) serve(m *wire.Inbound) {
	switch m.Type {
	case wire.TypeHello:
		x.greeted = true
		welcome := x.s.welcome
		x.send(&welcome)
		for _, c := range m.Resume {
			x.attach(c, "")
		}
	case wire.TypeRequest:
		r, duplicate := x.s.requests[m.ID], true
		if r == nil {
			duplicate = false
			r = x.s.create(m.ID, m.Action)
		}
		if r.short {
			x.raw(wire.AppendRef(nil, wire.EncodeEvent(m.ID, r.events[0]), m.Ref))
			return
		}
		x.send(&wire.Outbound{
			Type: wire.TypeAcknowledgment, RequestID: m.ID, Ref: m.Ref, Epoch: r.epoch, Seq: 1, Status: "queued", Duplicate: duplicate,
		})
		x.cursors[m.ID] = 1
		x.show(m.ID, r)
	case wire.TypeAttach:
		x.attach(wire.Cursor{ID: m.ID, Epoch: m.Epoch, After: m.After}, m.Ref)
	case wire.TypeDetach:
		delete(x.cursors, m.ID)
	case wire.TypeCancel:
		r := x.s.requests[m.ID]
		if r == nil {
			x.fail(m.ID, m.Ref, "NOT_FOUND", 0)
			return
		}
		last := r.events[len(r.events)-1]
		if !last.Kind.Ends() {
			x.s.add(m.ID, &progress.Event{Kind: progress.Canceling, Reason: m.Reason})
			x.s.add(m.ID, &progress.Event{Kind: progress.Canceled, Error: &progress.Failure{Code: "CANCELED", Message: m.Reason}})
			last = r.events[len(r.events)-1]
		}
		x.raw(wire.AppendRef(nil, wire.EncodeEvent(m.ID, last), m.Ref))
	}
}

func (x *session) fail(id, ref, code string, retryAfter time.Duration) {
	x.send(&wire.Outbound{Type: wire.TypeError, RequestID: id, Ref: ref, Error: &progress.Failure{Code: code, Message: "no", RetryAfter: retryAfter}})
}

func (x *session) attach(c wire.Cursor, ref string) {
	r := x.s.requests[c.ID]
	if r == nil {
		x.fail(c.ID, ref, "NOT_FOUND", 0)
		return
	}
	last := uint64(len(r.events))
	page := progress.Page{State: progress.State{Epoch: r.epoch, Last: last}, Oldest: r.oldest}
	reply := &wire.Outbound{
		Type: wire.TypeAttached, RequestID: c.ID, Ref: ref, Epoch: r.epoch, Action: r.action, Attempt: r.attempt,
		Status: r.events[last-1].Kind.Status(), Oldest: r.oldest, Last: last, After: c.After,
	}
	x.cursors[c.ID] = c.After
	if reason, gap := page.Gap(c.Epoch, c.After); gap {
		reply.Type = wire.TypeGap
		reply.Reason = reason
		x.cursors[c.ID] = r.oldest - 1
	}
	x.send(reply)
	x.show(c.ID, r)
}

// show sends what an attachment has not seen.
func (x *session) show(id string, r *request) {
	cursor, ok := x.cursors[id]
	if !ok {
		return
	}
	for _, e := range r.events[cursor:] {
		if e.Kind.Ends() {
			x.progress(id, r)
		}
		x.raw(wire.EncodeEvent(id, e))
		if e.Kind.Ends() {
			delete(x.cursors, id)
			return
		}
	}
	x.cursors[id] = uint64(len(r.events))
	x.progress(id, r)
}

func (x *session) progress(id string, r *request) {
	if r.progress != nil {
		x.raw(wire.EncodeProgress(id, r.progress))
	}
}

func (s *server) create(id, action string) *request {
	r := &request{epoch: fmt.Sprintf("e%d", len(s.requests)+1), action: action, oldest: 1}
	s.requests[id] = r
	if action == "echo" {
		r.short = true
		r.events = []*progress.Event{{Seq: 1, Kind: progress.Completed, Short: true, Success: true, Data: json.RawMessage(`{"n":12345678901234567890}`)}}
		return r
	}
	r.events = []*progress.Event{{Seq: 1, Kind: progress.Accepted}}
	return r
}

// add appends an event. Called with s.mu held.
func (s *server) add(id string, e *progress.Event) {
	r := s.requests[id]
	e.Seq = uint64(len(r.events)) + 1
	switch e.Kind {
	case progress.Started:
		r.attempt++
		r.progress = nil
		e.Attempt = r.attempt
	case progress.Output:
		e.Attempt = r.attempt
	}
	r.events = append(r.events, e)
	for x := range s.sessions {
		x.show(id, r)
	}
}

func (s *server) append(id string, events ...*progress.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.add(id, e)
	}
}

// output appends outputs with these indexes and data.
func (s *server) outputs(id string, from, to int) {
	for i := from; i < to; i++ {
		s.append(id, &progress.Event{Kind: progress.Output, Index: i, Data: json.RawMessage(fmt.Sprint(i))})
	}
}

func (s *server) report(id string, percentage float64, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests[id]
	r.progress = &progress.Progress{Attempt: r.attempt, Percentage: percentage, Message: message, Time: time.Now()}
	for x := range s.sessions {
		if _, ok := x.cursors[id]; ok {
			x.progress(id, r)
		}
	}
}

// complete ends a request with data.
func (s *server) complete(id, data string) {
	s.append(id, &progress.Event{Kind: progress.Completed, Success: true, Data: json.RawMessage(data)})
}

func (s *server) start(id string) { s.append(id, &progress.Event{Kind: progress.Started}) }

// each does something with every session that said hello.
func (s *server) each(f func(x *session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.sessions {
		if x.greeted {
			f(x)
		}
	}
}

// drop cuts all connections.
func (s *server) drop() {
	s.each(func(x *session) {
		x.cancel()
		clear(x.cursors)
	})
}

// close closes all connections with a code.
func (s *server) close(code websocket.StatusCode, reason string) {
	s.each(func(x *session) {
		x.bye = &websocket.CloseError{Code: code, Reason: reason}
		x.poke()
	})
}

// broadcast sends a message on all connections.
func (s *server) broadcast(m *wire.Outbound) { s.each(func(x *session) { x.send(m) }) }

// got returns the messages of a type that came so far.
func (s *server) got(typ string) []*wire.Inbound {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*wire.Inbound
	for _, m := range s.inbound {
		if m.Type == typ {
			list = append(list, m)
		}
	}
	return list
}

// dialed returns how often a connect was tried.
func (s *server) dialed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dials)
}
