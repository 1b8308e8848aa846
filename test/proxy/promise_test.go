package proxy

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/progress"
)

// promises are what holds behind every configuration of docs/proxies.
func promises(t *testing.T, start func(*testing.T, *upstream) *front) {
	for name, check := range map[string]func(*upstream, *front){
		"events come at once, each once":                         live,
		"a submit that waits is answered with the result":        wait,
		"a long poll is answered when something happens":         poll,
		"a cancel ends the request":                              cancelOverHTTP,
		"bodies of 64 KiB pass, the server refuses larger ones":  bodies,
		"a client that goes away cancels nothing":                leave,
		"requests over WebSocket show progress and can be ended": overWebSocket,
		"a WebSocket resumes without a gap when the server dies": resumeOverWebSocket,
		"an event stream resumes without a gap when it dies":     resumeStream,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := startUpstream(t)
			check(u, start(t, u))
		})
	}
}

const (
	samples = 5
	prompt  = 200 * time.Millisecond
)

// live follows requests that report progress while they are watched.
func live(u *upstream, f *front) {
	var delays []time.Duration
	for i := range samples {
		id := fmt.Sprintf("r%d", i)
		st := f.open(f.submit(id) + "/events")
		st.until("attached")
		began := u.report(id, 50)
		delays = append(delays, st.until("progress").at.Sub(began))
		for n := range 3 {
			u.output(id, n)
			require.Equal(f.t, fmt.Sprint(n), string(st.until("output").message.Data))
		}
		u.finish(id)
		st.ends()
		require.Equal(f.t, numbers(6), st.seqs) // accepted, started, three outputs, completed
	}
	// The middle one, since this machine may have more to do than this.
	slices.Sort(delays)
	f.t.Logf("first progress %v after its report (least, median, most)", []time.Duration{delays[0], delays[samples/2], delays[samples-1]})
	require.Less(f.t, delays[samples/2], prompt)
}

func wait(u *upstream, f *front) {
	answer, _ := f.begin("POST", "/api/requests", `{"action":"work","id":"r1"}`, "Prefer", "wait=10")
	u.finish("r1")
	require.Equal(f.t, "complete", f.body(answer(), http.StatusOK).Type)
}

func poll(u *upstream, f *front) {
	where := f.submit("r1")
	u.output("r1", 0)
	resp := f.call("GET", where, "")
	require.Equal(f.t, "running", f.body(resp, http.StatusOK).Status)
	tag := resp.Header.Get("ETag")
	f.body(f.call("GET", where, "", "If-None-Match", tag), http.StatusNotModified)
	answer, _ := f.begin("GET", where, "", "If-None-Match", tag, "Prefer", "wait=15")
	u.output("r1", 1)
	require.EqualValues(f.t, 4, f.body(answer(), http.StatusOK).Seq)
	require.NotEqual(f.t, tag, answer().Header.Get("ETag"))
}

func cancelOverHTTP(u *upstream, f *front) {
	where := f.submit("r1")
	st := f.open(where + "/events")
	u.output("r1", 0)
	require.Equal(f.t, "canceling", f.body(f.call("DELETE", where+"?reason=enough", ""), http.StatusAccepted).Status)
	require.Equal(f.t, streamer.ErrCodeCanceled, st.until("error").Error.Code)
	st.ends()
}

func bodies(_ *upstream, f *front) {
	of := func(size int) string {
		head, tail := `{"action":"echo","payload":"`, `"}`
		return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
	}
	const most = 64 << 10
	m := f.body(f.call("POST", "/api/requests", of(most)), http.StatusOK)
	require.Greater(f.t, len(m.Data), most-100)
	resp := f.call("POST", "/api/requests", of(most+1))
	require.Equal(f.t, "application/problem+json", resp.Header.Get("Content-Type"))
	require.Equal(f.t, streamer.ErrCodePayloadTooLarge, f.body(resp, http.StatusRequestEntityTooLarge).Code)
}

