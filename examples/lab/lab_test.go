package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/progress"
)

// TestMain runs the lab itself when process started this program as one.
func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

const asProcess = "LAB_AS_PROCESS"

// within returns a context that bounds what a test waits for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// lab is a lab that serves until the end of the test.
type lab struct {
	t    *testing.T
	addr string
	stop func() // sends it SIGTERM, so to say, and waits for it
}

func start(t *testing.T, args ...string) *lab {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), in, io.Discard)
		in.CloseWithError(errors.Join(err, io.EOF))
		done <- err
	}()
	l := &lab{t: t}
	l.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(l.stop)
	var ready struct {
		Ready bool
		Addr  string
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(line), &ready))
	require.True(t, ready.Ready)
	l.addr = ready.Addr
	return l
}

func (l *lab) client(opts ...client.Option) *client.Client {
	l.t.Helper()
	c, err := client.New("ws://"+l.addr+"/ws", opts...)
	require.NoError(l.t, err)
	l.t.Cleanup(func() { c.Close() })
	return c
}

// ask requests an action and returns its result's data, or its error.
func (l *lab) ask(c *client.Client, action, payload string) (string, error) {
	result, err := c.Request(within(l.t, 10*time.Second), action, json.RawMessage(payload))
	if err != nil {
		return "", err
	}
	data, _ := result.Data.(json.RawMessage)
	return string(data), nil
}

