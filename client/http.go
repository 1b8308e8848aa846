package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

const (
	callTimeout   = 90 * time.Second       // for the answer to a call
	gatherTime    = 5 * time.Millisecond   // in which changes of what is followed are gathered
	maxFollowed   = 64                     // requests in a stream
	maxCalls      = 32                     // that are not answered
	streamSilence = 25 * time.Second       // of a stream whose server says something every 15 s
	pollWait      = "wait=20"              // what a poll prefers
	pollTimeout   = 35 * time.Second       // for the answer to it
	pollPause     = 250 * time.Millisecond // between polls that bring nothing but progress
	pollFor       = 5 * time.Minute        // before streams are tried again
	maxReplies    = 64                     // messages that wait to be read
)

var errNoToken = errors.New("there was no new token in time")

// calls is a socket made of calls over HTTP: what is written to it becomes calls, and what
// they answer, and an event stream shows, is read from it, as if a WebSocket brought it.
type calls struct {
	c       *Client
	http    *http.Client
	base    string
	ctx     context.Context // of cancels, and of all else
	kill    context.CancelCauseFunc
	work    context.Context // of submits and views, until Close
	leave   context.CancelCauseFunc
	cancels sync.WaitGroup
	out     chan []byte   // for Read
	turn    chan struct{} // has a value while a view hands over a message
	asking  chan struct{} // has a value while the token is renewed

	mu       sync.Mutex
	header   http.Header // replaced with each renewal
	renewals int
	greeted  bool
	lanes    map[string]chan struct{} // closed when the last call about the request is answered
	follows  map[string]*following
	opening  bool  // a view is on its way to take over
	stale    bool  // what is followed has changed since
	current  *view // whose messages are taken
}

// following is a request that views show.
type following struct {
	cursor wire.Cursor
	ref    string // of the attach that is to be answered
}

// newCalls returns a socket that calls the service of c.
func newCalls(ctx context.Context, c *Client, header http.Header) *calls {
	hc := *c.cfg.http
	hc.Timeout = 0 // which would cut streams; each call has its own
	s := &calls{
		c: c, http: &hc, base: strings.TrimSuffix(c.url, "/"), header: header,
		out: make(chan []byte, maxReplies), turn: make(chan struct{}, 1), asking: make(chan struct{}, 1),
		lanes: make(map[string]chan struct{}), follows: make(map[string]*following),
	}
	s.ctx, s.kill = context.WithCancelCause(ctx)
	s.work, s.leave = context.WithCancelCause(s.ctx)
	return s
}

// Read returns the next message, or why there is none any more.
func (s *calls) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	select {
	case m := <-s.out:
		return websocket.MessageText, m, nil
	case <-s.ctx.Done():
		return 0, nil, context.Cause(s.ctx)
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	}
}

// Write takes a message, and does what it asks for in the background.
func (s *calls) Write(_ context.Context, _ websocket.MessageType, message []byte) error {
	m, err := wire.DecodeInbound(message)
	if err != nil {
		return err
	}
	switch m.Type {
	case wire.TypeHello:
		s.hello(m.Resume)
	case wire.TypeAttach:
		s.follow(wire.Cursor{ID: m.ID, Epoch: m.Epoch, After: m.After}, m.Ref)
	case wire.TypeDetach:
		s.unfollow(m.ID)
	case wire.TypeRequest:
		s.enqueue(m.ID, func() { s.submit(m, message) })
	case wire.TypeCancel:
		s.cancels.Add(1)
		s.enqueue(m.ID, func() { s.cancel(m) })
	}
	return nil
}

// Close ends the socket when the cancels that were written are answered, and all else at
// once. It is called by who writes, and takes until the socket's context ends at the latest.
func (s *calls) Close(websocket.StatusCode, string) error {
	s.leave(ErrClosed)
	s.cancels.Wait()
	return s.CloseNow()
}

// CloseNow ends the socket, and all calls.
func (s *calls) CloseNow() error {
	s.kill(ErrClosed)
	return nil
}

// fail ends the socket for what a call or view came to, unless that is due to Close.
func (s *calls) fail(err error) {
	if s.work.Err() == nil {
		s.kill(err)
	}
}

// put has a message read.
func (s *calls) put(message []byte) {
	select {
	case s.out <- message:
	case <-s.ctx.Done():
	}
}