// leave goes away from a stream, a wait and a WebSocket.
func leave(u *upstream, f *front) {
	where := f.submit("r1")
	st := f.open(where + "/events")
	u.output("r1", 0)
	st.until("output")
	c := f.dial()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	_, err := c.Attach(ctx, "r1")
	require.NoError(f.t, err)
	_, giveUp := f.begin("GET", where, "", "Prefer", "wait=60")
	require.Eventually(f.t, func() bool { return u.serving.api.Stats().Active == 2 }, patience, 5*time.Millisecond, "the wait does not arrive")

	giveUp()
	st.answer.Body.Close()
	require.NoError(f.t, c.Close())
	u.alone()
	u.output("r1", 1)
	u.finish("r1")
	require.Equal(f.t, "completed", f.body(f.call("GET", where, "", "Prefer", "wait=10"), http.StatusOK).Status)
}

// dial returns a client over WebSocket that comes back soon when it has lost the server.
func (f *front) dial(options ...client.Option) *client.Client {
	f.t.Helper()
	options = append(options, client.WithHTTPClient(f.http), client.WithBackoff(10*time.Millisecond, 100*time.Millisecond))
	c, err := client.New(strings.Replace(f.root, "http", "ws", 1)+"/ws", options...)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { c.Close() })
	return c
}

func overWebSocket(u *upstream, f *front) {
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	c := f.dial()
	r, err := c.Submit(ctx, "work", nil, client.WithID("r1"))
	require.NoError(f.t, err)
	u.output("r1", 0)
	u.report("r1", 50)
	u.finish("r1")
	var seen []progress.Kind
	for e, err := range r.Events(ctx) {
		require.NoError(f.t, err)
		seen = append(seen, e.Kind)
	}
	require.Subset(f.t, seen, []progress.Kind{progress.Started, progress.Output, client.Progressed, progress.Completed})

	r, err = c.Submit(ctx, "work", nil, client.WithID("r2"))
	require.NoError(f.t, err)
	require.NoError(f.t, r.Cancel(ctx, "enough"))
	_, err = r.Wait(ctx)
	var e *streamer.Error
	require.ErrorAs(f.t, err, &e)
	require.Equal(f.t, streamer.ErrCodeCanceled, e.Code)
}

func resumeOverWebSocket(u *upstream, f *front) {
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	lost := make(chan struct{}, 16)
	c := f.dial(client.WithStateFunc(func(s client.State) {
		if s.Phase == client.Reconnecting && s.Attempt > 2 { // it met the proxy without a server behind
			select {
			case lost <- struct{}{}:
			default:
			}
		}
	}))
	r, err := c.Submit(ctx, "work", nil, client.WithID("r1"))
	require.NoError(f.t, err)
	read := make(chan []client.Event, 1)
	go func() {
		var events []client.Event
		for e := range r.Events(ctx) {
			events = append(events, e)
		}
		read <- events
	}()
	u.output("r1", 0)
	u.kill()
	<-lost
	u.output("r1", 1)
	u.up()
	u.output("r1", 2)
	u.finish("r1")
	var seqs []uint64
	for _, e := range <-read {
		require.NotEqual(f.t, client.Gap, e.Kind)
		if e.Seq > 0 {
			seqs = append(seqs, e.Seq)
		}
	}
	require.Equal(f.t, numbers(6), seqs)
}

func resumeStream(u *upstream, f *front) {
	where := f.submit("r1")
	first := f.open(where + "/events")
	u.output("r1", 0)
	first.until("output")
	u.kill()
	for ok := true; ok; {
		_, ok = first.next()
	}
	u.output("r1", 1)
	require.Equal(f.t, http.StatusBadGateway, f.call("GET", where, "").StatusCode)
	u.up()
	second := f.open(where+"/events", "Last-Event-ID", first.last)
	u.finish("r1")
	second.ends()
	require.Equal(f.t, numbers(5), append(first.seqs, second.seqs...))
}