func (l *lab) get(path string) int {
	l.t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get("http://" + l.addr + path)
	require.NoError(l.t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func code(t *testing.T, err error) string {
	t.Helper()
	var e *streamer.Error
	require.ErrorAs(t, err, &e)
	return e.Code
}

func TestActionsDoWhatTheirNamesSay(t *testing.T) {
	l := start(t)
	c := l.client()
	for _, row := range []struct{ action, payload, want string }{
		{"echo", `{"n": 12345678901234567890,  "x":[1.0]}`, `{"n": 12345678901234567890,  "x":[1.0]}`},
		{"count", `{"n":3}`, `{"n":3}`},
		{"sleep", `{"ms":1}`, `{"ms":1}`},
		{"stubborn", `{"ms":1}`, `{"ms":1}`},
		{"fail", `{"code":"X","message":"m","retry_ms":1,"times":2}`, `{"attempt":3}`},
		{"crash", `{"attempts":0}`, `{"attempt":1}`},
		{"flood", `{"reports":100000}`, `{"reports":100000}`},
		{"big", `{"bytes":5}`, `{"data":"xxxxx"}`},
		{"late", ``, `{"returned":true}`},
		{"whoami", ``, `{"metadata":{},"tenant_id":"","user_id":""}`},
	} {
		got, err := l.ask(c, row.action, row.payload)
		require.NoError(t, err, row.action)
		require.Equal(t, row.want, got, row.action)
	}
	for _, row := range []struct{ action, payload, want string }{
		{"fail", `{"code":"FORBIDDEN","message":"no"}`, streamer.ErrCodeForbidden},
		{"fail", `{"code":"BUSY","retry_ms":1}`, "BUSY"},
		{"panic", ``, streamer.ErrCodeInternalError},
		{"count", `{"n":"three"}`, streamer.ErrCodeValidation},
		{"nothing", `{}`, streamer.ErrCodeInvalidAction},
	} {
		_, err := l.ask(c, row.action, row.payload)
		require.Equal(t, row.want, code(t, err), row.action)
	}
}

func TestCountMakesPaddedOutputsInOrder(t *testing.T) {
	l := start(t)
	r, err := l.client().Submit(within(t, 10*time.Second), "count", countIn{N: 12, Bytes: 40, Checkpoint: true})
	require.NoError(t, err)
	i := 0
	for e, err := range r.Events(within(t, 10*time.Second)) {
		require.NoError(t, err)
		if e.Kind != progress.Output {
			continue
		}
		var got item
		require.NoError(t, json.Unmarshal(e.Data, &got))
		require.Equal(t, i, got.I)
		require.Len(t, e.Data, 40)
		i++
	}
	require.Equal(t, 12, i)
}

func TestTokensOfDevAreIdentities(t *testing.T) {
	l := start(t, "-auth", "dev")
	got, err := l.ask(l.client(client.WithToken("acme:alice")), "whoami", ``)
	require.NoError(t, err)
	require.JSONEq(t, `{"user_id":"alice","tenant_id":"acme","metadata":{"user_id":"alice","tenant_id":"acme"}}`, got)

	_, err = l.ask(l.client(client.WithToken("nonsense")), "whoami", ``)
	require.Equal(t, streamer.ErrCodeUnauthorized, code(t, err))
}

func TestATokenInTheQueryIsTakenByDev(t *testing.T) {
	l := start(t, "-auth", "dev")
	ctx := within(t, 10*time.Second)
	conn, _, err := websocket.Dial(ctx, "ws://"+l.addr+"/ws?Authorization=Bearer%20acme:alice", nil)
	require.NoError(t, err)
	defer conn.CloseNow()
	require.NoError(t, conn.Write(ctx, websocket.MessageText, []byte(`{"action":"whoami","id":"test-123"}`)))
	var seen []string
	for len(seen) == 0 || seen[len(seen)-1] != "complete" {
		_, data, err := conn.Read(ctx)
		require.NoError(t, err)
		var m struct {
			Type   string
			Result struct {
				User string `json:"user_id"`
			}
		}
		require.NoError(t, json.Unmarshal(data, &m))
		if seen = append(seen, m.Type); m.Type == "complete" {
			require.Equal(t, "alice", m.Result.User)
		}
	}
	require.Equal(t, []string{"acknowledgment", "complete"}, seen)
	require.NoError(t, conn.Close(websocket.StatusNormalClosure, ""))
}

func TestJournalHasALineForEachStartAndEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	l := start(t, "-journal", file)
	c := l.client()
	_, err := l.ask(c, "fail", `{"code":"X","retry_ms":1,"times":1}`)
	require.NoError(t, err)
	_, err = l.ask(c, "panic", ``)
	require.Error(t, err)

	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var lines []string
	for line := range bytes.Lines(data) {
		var entry struct {
			Event, Action string
			Attempt, PID  int
		}
		require.NoError(t, json.Unmarshal(line, &entry))
		require.Equal(t, os.Getpid(), entry.PID)
		lines = append(lines, entry.Action+" "+entry.Event+" "+string(rune('0'+entry.Attempt)))
	}
	require.Equal(t, []string{"fail start 1", "fail end 1", "fail start 2", "fail end 2", "panic start 1", "panic end 1"}, lines)
}

func TestReadinessEndsBeforeTheServiceDoes(t *testing.T) {
	l := start(t)
	require.Equal(t, http.StatusOK, l.get("/livez"))
	require.Equal(t, http.StatusOK, l.get("/readyz"))
	r, err := l.client().Submit(within(t, 10*time.Second), "stubborn", msIn{MS: 500})
	require.NoError(t, err)
	for e, err := range r.Events(within(t, 10*time.Second)) {
		require.NoError(t, err)
		if e.Kind == progress.Started {
			break
		}
	}
	go l.stop()
	require.Eventually(t, func() bool { return l.get("/readyz") == http.StatusServiceUnavailable }, 400*time.Millisecond, 5*time.Millisecond)
	_, err = r.Wait(within(t, 10*time.Second))
	require.NoError(t, err, "what runs is finished, and its viewers see it")
	l.stop()
}

func TestAGatewayRunsNothingAndAWorkerServesNoWebSocket(t *testing.T) {
	gateway := start(t, "-role", "gateway")
	c := gateway.client()
	r, err := c.Submit(within(t, 10*time.Second), "count", countIn{N: 1})
	require.NoError(t, err)
	got, err := gateway.ask(c, "echo", `"short work runs in a gateway"`)
	require.NoError(t, err)
	require.Equal(t, `"short work runs in a gateway"`, got)
	_, err = r.Wait(within(t, 50*time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	worker := start(t, "-role", "worker")
	require.Equal(t, http.StatusOK, worker.get("/readyz"))
	require.Equal(t, http.StatusNotFound, worker.get("/ws"))
}

func TestWrongFlagsAreRefused(t *testing.T) {
	t.Parallel()
	for args, why := range map[string]string{
		"-role boss":                    "-role boss: want",
		"-auth x":                       "-auth x: want",
		"-lease 0s":                     "-lease, ",
		"-attempts 0":                   "-attempts must be",
		"surplus":                       `unexpected argument "surplus"`,
		"-nats n -data d":               "-nats, -data and -sqs: want one of them",
		"-sqs http://s/q -nats n":       "-nats, -data and -sqs: want one of them",
		"-sqs http://s/q -data d":       "-nats, -data and -sqs: want one of them",
		"-sqs http://s/q -replicas 3":   "-replicas 3: want",
		"-sqs http://s/q -table=":       "-table: want the name",
		"-sqs http://s/q -dynamo 127.0": "-dynamo 127.0: want the endpoint",
		"-dynamo http://d":              "-dynamo and -table: want them with -sqs only",
		"-nats n -table t":              "-dynamo and -table: want them with -sqs only",
	} {
		_, err := parse(strings.Fields(args), io.Discard)
		require.ErrorContains(t, err, why, args)
	}
}
