package websocket_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
)

func TestShortWorkIsAnsweredByItsEnd(t *testing.T) {
	s := start(t)
	p := s.hello()
	p.send(`{"type":"request","id":"s1","action":"echo","payload":{"a":1e400},"ref":"x"}`)
	m := p.expect("response", "s1")
	require.Equal(t, `{"a":1e400}`, string(m.Data))
	require.Equal(t, "x", m.Ref)
	require.EqualValues(t, 1, m.Seq)
}

func TestLongWorkIsFollowedToItsEnd(t *testing.T) {
	s := start(t)
	p := s.hello()
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	s.worker("r1").Start().Output(`1`).Output(`2`).Complete(`{"n":2}`)
	for seq, typ := range []string{"", "", "status", "output", "output", "complete"} {
		if typ != "" {
			require.EqualValues(t, seq, p.expect(typ, "r1").Seq)
		}
	}
	p.lives()
}

func TestMalformedMessagesAreAnsweredAndTheConnectionLives(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.hello()
	for _, row := range []struct{ name, message, id, ref string }{
		{"not JSON", `hello`, "", ""},
		{"empty", "", "", ""},
		{"another shape", `["request"]`, "", ""},
		{"a string", `"request"`, "", ""},
		{"duplicate keys", `{"type":"request","id":"r1","ref":"a","action":"echo","action":"x"}`, "r1", "a"},
		{"keys that differ in case", `{"type":"request","id":"r1","ref":"b","action":"echo","Action":"x"}`, "r1", "b"},
		{"trailing data", `{"type":"ping"} {"type":"ping"}`, "", ""},
		{"deep nesting", `{"type":"request","id":"r2","action":"echo","payload":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, "r2", ""},
		{"a number where a string belongs", `{"type":"request","id":"r3","ref":"c","action":5}`, "r3", "c"},
		{"no action", `{"type":"request","id":"r4"}`, "r4", ""},
		{"no type and no action", `{"id":"r5"}`, "r5", ""},
		{"an empty id", `{"type":"request","id":"","action":"echo","ref":"d"}`, "", "d"},
		{"a long id", `{"type":"attach","id":"` + strings.Repeat("x", 129) + `","ref":"e"}`, "", "e"},
		{"an id with a control character", `{"type":"cancel","id":"a\u0001","ref":"f"}`, "", "f"},
		{"an id with a space", `{"type":"cancel","id":"a b","ref":"f"}`, "", "f"},
		{"an id with a slash", `{"type":"cancel","id":"a/b","ref":"f"}`, "", "f"},
		{"an id with a star", `{"type":"cancel","id":"*","ref":"f"}`, "", "f"},
		{"an id with an angle bracket", `{"type":"cancel","id":">","ref":"f"}`, "", "f"},
		{"invalid UTF-8", "{\"type\":\"request\",\"action\":\"echo\",\"payload\":\"\xff\"}", "", ""},
		{"a lone surrogate", `{"type":"request","id":"r11","action":"echo","payload":"\ud800"}`, "r11", ""},
		{"a negative after", `{"type":"attach","id":"r6","after":-1}`, "r6", ""},
		{"a fractional after", `{"type":"attach","id":"r6","after":1.5}`, "r6", ""},
		{"a huge after", `{"type":"attach","id":"r6","after":1e30}`, "r6", ""},
		{"metadata that is no string", `{"type":"request","id":"r7","action":"echo","metadata":{"a":1}}`, "r7", ""},
		{"metadata that claims to be another user", `{"type":"request","id":"r8","action":"echo","metadata":{"user_id":"root"}}`, "r8", ""},
		{"metadata of ours", `{"type":"request","id":"r9","action":"echo","metadata":{"streamer.x":"1"}}`, "r9", ""},
		{"a negative timeout", `{"type":"request","id":"r10","action":"echo","timeout_ms":-1}`, "r10", ""},
		{"an auth without a token", `{"type":"auth","ref":"h"}`, "", "h"},
	} {
		p.send(row.message)
		m := p.fails(streamer.ErrCodeValidation, row.id)
		require.Equal(t, row.ref, m.Ref, row.name)
	}
	p.lives()
	require.NotZero(t, s.handler.Stats().Invalid)
}

func TestUnknownTypesAndFieldsAreIgnored(t *testing.T) {
	t.Parallel()
	p := start(t).hello()
	p.send(`{"type":"subscribe","id":"r1"}`)
	p.send(`{"type":"ping","ref":"lives","later":[{}]}`)
	require.Equal(t, "lives", p.expect("pong", "").Ref)
}

func TestUnknownActionIsRefused(t *testing.T) {
	t.Parallel()
	p := start(t).hello()
	p.send(`{"type":"request","id":"r1","action":"nothing"}`)
	p.fails(streamer.ErrCodeInvalidAction, "r1")
	p.lives()
}

func TestBinaryFramesAreRefusedAndTheConnectionLives(t *testing.T) {
	t.Parallel()
	p := start(t).hello()
	require.NoError(t, p.conn.Write(context.Background(), ws.MessageBinary, []byte(`{"type":"ping"}`)))
	p.fails(streamer.ErrCodeValidation, "")
	p.lives()
}

func TestMessagesMayComeInPieces(t *testing.T) {
	t.Parallel()
	p := start(t).hello()
	w, err := p.conn.Writer(context.Background(), ws.MessageText)
	require.NoError(t, err)
	for _, b := range []byte(`{"type":"request","id":"r1","action":"echo","payload":"é"}`) {
		_, err := w.Write([]byte{b})
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.Equal(t, `"é"`, string(p.expect("response", "r1").Data))
}

func TestMessagesUpToTheLimitAreTaken(t *testing.T) {
	t.Parallel()
	p := start(t).hello()
	empty := `{"type":"request","id":"r1","action":"echo","payload":""}`
	payload := `"` + strings.Repeat("x", 64<<10-len(empty)) + `"`
	p.send(strings.Replace(empty, `""`, payload, 1))
	require.Equal(t, payload, string(p.expect("response", "r1").Data))

	p.send(strings.Replace(empty, `""`, payload[:len(payload)-1]+`x"`, 1))
	p.closed(1009)
}

func TestTheCloseFrameOfAMessageThatIsTooBigArrivesThoughMoreIsSent(t *testing.T) {
	t.Parallel()
	p := start(t).hello()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.conn.Write(context.Background(), ws.MessageText, bytes.Repeat([]byte(" "), 1<<20))
	}()
	p.closed(1009)
	<-done
}

func TestPayloadsPassByteForByte(t *testing.T) {
	t.Parallel()
	p := start(t, transport.WithLimits(transport.Limits{MessageBytes: 1 << 20})).hello()
	for i, payload := range []string{
		`123456789012345678901234567890`, strings.Repeat("9", 100_000), `1e400`, `-0.0`, `null`,
		`{"b":1,"a":2,"b":3}`, `"\ud83d\ude00"`, `"\u0000"`, `[1.10,  2]`,
	} {
		id := fmt.Sprintf("r%d", i)
		p.send(`{"type":"request","id":"` + id + `","action":"echo","payload":` + payload + `}`)
		require.Equal(t, payload, string(p.expect("response", id).Data))
	}
}

func TestABatchIsServedMessageByMessage(t *testing.T) {
	t.Parallel()
	p := start(t).hello()
	p.send("{\"type\":\"ping\",\"ref\":\"1\"}\nnonsense\n\n{\"type\":\"ping\",\"ref\":\"2\"}\n")
	require.Equal(t, "1", p.expect("pong", "").Ref)
	p.fails(streamer.ErrCodeValidation, "")
	require.Equal(t, "2", p.expect("pong", "").Ref)
}

func TestWithoutBatchAFrameIsOneMessage(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.connect()
	p.send("{\n\"action\":\"echo\",\n\"id\":\"r1\"}\n")
	p.expect("response", "r1")

	q := s.connect()
	q.send(`{"type":"hello","v":1}`)
	require.Empty(t, q.expect("welcome", "").Caps)
	q.send("{\"type\":\"ping\"}\n{\"type\":\"ping\"}")
	q.fails(streamer.ErrCodeValidation, "")
}

func TestWithoutBatchEveryFrameIsOneMessage(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.connect()
	p.send(`{"type":"hello","v":1}`)
	p.expect("welcome", "")
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	w := s.worker("r1").Start()
	for range 100 {
		w.Output(`"0123456789"`)
	}
	w.Complete(`1`)
	for range 102 {
		p.next()
		require.Empty(t, p.ahead)
	}
}

func TestAnOlderClientGetsOnlyWhatItKnows(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.connect()
	p.send(`{"action":"long","request_id":"r1"}`)
	p.expect("acknowledgment", "r1")
	w := s.worker("r1").Start().Output(`1`).Progress(50)
	require.EqualValues(t, 50, p.expect("progress", "r1").Percentage)
	p.send(`{"type":"cancel","id":"r1","ref":"x"}`)
	require.Equal(t, "canceling", p.expect("acknowledgment", "r1").Status)
	s.worker("r1").Complete(`2`)
	_ = w
	p.expect("complete", "r1")
	p.lives()
}

func TestWscatWithATokenInTheQueryIsServed(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken), transport.WithQueryToken())
	p := s.connect("Query", "Authorization=Bearer%20alice")
	p.send(`{"action":"long","id":"test-123","payload":{"format":"csv"}}`)
	p.expect("acknowledgment", "test-123")
	s.workerOf("/alice", "test-123").Start().Complete(`1`)
	p.expect("complete", "test-123")
}

