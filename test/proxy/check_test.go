package proxy

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/sse"
)

const (
	patience  = 20 * time.Second // for anything that is to happen
	eventSize = 1 << 20
)

// call makes an HTTP call to a URL, or a path below the server's root. Headers are pairs of name
// and value; Host is the name that the call is for.
func (f *front) call(method, url, body string, headers ...string) *http.Response {
	f.t.Helper()
	answer, _ := f.begin(method, url, body, headers...)
	return answer()
}

// begin makes a call, whose answer the first function waits for. The second gives it up.
func (f *front) begin(method, url, body string, headers ...string) (answer func() *http.Response, giveUp func()) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	f.t.Cleanup(cancel)
	if strings.HasPrefix(url, "/") {
		url = f.root + url
	}
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(f.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Host = r.Header.Get("Host") // "": the URL's
	var resp *http.Response
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err = f.http.Do(r)
	}()
	f.t.Cleanup(func() {
		if <-done; err == nil {
			resp.Body.Close()
		}
	})
	return func() *http.Response {
		f.t.Helper()
		<-done
		require.NoError(f.t, err)
		return resp
	}, cancel
}

// message is what of all messages is looked at.
type message struct {
	Type      string          `json:"type"`
	RequestID string          `json:"request_id"`
	Seq       uint64          `json:"seq"`
	Status    any             `json:"status"` // of a problem, a number
	Data      json.RawMessage `json:"data"`
	Code      string          `json:"code"` // of a problem
	Error     *struct {
		Code string `json:"code"`
	} `json:"error"`
}

// body reads the answer, which must have the status.
func (f *front) body(resp *http.Response, status int) message {
	f.t.Helper()
	data, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	require.Equal(f.t, status, resp.StatusCode, "%s", data)
	var m message
	if len(data) > 0 {
		require.NoError(f.t, json.Unmarshal(data, &m), "%s", data)
	}
	return m
}

// submit submits a request of the action work and returns where it is.
func (f *front) submit(id string) string {
	f.t.Helper()
	resp := f.call("POST", "/api/requests", `{"action":"work","id":"`+id+`"}`)
	f.body(resp, http.StatusAccepted)
	where, err := resp.Location()
	require.NoError(f.t, err)
	require.Equal(f.t, f.root+"/api/requests/"+id, where.String())
	return where.String()
}

// stream is an event stream that is being read.
type stream struct {
	f       *front
	answer  *http.Response
	last    string // id
	seqs    []uint64
	arrived chan arrival
}

// arrival is an event, and when it came.
type arrival struct {
	sse.Event
	message
	at time.Time
}

// open opens a stream as a browser would, which takes compressed answers.
func (f *front) open(url string, headers ...string) *stream {
	f.t.Helper()
	headers = append([]string{"Accept", "text/event-stream", "Accept-Encoding", "gzip, deflate, br"}, headers...)
	resp := f.call("GET", url, "", headers...)
	require.Equal(f.t, http.StatusOK, resp.StatusCode)
	require.Equal(f.t, "text/event-stream", resp.Header.Get("Content-Type"))
	require.Empty(f.t, resp.Header.Values("Content-Encoding"))
	st := &stream{f: f, answer: resp, arrived: make(chan arrival, 64)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		st.read()
	}()
	f.t.Cleanup(func() {
		resp.Body.Close()
		for range st.arrived {
		}
		<-read
	})
	return st
}

// read reads what comes, until the stream ends.
func (st *stream) read() {
	defer close(st.arrived)
	for r := sse.NewReader(st.answer.Body, eventSize); ; {
		e, err := r.Next()
		if err != nil {
			return
		}
		a := arrival{Event: e, at: time.Now()}
		if e.Data != nil && json.Unmarshal(e.Data, &a.message) == nil {
			st.arrived <- a
		}
	}
}

// next returns the next event, or false when the stream has ended. It keeps the numbers of the
// log's events.
func (st *stream) next() (arrival, bool) {
	st.f.t.Helper()
	select {
	case a, ok := <-st.arrived:
		if ok {
			st.last = a.ID
			if a.Seq > 0 {
				st.seqs = append(st.seqs, a.Seq)
			}
		}
		return a, ok
	case <-time.After(patience):
		require.FailNow(st.f.t, "nothing comes")
		return arrival{}, false
	}
}

// until reads to the first message of a type.
func (st *stream) until(typ string) arrival {
	st.f.t.Helper()
	for {
		a, ok := st.next()
		require.True(st.f.t, ok, "the stream ended before %q", typ)
		if a.Type == typ {
			return a
		}
	}
}

// ends asserts that the stream says that it ends, and does.
func (st *stream) ends() {
	st.f.t.Helper()
	st.until("end")
	a, ok := st.next()
	require.False(st.f.t, ok, "%+v", a)
}

// numbers returns 1 to n.
func numbers(n uint64) []uint64 {
	return slices.Collect(func(yield func(uint64) bool) {
		for i := uint64(1); i <= n && yield(i); i++ {
		}
	})
}