// hello welcomes the client. When there is something to resume that waits for the first bytes
// of the server.
func (s *calls) hello(resume []wire.Cursor) {
	if len(resume) == 0 {
		s.welcome()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range resume {
		s.follows[c.ID] = &following{cursor: c}
	}
	s.reopen()
}

func (s *calls) welcome() {
	s.mu.Lock()
	greeted := s.greeted
	s.greeted = true
	s.mu.Unlock()
	if !greeted {
		m := wire.Outbound{
			Type: wire.TypeWelcome, V: wire.Version, PingIntervalMS: maxSilence.Milliseconds(),
			Limits: wire.Limits{MaxInflight: maxCalls, MaxAttached: maxFollowed},
		}
		s.put(m.Append(nil))
	}
}

// enqueue makes a call, after those about the same request that were made before.
func (s *calls) enqueue(id string, call func()) {
	done := make(chan struct{})
	s.mu.Lock()
	before := s.lanes[id]
	s.lanes[id] = done
	s.mu.Unlock()
	s.c.wg.Go(func() {
		defer func() {
			close(done)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.lanes[id] == done {
				delete(s.lanes, id)
			}
		}()
		if before != nil {
			select {
			case <-before:
			case <-s.ctx.Done(): // which lets the call fail at once
			}
		}
		call()
	})
}

// submit serves a request: what the server answers is its end, or what acknowledges it.
func (s *calls) submit(m *wire.Inbound, message []byte) {
	text, ok := s.call(s.work, m, http.MethodPost, "/requests", message)
	if !ok {
		return
	}
	if _, err := wire.DecodeOutbound(text); err != nil {
		s.fail(&protocolError{"the server's answer makes no sense: " + err.Error()})
		return
	}
	s.put(wire.AppendRef(nil, bytes.TrimSpace(text), m.Ref))
}

// cancel serves a cancel, which is done when the server has answered.
func (s *calls) cancel(m *wire.Inbound) {
	defer s.cancels.Done()
	path := "/requests/" + m.ID
	if m.Reason != "" {
		path += "?reason=" + url.QueryEscape(m.Reason)
	}
	if _, ok := s.call(s.ctx, m, http.MethodDelete, path, nil); ok {
		s.put((&wire.Outbound{Type: wire.TypeStatus, RequestID: m.ID, Ref: m.Ref, Status: progress.Canceling.Status()}).Append(nil))
	}
}

// call makes a call and returns the answer. When the server refuses it says so to the client,
// and returns false.
func (s *calls) call(ctx context.Context, m *wire.Inbound, method, path string, body []byte) ([]byte, bool) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errors.New("the server did not answer in time"))
	defer cancel()
	header := http.Header{}
	if body != nil {
		header.Set("Content-Type", "application/json")
		header.Set("Prefer", "respond-async")
		header.Set("Idempotency-Key", m.ID)
	}
	resp, err := s.do(ctx, method, path, body, header)
	if err != nil {
		s.fail(err)
		return nil, false
	}
	defer resp.Body.Close()
	text, err := s.read(resp.Body)
	switch {
	case err != nil:
		s.fail(err)
		return nil, false
	case resp.StatusCode < 300:
		return text, true
	}
	if p, ok := readProblem(resp, text); ok && (resp.StatusCode != http.StatusUnauthorized || p.Seq > 0) {
		s.put((&wire.Outbound{Type: wire.TypeError, RequestID: m.ID, Ref: m.Ref, Seq: p.Seq, Error: p.failure()}).Append(nil))
	} else {
		s.fail(refusal(resp, text))
	}
	return nil, false
}

// do sends a request, and does that once more with a new token when the server does not know
// who it is from.
func (s *calls) do(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	for again := false; ; again = true {
		s.mu.Lock()
		own, renewals := s.header, s.renewals
		s.mu.Unlock()
		resp, err := s.send(ctx, method, path, body, own, header)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || again {
			return resp, err
		}
		text, err := s.read(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if p, ok := readProblem(resp, text); ok && p.Seq > 0 { // the request came to that end
			resp.Body = io.NopCloser(bytes.NewReader(text))
			return resp, nil
		}
		if err := s.renew(ctx, renewals); err != nil {
			return nil, err
		}
	}
}

// renew has the calls that follow use a new token, unless that was done since the caller looked.
func (s *calls) renew(ctx context.Context, renewals int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.c.cfg.connectTimeout, errNoToken)
	defer cancel()
	select {
	case s.asking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.asking }()
	s.mu.Lock()
	done := s.renewals != renewals
	s.mu.Unlock()
	if done {
		return nil
	}
	token, err := s.c.token(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewals++
	s.header = s.c.header(token)
	return nil
}

// send sends a request. Its error does not show the URL, whose query may hold a secret.
func (s *calls) send(ctx context.Context, method, path string, body []byte, headers ...http.Header) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, r)
	if err != nil {
		return nil, err
	}
	for _, h := range headers {
		for name, values := range h {
			req.Header[name] = values
		}
	}
	resp, err := s.http.Do(req)
	if err == nil {
		return resp, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	return nil, err
}

// read reads an answer, up to the limit.
func (s *calls) read(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(s.c.cfg.limits.Message)+1))
	if err == nil && len(text) > s.c.cfg.limits.Message {
		err = websocket.ErrMessageTooBig
	}
	return text, err
}

// problem is an answer as RFC 9457 has it.
type problem struct {
	Code         string          `json:"code"`
	Detail       string          `json:"detail"`
	Seq          uint64          `json:"seq"`
	RetryAfterMS int64           `json:"retry_after_ms"`
	Details      json.RawMessage `json:"details"`
}

// readProblem returns the problem that the server says there is, if it is the service that
// answered.
func readProblem(resp *http.Response, text []byte) (p problem, ok bool) {
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(text, &p) != nil {
		return p, false
	}
	return p, p.Code != ""
}

func (p *problem) failure() *progress.Failure {
	ms := max(0, min(p.RetryAfterMS, maxFloor.Milliseconds()))
	return &progress.Failure{Code: p.Code, Message: p.Detail, Details: p.Details, RetryAfter: time.Duration(ms) * time.Millisecond}
}

// refusal is the error of a connection that an answer ends.
func refusal(resp *http.Response, text []byte) error {
	resp.Body = io.NopCloser(bytes.NewReader(text))
	if resp.StatusCode < 400 {
		return fmt.Errorf("the server answered %d, which is no answer to that", resp.StatusCode)
	}
	return dialError(resp, nil, time.Now())
}

// unavailable reports whether a problem is about now and not about the call.
func unavailable(code string) bool {
	return code == streamer.ErrCodeServiceUnavailable || code == streamer.ErrCodeRateLimited
}
