// Package suite is what the tests of all mountings share: what a service promises, whichever
// framework it is mounted on.
package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/sse"
)

const (
	patience  = 20 * time.Second // for anything that is to happen
	eventSize = 1 << 20
)

// service is one that serves, and its client.
type service struct {
	t    *testing.T
	host string
	http *http.Client
}

// start runs serve on a free port. stop has it shut down, and fails the test when that fails.
func start(t *testing.T, serve func(context.Context, net.Listener) error) (s *service, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener) }()
	// A stream is read as it is sent, so that compression shows.
	transport := &http.Transport{DisableCompression: true}
	s = &service{t: t, host: listener.Addr().String(), http: &http.Client{Transport: transport}}
	return s, func() {
		cancel()
		transport.CloseIdleConnections()
		select {
		case err := <-served:
			require.NoError(t, err)
		case <-time.After(30 * time.Second):
			require.FailNow(t, "the service does not shut down")
		}
	}
}

// Run checks what a service promises that serve serves until its context ends: a streamer with
// the action brew, whose payload is a number of cups, at /ws and below /api, and a page at /.
func Run(t *testing.T, serve func(context.Context, net.Listener) error) {
	t.Run("over HTTP", func(t *testing.T) {
		s, stop := start(t, serve)
		defer stop()
		t.Run("the application's own routes are served", s.on(ownRoutes))
		t.Run("a submit is answered with a Location that leads to the request", s.on(submit))
		t.Run("a submit that waits is answered with the result", s.on(wait))
		t.Run("a stream shows what happens while it happens, and a cancel", s.on(watch))
		t.Run("a long poll is answered when something happens", s.on(poll))
		t.Run("refusals keep their status and body", s.on(refusals))
	})
	t.Run("over WebSocket", func(t *testing.T) {
		s, stop := start(t, serve)
		defer stop()
		t.Run("a request shows its progress and result", s.on(request))
		t.Run("a request can be canceled", s.on(cancel))
		t.Run("a request that was submitted over HTTP can be followed", s.on(follow))
	})
	t.Run("a shutdown lets work end and shows it", func(t *testing.T) { shutdown(t, serve) })
}

// on binds a check to the service.
func (s *service) on(check func(*service)) func(*testing.T) {
	return func(t *testing.T) { check(&service{t: t, host: s.host, http: s.http}) }
}

