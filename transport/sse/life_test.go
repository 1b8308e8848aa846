package sse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/sse"
)

func TestStreamsEndAfterMinutesToBeResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		began := time.Now()
		st := s.stream("/requests/r1/events")
		last := ""
		for {
			_, m, err := st.read()
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			last = m.Type
		}
		require.Equal(t, "ping", last, "no end is said")
		require.GreaterOrEqual(t, time.Since(began), 8*time.Minute)
		require.LessOrEqual(t, time.Since(began), 10*time.Minute)
		require.Equal(t, 0, s.handler.Stats().Streams)
	})
}

func TestADrainingServerTellsClientsToMoveAndGoesOnShowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		st := s.stream("/requests/r1/events")
		st.expect("attached", "r1")
		st.expect("status", "r1")
		st.expect("status", "r1")
		drained := make(chan error)
		go func() { drained <- s.mux.Shutdown(context.Background()) }()
		m := st.expect("goaway", "")
		require.Equal(t, "restart", m.Reason)
		require.LessOrEqual(t, m.ReconnectInMS, int64(5000))
		require.EqualValues(t, 20_000, m.DeadlineMS)
		s.call("POST", "/requests", `{"action":"work"}`).problem(503, "SERVICE_UNAVAILABLE")
		s.call("GET", "/requests/r1", "").is(200)
		s.puts("r1", 1)
		st.expect("output", "r1")
		s.finishes("r1")
		st.expect("complete", "r1")
		st.ends()
		require.NoError(t, <-drained)
	})
}

func TestShutdownEndsStreamsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		for i := range 100 {
			id := fmt.Sprint("r", i)
			s.submits(id)
			st := s.stream("/requests/" + id + "/events")
			go io.Copy(io.Discard, st.resp.Body)
		}
		require.Equal(t, 100, s.handler.Stats().Streams)
		require.Equal(t, 100, s.handler.Stats().Attached)
		waiting := make(chan *answer)
		go func() { waiting <- s.call("GET", "/requests/r1", "", "Prefer", "wait=60") }()
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		require.NoError(t, s.handler.Shutdown(ctx))
		require.Less(t, time.Since(began), time.Second)
		require.Greater(t, time.Since(began), 100*time.Millisecond, "clients would all come back at once")
		require.Equal(t, "running", (<-waiting).is(200).members()["status"])
		require.Zero(t, s.handler.Stats().Streams)
		require.Zero(t, s.handler.Stats().Attached)
		require.Zero(t, s.handler.Stats().Active)
		s.call("GET", "/requests/r1", "").problem(503, "SERVICE_UNAVAILABLE")
		require.NoError(t, s.handler.Shutdown(ctx))
	})
}

// deaf opens a stream and never reads from it.
func (s *service) deaf(path string) net.Conn {
	s.t.Helper()
	conn, err := s.http.Transport.(*http.Transport).DialContext(context.Background(), "tcp", s.addr)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	_, err = conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"))
	require.NoError(s.t, err)
	return conn
}

func TestAClientThatDoesNotReadIsCutAndHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		began := time.Now()
		conn := s.deaf("/requests/r1/events")
		st := s.stream("/requests/r1/events")
		st.expect("attached", "r1")
		st.expect("status", "r1")
		st.expect("status", "r1")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, s.handler.Stats().Streams)
		require.EqualValues(t, 1, s.handler.Stats().TimedOut)
		require.Equal(t, 11*time.Second, time.Since(began))
		s.finishes("r1")
		st.expect("complete", "r1")
		conn.Close()
	})
}

func TestShutdownDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, transport.WithWriteTimeout(time.Hour))
		s.submits("r1")
		conn := s.deaf("/requests/r1/events")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, s.handler.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Zero(t, s.handler.Stats().Active)
		conn.Close()
	})
}

func TestASlowReaderGetsEveryEventAndMergedProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		conn := s.deaf("/requests/r1/events")
		s.does("r1", func(ctx context.Context, p streamer.Reporter) error {
			for i := range 1000 {
				p.Report(float64(i)/10, strings.Repeat("x", 100))
				if err := streamer.Output(ctx, i); err != nil {
					return err
				}
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		})
		time.Sleep(5100 * time.Millisecond) // all of that, within the time a write may take
		s.finishes("r1")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		st := s.streaming(resp)
		st.expect("attached", "r1")
		seq, reports := uint64(0), 0
		for {
			_, m, err := st.read()
			require.NoError(t, err)
			if m.Type == wire.TypeEnd {
				break
			}
			if m.Type == wire.TypeProgress {
				reports++
				continue
			}
			seq++
			require.Equal(t, seq, m.Seq)
		}
		require.EqualValues(t, 1003, seq)
		require.Less(t, reports, 20)
	})
}

