package transport_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	events "github.com/pay-theory/streamer/v2/internal/sse"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/internal/wire/wiretest"
)

// origin is where the service is, to clients that dial its listener.
const origin = "http://127.0.0.1:1"

// socket is a peer over WebSocket.
type socket struct {
	s     *service
	conn  *ws.Conn
	ahead []string // messages of a frame that was read
	aside []string // what about has read beside what it looked for
}

func connectSocket(s *service) peer {
	tr := &http.Transport{DialContext: s.listen.Dial, DisableKeepAlives: true}
	conn, _, err := ws.Dial(context.Background(), origin+"/ws", &ws.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.CloseNow() })
	return &socket{s: s, conn: conn}
}

func (p *socket) send(frame string) {
	require.NoError(p.s.t, p.conn.Write(context.Background(), ws.MessageText, []byte(frame)))
}

func (p *socket) about(id string) string {
	p.s.t.Helper()
	return sift(&p.aside, id, p.read)
}

func (p *socket) read() string {
	p.s.t.Helper()
	if len(p.ahead) == 0 {
		_, data, err := p.conn.Read(context.Background())
		require.NoError(p.s.t, err)
		p.ahead = strings.Split(string(data), "\n")
	}
	message := p.ahead[0]
	p.ahead = p.ahead[1:]
	return message
}

func (p *socket) expects(line wiretest.Line) (wiretest.Line, bool) { return line, true }

func (p *socket) lives() {
	p.s.t.Helper()
	p.send(`{"type":"ping","ref":"lives"}`)
	require.Equal(p.s.t, `{"type":"pong","ref":"lives"}`, p.read())
}

// sift returns the next message about a request, of those put aside or that come.
func sift(aside *[]string, id string, read func() string) string {
	for i, message := range *aside {
		if requestID(message) == id {
			*aside = slices.Delete(*aside, i, i+1)
			return message
		}
	}
	for {
		message := read()
		if got := requestID(message); got == id || id == "${id}" {
			return message
		}
		*aside = append(*aside, message)
	}
}

// caller is what peers over HTTP have in common: what is asked in a message they ask with a
// call, and what follows they read with what the transport has for that.
type caller struct {
	s       *service
	http    *http.Client
	follow  func(c wire.Cursor, shown bool) follower
	replies []string            // answers to calls, as messages
	follows map[string]follower // by request
}

// follower reads the messages of one request.
type follower interface {
	read() string
	close()
}

func newCaller(s *service) *caller {
	tr := &http.Transport{DialContext: s.listen.Dial}
	c := &caller{s: s, http: &http.Client{Transport: tr}, follows: map[string]follower{}}
	s.t.Cleanup(func() {
		for _, f := range c.follows {
			f.close()
		}
		tr.CloseIdleConnections()
	})
	return c
}

