package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/internal/wire/wiretest"
)

// script plays the server's side of a golden conversation, and holds the client to its side.
// It lets the client choose its refs.
type script struct {
	t     *testing.T
	lines []wiretest.Line
	refs  map[string]string // the client's, by the conversation's
	open  map[string]string // the client's, by the id of a request that is not answered

	resumed map[string]wire.Cursor // what the client attached with its hello
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"streamer.v1"}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ctx := context.Background()
	for _, line := range s.lines {
		text := line.Expand(goldenValues())
		if line.From == wiretest.Client {
			if s.attached(text) {
				continue
			}
			_, frame, err := ws.Read(ctx)
			if err != nil {
				return // the test has seen enough
			}
			s.expect(text, frame)
			continue
		}
		if ws.Write(ctx, websocket.MessageText, s.reply(text)) != nil {
			return
		}
	}
	_, _, _ = ws.Read(ctx)
}

func goldenValues() wiretest.Values {
	values := wiretest.Samples()
	values["epoch2"] = "e2"
	values["id"] = "i1"
	return values
}

func (s *script) expect(text string, frame []byte) {
	want, err := wire.DecodeInbound([]byte(text))
	assert.NoError(s.t, err)
	got, err := wire.DecodeInbound(frame)
	assert.NoError(s.t, err)
	s.refs[want.Ref] = got.Ref
	s.open[got.ID] = got.Ref
	want.Ref, got.Ref = "", ""
	want.Client, got.Client = "", ""
	for _, c := range got.Resume {
		s.resumed[c.ID] = c
	}
	want.Resume = got.Resume
	assert.Equal(s.t, want, got)
}

// attached reports whether the client's message is an attach that was made with hello.
func (s *script) attached(text string) bool {
	want, err := wire.DecodeInbound([]byte(text))
	assert.NoError(s.t, err)
	cursor, ok := s.resumed[want.ID]
	if !ok || want.Type != wire.TypeAttach {
		return false
	}
	assert.Equal(s.t, wire.Cursor{ID: want.ID, Epoch: want.Epoch, After: want.After}, cursor)
	delete(s.resumed, want.ID)
	s.refs[want.Ref] = ""
	return true
}

// reply returns a message with the client's ref where it is the first for its request.
func (s *script) reply(text string) []byte {
	m, err := wire.DecodeOutbound([]byte(text))
	assert.NoError(s.t, err)
	ref := s.open[m.RequestID]
	if m.Ref != "" {
		ref = s.refs[m.Ref]
	}
	if m.Ref != "" || m.Type != wire.TypeProgress {
		delete(s.open, m.RequestID)
		m.Ref = ref
	}
	return m.Append(nil)
}

// golden plays a conversation with a client.
func golden(t *testing.T, name string, f func(t *testing.T, ctx context.Context, c *client.Client)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		conversation, ok := wiretest.Load(t)[name]
		require.True(t, ok)
		synctest.Test(t, func(t *testing.T) {
			n := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
			server := &http.Server{Handler: &script{
				t: t, lines: conversation.Messages(), refs: make(map[string]string), open: make(map[string]string),
				resumed: make(map[string]wire.Cursor),
			}}
			served := make(chan struct{})
			go func() {
				defer close(served)
				_ = server.Serve(n)
			}()
			c, err := client.New("ws://server", client.WithLogger(slog.New(slog.DiscardHandler)), client.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: n.dial}}))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			f(t, ctx, c)
			require.NoError(t, c.Close())
			close(n.closed)
			require.NoError(t, server.Close())
			<-served
		})
	})
}

// story returns what an iteration shows, a line an event.
func story(ctx context.Context, r *client.Request) (lines []string, err error) {
	for e, failure := range r.Events(ctx) {
		line := fmt.Sprintf("%d %s", e.Seq, e.Kind)
		switch {
		case e.Gap != nil:
			line = fmt.Sprintf("gap %s %d→%d", e.Gap.Reason, e.Gap.After, e.Gap.Oldest)
		case e.Progress != nil:
			line = fmt.Sprintf("%v%% %s %s", e.Progress.Percentage, e.Progress.Message, e.Progress.Metadata)
		case e.OutputsFrom > 0:
			line += fmt.Sprintf(" outputs from %d", e.OutputsFrom)
		case e.Data != nil:
			line += fmt.Sprintf(" %s", e.Data)
		case e.Reason != "":
			line += " " + e.Reason
		}
		lines = append(lines, line)
		err = failure
	}
	return lines, err
}