func TestFirstMessageMayComeWithTheHandshake(t *testing.T) {
	t.Parallel()
	conn := start(t).raw(frame(0x81, `{"type":"ping"}`))
	conn.reads(`{"type":"pong"}`)
}

func TestTooManyMessagesAreRefusedAndAFloodIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithLimits(transport.Limits{MessageRate: 10, MessageBurst: 20}))
	p := s.hello() // one message
	ping := `{"type":"ping"}` + "\n"
	p.send(strings.Repeat(ping, 19) + `{"type":"request","id":"r1","action":"echo","ref":"x"}`)
	for range 19 {
		p.expect("pong", "")
	}
	m := p.fails(streamer.ErrCodeRateLimited, "r1")
	require.Equal(t, "x", m.Ref)
	require.Positive(t, m.Error.RetryAfter)
	require.LessOrEqual(t, m.Error.RetryAfter, 100*time.Millisecond)
	p.send(strings.Repeat(ping, 200))
	require.Contains(t, p.closed(4429), "retry_after_ms=")
	require.NotZero(t, s.handler.Stats().Limited)
}

func TestAFloodOfPingFramesIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithLimits(transport.Limits{MessageRate: 10, MessageBurst: 20}))
	conn := s.raw(nil)
	for range 200 {
		conn.Write(frame(0x89, "hi"))
	}
	conn.reads("\x11\x4dretry_after_ms=") // 4429
}