// call makes an HTTP call. Headers are pairs of name and value.
func (s *service) call(method, url, body string, headers ...string) *http.Response {
	s.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = "http://" + s.host + url
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(s.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.http.Do(r)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// message is what of all messages is looked at.
type message struct {
	Type      string          `json:"type"`
	RequestID string          `json:"request_id"`
	Status    any             `json:"status"` // of a problem, a number
	Result    string          `json:"result"`
	Data      json.RawMessage `json:"data"`
	Progress  *struct {
		Message string `json:"message"`
	} `json:"progress"`
	Error *struct {
		Code string `json:"code"`
	} `json:"error"`
	Links struct{ Self, Events string } `json:"links"`
	Code  string                        `json:"code"` // of a problem
}

// body reads the answer, which must have the status.
func (s *service) body(resp *http.Response, status int) message {
	s.t.Helper()
	data, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, status, resp.StatusCode, "%s", data)
	var m message
	if len(data) > 0 {
		require.NoError(s.t, json.Unmarshal(data, &m), "%s", data)
	}
	return m
}

// submit submits a brew that is to be followed, and returns where it is.
func (s *service) submit(id, cups string) string {
	s.t.Helper()
	resp := s.call("POST", "/api/requests", `{"action":"brew","id":"`+id+`","payload":`+cups+`}`)
	m := s.body(resp, http.StatusAccepted)
	require.Equal(s.t, "acknowledgment", m.Type)
	where, err := resp.Location()
	require.NoError(s.t, err)
	require.Equal(s.t, "http://"+s.host+"/api/requests/"+id, where.String())
	events, err := resp.Request.URL.Parse(m.Links.Events)
	require.NoError(s.t, err)
	require.Equal(s.t, where.String()+"/events", events.String())
	return where.String()
}

// stream is an event stream that is being read.
type stream struct {
	s    *service
	r    *sse.Reader
	last string // id
}

// open opens a stream as a browser would, which takes compressed answers.
func (s *service) open(url string) *stream {
	s.t.Helper()
	resp := s.call("GET", url, "", "Accept", "text/event-stream", "Accept-Encoding", "gzip, deflate, br")
	require.Equal(s.t, http.StatusOK, resp.StatusCode)
	require.Equal(s.t, "text/event-stream", resp.Header.Get("Content-Type"))
	require.Empty(s.t, resp.Header.Values("Content-Encoding"))
	require.Empty(s.t, resp.Header.Values("Content-Length"))
	return &stream{s: s, r: sse.NewReader(resp.Body, eventSize)}
}

// until reads to the first message of a type.
func (st *stream) until(typ string) message {
	st.s.t.Helper()
	for {
		e, err := st.r.Next()
		require.NoError(st.s.t, err, "the stream ended before %q", typ)
		st.last = e.ID
		if e.Name != typ {
			continue
		}
		var m message
		require.NoError(st.s.t, json.Unmarshal(e.Data, &m), "%s", e.Data)
		return m
	}
}

func ownRoutes(s *service) {
	resp := s.call("GET", "/", "")
	var page bytes.Buffer
	_, err := page.ReadFrom(resp.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, resp.StatusCode)
	require.Equal(s.t, "tea house\n", page.String())
}

func submit(s *service) {
	where := s.submit("submitted", "1")
	m := s.body(s.call("GET", where, "", "Prefer", "wait=10"), http.StatusOK)
	require.Equal(s.t, "snapshot", m.Type)
	require.Equal(s.t, "submitted", m.RequestID)
	require.Equal(s.t, "completed", m.Status)
	require.Equal(s.t, "tea is ready", m.Result)
}

func wait(s *service) {
	resp := s.call("POST", "/api/requests", `{"action":"brew","payload":1}`, "Prefer", "wait=10", "Idempotency-Key", "waited")
	m := s.body(resp, http.StatusOK)
	require.Equal(s.t, "complete", m.Type)
	require.Equal(s.t, "waited", m.RequestID)
	require.Equal(s.t, "tea is ready", m.Result)
	require.Equal(s.t, "wait=10", resp.Header.Get("Preference-Applied"))
}

// watch follows a request that ends by nothing but the cancel: what a middleware keeps back until
// the end of the answer would never come.
func watch(s *service) {
	where := s.submit("watched", "100000")
	events := s.open(where + "/events")
	require.Equal(s.t, "watched", events.until("attached").RequestID)
	events.until("progress")
	require.JSONEq(s.t, `"cup 1"`, string(events.until("output").Data))
	s.body(s.call("DELETE", where+"?reason=cold", ""), http.StatusAccepted)
	require.Equal(s.t, "canceling", events.until("status").Status)
	require.Equal(s.t, streamer.ErrCodeCanceled, events.until("error").Error.Code)
	events.until("end")
	_, err := events.r.Next()
	require.ErrorIs(s.t, err, io.EOF)
	again := s.call("GET", where+"/events", "", "Accept", "text/event-stream", "Last-Event-ID", events.last)
	s.body(again, http.StatusNoContent)
}

func poll(s *service) {
	where := s.submit("polled", "100000")
	tag := s.call("GET", where, "").Header.Get("ETag")
	for range 3 {
		resp := s.call("GET", where, "", "If-None-Match", tag, "Prefer", "wait=10")
		require.Equal(s.t, "running", s.body(resp, http.StatusOK).Status)
		require.NotEqual(s.t, tag, resp.Header.Get("ETag"))
		tag = resp.Header.Get("ETag")
	}
	s.body(s.call("DELETE", where, ""), http.StatusAccepted)
}

func refusals(s *service) {
	resp := s.call("GET", "/api/requests/unknown", "")
	require.Equal(s.t, streamer.ErrCodeNotFound, s.body(resp, http.StatusNotFound).Code)
	require.Equal(s.t, "application/problem+json", resp.Header.Get("Content-Type"))
	resp = s.call("PATCH", "/api/requests", "")
	require.Equal(s.t, streamer.ErrCodeValidation, s.body(resp, http.StatusMethodNotAllowed).Code)
	require.Equal(s.t, "POST", resp.Header.Get("Allow"))
	resp = s.call("POST", "/api/requests", `{"action":"brew","payload":"many"}`)
	require.Equal(s.t, streamer.ErrCodeValidation, s.body(resp, http.StatusBadRequest).Code)
}

// dial returns a client over WebSocket.
func (s *service) dial() *client.Client {
	s.t.Helper()
	c, err := client.New("ws://"+s.host+"/ws", client.WithHTTPClient(s.http))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

func request(s *service) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var messages []string
	result, err := s.dial().RequestWithProgress(ctx, "brew", 3, func(p client.Progress) { messages = append(messages, p.Message) })
	require.NoError(s.t, err)
	require.JSONEq(s.t, `"tea is ready"`, string(result.Data.(json.RawMessage)))
	require.Contains(s.t, messages, "brewing cup 3 of 3")
}

func cancel(s *service) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	r, err := s.dial().Submit(ctx, "brew", 100000)
	require.NoError(s.t, err)
	require.NoError(s.t, r.Cancel(ctx, "cold"))
	_, err = r.Wait(ctx)
	var e *streamer.Error
	require.ErrorAs(s.t, err, &e)
	require.Equal(s.t, streamer.ErrCodeCanceled, e.Code)
}

func follow(s *service) {
	s.submit("followed", "3")
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	r, err := s.dial().Attach(ctx, "followed")
	require.NoError(s.t, err)
	var seqs []uint64
	for e, err := range r.Events(ctx) {
		require.NoError(s.t, err)
		if e.Seq > 0 {
			seqs = append(seqs, e.Seq)
		}
	}
	require.Equal(s.t, []uint64{1, 2, 3, 4, 5, 6}, seqs) // accepted, started, three cups, completed
}

// shutdown stops a service whose work and stream are under way.
func shutdown(t *testing.T, serve func(context.Context, net.Listener) error) {
	s, stop := start(t, serve)
	events := s.open(s.submit("last", "8") + "/events")
	events.until("progress")
	seen := make(chan message, 2)
	go func() {
		defer close(seen)
		for {
			e, err := events.r.Next()
			if err != nil {
				return
			}
			var m message
			if (e.Name == "goaway" || e.Name == "complete") && json.Unmarshal(e.Data, &m) == nil {
				seen <- m
			}
		}
	}()
	stop()
	require.Equal(t, "goaway", (<-seen).Type)
	require.Equal(t, "tea is ready", (<-seen).Result)
}