func TestGoldenConversations(t *testing.T) {
	golden(t, "queued", func(t *testing.T, ctx context.Context, c *client.Client) {
		r, err := c.Submit(ctx, "export_data", map[string]string{"format": "csv"}, client.WithID("q1"),
			client.WithMetadata(map[string]string{"trace": "00-4bf9"}), client.WithTimeout(10*time.Minute))
		require.NoError(t, err)
		synctest.Wait()
		lines, err := story(ctx, r)
		require.NoError(t, err)
		require.Equal(t, []string{
			"1 accepted", "2 started", `3 output {"text":"Hel"}`, `4 output {"text":"lo"}`,
			`100% Processed 10000/10000 records {"records":10000}`, `5 completed {"url":"https://example.com/export.csv"}`,
		}, lines)
	})
	golden(t, "short", func(t *testing.T, ctx context.Context, c *client.Client) {
		result, err := c.Request(ctx, "echo", json.RawMessage(`{"echo":"hi"}`), client.WithID("s1"),
			client.WithMetadata(map[string]string{"trace": "00-4bf9"}), client.WithTimeout(5*time.Second))
		require.NoError(t, err)
		require.Equal(t, `{"echo":"hi"}`, string(raw(result)))
		result, err = c.Request(ctx, "echo", json.RawMessage(`12345678901234567890.10`), client.WithID("s2"))
		require.NoError(t, err)
		require.Equal(t, `12345678901234567890.10`, string(raw(result)))
		result, err = c.Request(ctx, "echo", json.RawMessage(`null`), client.WithID("s3"))
		require.NoError(t, err)
		require.Equal(t, `null`, string(raw(result)))
		result, err = c.Request(ctx, "touch", nil, client.WithID("s4"))
		require.NoError(t, err)
		require.Nil(t, result.Data)
		result, err = c.Request(ctx, "check", map[string]string{"path": "a b"}, client.WithID("s5"))
		require.NoError(t, err)
		require.False(t, result.Success)
		_, err = c.Request(ctx, "fail", map[string]string{"code": "OUT_OF_PAPER"}, client.WithID("s6"))
		require.Equal(t, "OUT_OF_PAPER", codeOf(err))
	})
	golden(t, "retry", func(t *testing.T, ctx context.Context, c *client.Client) {
		r, err := c.Submit(ctx, "count", map[string]int{"n": 5}, client.WithID("r1"))
		require.NoError(t, err)
		synctest.Wait()
		lines, err := story(ctx, r)
		require.Equal(t, "PROCESSING_FAILED", codeOf(err))
		require.Equal(t, []string{
			"1 accepted", "2 started", `3 output {"i":0}`, `4 output {"i":1}`, "5 retrying error",
			"6 started outputs from 1", `7 output {"i":1}`, "8 retrying lost", "9 started", "10 retrying shutdown", "11 started",
			"12 failed",
		}, lines)
	})
	golden(t, "cancel", func(t *testing.T, ctx context.Context, c *client.Client) {
		r, err := c.Submit(ctx, "sleep", map[string]int{"ms": 60000}, client.WithID("c1"))
		require.NoError(t, err)
		require.NoError(t, r.Cancel(ctx, "user pressed stop"))
		lines, err := story(ctx, r)
		require.Equal(t, "CANCELED", codeOf(err))
		require.Equal(t, []string{"1 accepted", "2 started", "3 canceling user pressed stop", "4 canceled"}, lines)
	})
	golden(t, "duplicate", func(t *testing.T, ctx context.Context, c *client.Client) {
		for range 2 {
			r, err := c.Submit(ctx, "count", map[string]int{"n": 1}, client.WithID("d1"))
			require.NoError(t, err)
			lines, err := story(ctx, r)
			require.NoError(t, err)
			require.Equal(t, []string{"1 accepted", "2 started", `3 output {"i":0}`, `4 completed {"n":1}`}, lines)
		}
		_, err := c.Submit(ctx, "count", map[string]int{"n": 2}, client.WithID("d1"))
		require.Equal(t, "CONFLICT", codeOf(err))
	})
	golden(t, "gap", func(t *testing.T, ctx context.Context, c *client.Client) {
		first := func(r *client.Request, n int) (lines []string) {
			for e, err := range r.Events(ctx) {
				require.NoError(t, err)
				if e.Gap != nil {
					lines = append(lines, fmt.Sprintf("gap %s %d→%d", e.Gap.Reason, e.Gap.After, e.Gap.Oldest))
				} else {
					lines = append(lines, fmt.Sprintf("%d %s", e.Seq, e.Kind))
				}
				if len(lines) == n {
					break
				}
			}
			return lines
		}
		r, err := c.Attach(ctx, "g1", client.After("k0", 41))
		require.NoError(t, err)
		require.Equal(t, []string{"gap recreated 41→1", "1 accepted"}, first(r, 2))
		r, err = c.Attach(ctx, "g2", client.After("e2", 41))
		require.NoError(t, err)
		require.Equal(t, []string{"gap expired 41→90", "90 output", "91 output"}, first(r, 3))
	})
}