// unflushable hides what is behind it, as middleware does that was written for short answers.
type unflushable struct{ w http.ResponseWriter }

func (u unflushable) Header() http.Header         { return u.w.Header() }
func (u unflushable) Write(b []byte) (int, error) { return u.w.Write(b) }
func (u unflushable) WriteHeader(status int)      { u.w.WriteHeader(status) }

// transparent shows what is behind it.
type transparent struct{ http.ResponseWriter }

func (w transparent) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestMiddlewareThatCanNotFlushIsAClearError(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"hides all": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(unflushable{w}, r) })
		},
		"TimeoutHandler": func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") },
	} {
		t.Run(name, func(t *testing.T) {
			s := setup{wrap: wrap}.start(t)
			a := s.call("POST", "/requests", `{"action":"work","id":"r1"}`, "Accept", "text/event-stream")
			require.Contains(t, a.problem(500, "INTERNAL_ERROR"), "Unwrap")
			s.call("GET", "/requests/r1", "").problem(404, "NOT_FOUND") // nothing was submitted
			s.submits("r1")
			s.call("GET", "/requests/r1/events", "").problem(500, "INTERNAL_ERROR")
			s.call("GET", "/events?r=r1", "").problem(500, "INTERNAL_ERROR")
			s.call("GET", "/requests/r1/events", "", "Accept", "application/json").is(200)
			s.call("GET", "/requests/r1", "").is(200)
		})
	}
	s := setup{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(transparent{transparent{w}}, r) })
	}}.start(t)
	s.submits("r1")
	s.stream("/requests/r1/events").expect("attached", "r1")
}

// failing is a client whose connection takes writes, but can't flush them.
type failing struct{ *httptest.ResponseRecorder }

func (failing) FlushError() error { return errors.New("gone") }

func TestAFlushThatFailsEndsTheStream(t *testing.T) {
	s := start(t)
	s.submits("r1")
	s.handler.ServeHTTP(failing{httptest.NewRecorder()}, httptest.NewRequest("GET", "/requests/r1/events", nil))
}

// stuck is a log whose reads fail while it is told so.
type stuck struct {
	progress.Log
	down atomic.Bool
	only string // the request whose reads fail; "": all
}

func (l *stuck) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if l.down.Load() && (l.only == "" || l.only == key.ID) {
		return progress.Page{}, fmt.Errorf("secret: %w", progress.ErrUnavailable)
	}
	return l.Log.Read(ctx, key, after, limit)
}

func TestAStoreThatIsAwayForAWhileIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log *stuck
		s := setup{log: func(l progress.Log) progress.Log { log = &stuck{Log: l}; return log }}.start(t)
		s.submits("r1")
		st := s.stream("/requests/r1/events")
		st.expect("attached", "r1")
		st.expect("status", "r1")
		st.expect("status", "r1")
		log.down.Store(true)
		s.puts("r1", 1)
		time.Sleep(5 * time.Second)
		a := s.call("GET", "/requests/r1/events", "")
		require.NotContains(t, a.text, "secret")
		a.problem(503, "SERVICE_UNAVAILABLE")
		require.Equal(t, "1", a.Header.Get("Retry-After"))
		s.call("GET", "/requests/r1", "").problem(503, "SERVICE_UNAVAILABLE")
		log.down.Store(false)
		st.expect("output", "r1")
		log.down.Store(true)
		s.puts("r1", 2)
		began := time.Now()
		m := st.expect("ping", "")
		for m.Type == "ping" {
			_, m, _ = st.read()
		}
		require.Equal(t, "SERVICE_UNAVAILABLE", m.Error.Code)
		require.Zero(t, m.Seq)
		require.Less(t, time.Since(began), time.Minute)
		log.down.Store(false)
	})
}

func TestABrowserComesBackForWhatCouldNotBeReadThisTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log *stuck
		s := setup{log: func(l progress.Log) progress.Log { log = &stuck{Log: l, only: "r2"}; return log }}.start(t)
		s.submits("r1")
		s.submits("r2")
		s.finishes("r1")
		synctest.Wait()
		log.down.Store(true)
		// After 204 it would not.
		s.call("GET", "/events?r=r1::3&r=r2", "").problem(503, "SERVICE_UNAVAILABLE")
		log.down.Store(false)
		s.stream("/events?r=r1::3&r=r2").expect("attached", "r1")
	})
}

func TestInvalidUsePanics(t *testing.T) {
	require.PanicsWithValue(t, "sse: NewHandler: the router is nil", func() { sse.NewHandler(nil) })
	require.Panics(t, func() { sse.NewHandler(streamer.NewRouter(), transport.WithWriteTimeout(0)) })
}