func (c *caller) do(method, path, body string, header ...string) (*http.Response, string) {
	c.s.t.Helper()
	resp := c.open(method, path, body, header...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(c.s.t, err)
	return resp, string(text)
}

func (c *caller) open(method, path, body string, header ...string) *http.Response {
	c.s.t.Helper()
	req, err := http.NewRequest(method, origin+path, strings.NewReader(body))
	require.NoError(c.s.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	require.NoError(c.s.t, err)
	return resp
}

func (c *caller) send(frame string) {
	c.s.t.Helper()
	m, err := wire.DecodeInbound([]byte(frame))
	switch {
	case err != nil || m.Type == wire.TypeRequest:
		c.submit(frame)
	case m.Type == wire.TypeHello:
		for _, cursor := range m.Resume {
			c.attach(cursor, false)
		}
	case m.Type == wire.TypeAttach:
		c.attach(wire.Cursor{ID: m.ID, Epoch: m.Epoch, After: m.After}, false)
	case m.Type == wire.TypeDetach:
		c.detach(m.ID)
	case m.Type == wire.TypeCancel:
		c.cancel(m)
	}
}

func (c *caller) submit(body string) {
	resp, text := c.do("POST", "/requests", body, "Content-Type", "application/json")
	if resp.StatusCode != http.StatusAccepted {
		c.replies = append(c.replies, message(resp, text))
		return
	}
	before, _, found := strings.Cut(text, `,"links":`)
	require.True(c.s.t, found, text)
	ack := before + "}"
	c.replies = append(c.replies, ack)
	m, err := wire.DecodeOutbound([]byte(ack))
	require.NoError(c.s.t, err)
	c.attach(wire.Cursor{ID: m.RequestID, Epoch: m.Epoch, After: 1}, true)
}

// attach follows a request. Where that was just submitted, what a stream says first is not
// news.
func (c *caller) attach(cursor wire.Cursor, submitted bool) {
	c.detach(cursor.ID)
	c.follows[cursor.ID] = c.follow(cursor, submitted)
}

func (c *caller) detach(id string) {
	if f := c.follows[id]; f != nil {
		f.close()
		delete(c.follows, id)
	}
}

// cancel has an answer of its own only where nothing that is followed shows it.
func (c *caller) cancel(m *wire.Inbound) {
	resp, text := c.do("DELETE", "/requests/"+m.ID+"?reason="+url.QueryEscape(m.Reason), "")
	switch resp.StatusCode {
	case http.StatusOK:
		var snapshot struct {
			Seq   uint64
			Error json.RawMessage
		}
		require.NoError(c.s.t, json.Unmarshal([]byte(text), &snapshot))
		c.replies = append(c.replies, fmt.Sprintf(`{"type":"error","request_id":%q,"seq":%d,"error":%s}`, m.ID, snapshot.Seq, snapshot.Error))
	case http.StatusAccepted:
	default:
		c.replies = append(c.replies, message(resp, text))
	}
}

// message returns the answer to a call as the message that it is elsewhere.
func message(resp *http.Response, text string) string {
	if resp.Header.Get("Content-Type") != "application/problem+json" {
		return text
	}
	var p struct {
		Code, Detail string
		RequestID    string `json:"request_id"`
		Seq          uint64
		Details      json.RawMessage
		RetryAfterMS int64 `json:"retry_after_ms"`
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return text
	}
	id, seq, more := "", "", ""
	if p.RequestID != "" {
		id = fmt.Sprintf(`,"request_id":%q`, p.RequestID)
	}
	if p.Seq > 0 {
		seq = fmt.Sprintf(`,"seq":%d`, p.Seq)
	}
	if p.Details != nil {
		more = fmt.Sprintf(`,"details":%s`, p.Details)
	}
	if p.RetryAfterMS > 0 {
		more += fmt.Sprintf(`,"retry_after_ms":%d`, p.RetryAfterMS)
	}
	return fmt.Sprintf(`{"type":"error"%s%s,"error":{"code":%q,"message":%q%s}}`, id, seq, p.Code, p.Detail, more)
}

func (c *caller) about(id string) string {
	c.s.t.Helper()
	if i := slices.IndexFunc(c.replies, func(m string) bool { return requestID(m) == id || id == "${id}" || id == "" }); i >= 0 {
		reply := c.replies[i]
		c.replies = slices.Delete(c.replies, i, i+1)
		return reply
	}
	if id == "" { // goaway comes on every stream
		for _, f := range c.follows {
			return f.read()
		}
	}
	require.NotNil(c.s.t, c.follows[id], "nothing follows %q", id)
	return c.follows[id].read()
}

// expects knows that there is no hello, and that calls need no ref.
func (c *caller) expects(line wiretest.Line) (wiretest.Line, bool) {
	line.Text = refs.ReplaceAllString(line.Text, "")
	return line, !strings.Contains(line.Text, `"type":"welcome"`)
}

func (c *caller) lives() { require.Empty(c.s.t, c.replies) }

// stream follows by server-sent events.
type stream struct {
	c       *caller
	id      string
	resp    *http.Response
	r       *events.Reader
	problem string // in its place
	shown   bool   // skip what comes first
}

func connectStream(s *service) peer {
	c := newCaller(s)
	c.follow = func(at wire.Cursor, shown bool) follower {
		resp := c.open("GET", fmt.Sprintf("/requests/%s/events?epoch=%s&after=%d", at.ID, at.Epoch, at.After), "")
		f := &stream{c: c, id: at.ID, resp: resp, shown: shown}
		if resp.StatusCode != http.StatusOK {
			text, err := io.ReadAll(resp.Body)
			require.NoError(s.t, err)
			f.problem = message(resp, string(text))
			return f
		}
		f.r = events.NewReader(resp.Body, 1<<20)
		return f
	}
	return c
}

func (f *stream) read() string {
	f.c.s.t.Helper()
	if f.r == nil {
		return f.problem
	}
	for {
		e, err := f.r.Next()
		require.NoError(f.c.s.t, err)
		switch {
		case e.Data == nil || e.Name == wire.TypePing:
		case f.shown:
			f.shown = false
		default:
			return string(e.Data)
		}
	}
}

func (f *stream) close() { f.resp.Body.Close() }

// poll follows by asking again and again.
type poll struct {
	c     *caller
	at    wire.Cursor
	etag  string
	first bool // attached is shown once
	ahead []string
	known string // progress, which each page shows
}

func connectPoll(s *service) peer {
	c := newCaller(s)
	c.follow = func(at wire.Cursor, shown bool) follower { return &poll{c: c, at: at, first: !shown} }
	return c
}

func (f *poll) read() string {
	t := f.c.s.t
	t.Helper()
	for began := time.Now(); len(f.ahead) == 0; {
		require.Less(t, time.Since(began), time.Minute, "nothing comes about %s", f.at.ID)
		path := fmt.Sprintf("/requests/%s/events?epoch=%s&after=%d", f.at.ID, f.at.Epoch, f.at.After)
		resp, text := f.c.do("GET", path, "", "Accept", "application/json", "Prefer", "wait=1", "If-None-Match", f.etag)
		if resp.StatusCode == http.StatusNotModified {
			continue
		}
		if resp.StatusCode != http.StatusOK {
			return message(resp, text)
		}
		f.etag = resp.Header.Get("ETag")
		var page struct{ Events []json.RawMessage }
		require.NoError(t, json.Unmarshal([]byte(text), &page))
		for _, raw := range page.Events {
			f.take(string(raw))
		}
		f.first = false
	}
	message := f.ahead[0]
	f.ahead = f.ahead[1:]
	return message
}

func (f *poll) take(text string) {
	m, err := wire.DecodeOutbound([]byte(text))
	require.NoError(f.c.s.t, err)
	switch {
	case m.Type == wire.TypeAttached:
		f.at.Epoch = m.Epoch
		if !f.first {
			return
		}
	case m.Type == wire.TypeGap:
		f.at.Epoch, f.at.After = m.Epoch, m.Oldest-1
	case m.Type == wire.TypeProgress:
		if text == f.known {
			return
		}
		f.known = text
	case m.Seq > 0:
		require.Equal(f.c.s.t, f.at.After+1, m.Seq)
		f.at.After = m.Seq
	}
	f.ahead = append(f.ahead, text)
}

func (f *poll) close() {}