func TestRequestsInFlightAreLimited(t *testing.T) {
	t.Parallel()
	held := &holding{release: make(chan struct{})}
	s := setup{
		router:  func(r transport.Router) transport.Router { held.Router = r; return held },
		options: []transport.Option{transport.WithLimits(transport.Limits{InFlight: 4})},
	}.start(t)
	p := s.hello()
	for i := range 4 {
		p.send(fmt.Sprintf(`{"type":"request","id":"r%d","action":"echo"}`, i))
	}
	p.send(`{"type":"attach","id":"r9","ref":"x"}`)
	m := p.fails(streamer.ErrCodeRateLimited, "r9")
	require.Positive(t, m.Error.RetryAfter)
	p.lives()
	close(held.release)
	for range 4 {
		require.Equal(t, "response", p.next().Type)
	}
	p.send(`{"type":"request","id":"r9","action":"echo"}`)
	p.expect("response", "r9")
}

// holding holds submits until it is released.
type holding struct {
	transport.Router
	release chan struct{}
}

func (h *holding) Submit(ctx context.Context, who streamer.Identity, req *streamer.Request) (*streamer.Receipt, error) {
	<-h.release
	return h.Router.Submit(ctx, who, req)
}

func TestMessagesAboutOneRequestAreServedInOrder(t *testing.T) {
	t.Parallel()
	held := &holding{release: make(chan struct{})}
	s := setup{router: func(r transport.Router) transport.Router { held.Router = r; return held }}.start(t)
	p := s.hello()
	p.send(`{"type":"request","id":"r1","action":"long"}` + "\n" + `{"type":"detach","id":"r1"}` + "\n" + `{"type":"attach","id":"r1","ref":"x"}`)
	p.lives()
	close(held.release)
	p.expect("acknowledgment", "r1")
	m := p.next()
	if m.Type == "status" { // shown before the detach
		m = p.next()
	}
	require.Equal(t, "attached", m.Type)
	p.expect("status", "r1")
	s.worker("r1").Complete(`1`)
	p.expect("complete", "r1")
}

func TestAPanicClosesTheConnectionAndNothingElse(t *testing.T) {
	t.Parallel()
	s := setup{router: func(r transport.Router) transport.Router { return panicking{r} }}.start(t)
	other := s.hello()
	p := s.hello()
	p.send(`{"type":"request","id":"r1","action":"echo"}`)
	p.closed(4500)
	other.lives()
}

func TestAPanicWhileReadingClosesTheConnectionAndNothingElse(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	other := s.hello("Authorization", "Bearer alice")
	p := s.connect()
	p.send(`{"type":"hello","v":1,"token":"panic"}`)
	p.closed(4500)
	other.lives()
	require.Eventually(t, func() bool { return s.handler.Stats().Connections == 1 }, 5*time.Second, time.Millisecond)
}

func TestItWorksOverTLS(t *testing.T) {
	t.Parallel()
	s := start(t)
	server := httptest.NewTLSServer(s.handler)
	defer server.Close()
	header := http.Header{"Origin": {server.URL}}
	conn, _, err := ws.Dial(context.Background(), server.URL, &ws.DialOptions{HTTPClient: server.Client(), HTTPHeader: header})
	require.NoError(t, err)
	p := &peer{t: t, conn: conn}
	p.lives()
	p.send(`{"type":"hello","v":2}`)
	p.closed(4406)
}

type panicking struct{ transport.Router }

func (panicking) Submit(context.Context, streamer.Identity, *streamer.Request) (*streamer.Receipt, error) {
	panic("no receipt")
}
