package sse_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
)

func TestASnapshotShowsHowTheRequestStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		s.does("r1", func(ctx context.Context, p streamer.Reporter) error {
			p.SetMetadata("rows", 7)
			p.Report(45.5, "Processed 4550/10000 records")
			return streamer.Output(ctx, "x")
		})
		synctest.Wait()
		a := s.call("GET", "/requests/r1", "").is(200)
		m := a.members()
		require.Equal(t, "snapshot", m["type"])
		require.Equal(t, "work", m["action"])
		require.Equal(t, "running", m["status"])
		require.EqualValues(t, 3, m["seq"])
		require.EqualValues(t, 1, m["attempt"])
		require.Equal(t, "1", a.Header.Get("Retry-After"))
		p := m["progress"].(map[string]any)
		require.Equal(t, 45.5, p["percentage"])
		require.Equal(t, "Processed 4550/10000 records", p["message"])
		require.Equal(t, map[string]any{"rows": 7.0}, p["metadata"])

		s.finishes("r1")
		synctest.Wait()
		a = s.call("GET", "/requests/r1", "").is(200)
		m = a.members()
		require.Equal(t, "completed", m["status"])
		require.Equal(t, true, m["success"])
		require.Equal(t, "done", m["result"])
		require.Empty(t, a.Header.Get("Retry-After"))

		s.submits("r2")
		s.fails("r2", streamer.NewError("OUT_OF_PAPER", "tray 2"))
		synctest.Wait()
		m = s.call("GET", "/requests/r2", "").is(200).members()
		require.Equal(t, "failed", m["status"])
		require.Equal(t, map[string]any{"code": "OUT_OF_PAPER", "message": "tray 2"}, m["error"])
		require.NotContains(t, m, "result")

		head := s.call("HEAD", "/requests/r1", "").is(200)
		require.Equal(t, a.Header.Get("ETag"), head.Header.Get("ETag"))
		require.Empty(t, head.text)
	})
}

func TestALongPollIsAnsweredWhenSomethingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		synctest.Wait()
		etag := s.call("GET", "/requests/r1", "").Header.Get("ETag")
		require.Regexp(t, `^"[a-z0-9]+"$`, etag)

		began := time.Now()
		a := s.call("GET", "/requests/r1", "", "If-None-Match", etag).is(304)
		require.Zero(t, time.Since(began))
		require.Empty(t, a.text)
		require.Equal(t, etag, a.Header.Get("ETag"))
		s.call("GET", "/requests/r1", "", "If-None-Match", "*").is(304)
		s.call("GET", "/requests/r1", "", "If-None-Match", `"x", W/`+etag).is(304)
		s.call("GET", "/requests/r1", "", "If-None-Match", `"x"`).is(200)

		a = s.call("GET", "/requests/r1", "", "If-None-Match", etag, "Prefer", "wait=20").is(304)
		require.Equal(t, 20*time.Second, time.Since(began))
		require.Equal(t, "wait=20", a.Header.Get("Preference-Applied"))

		for _, change := range []func(){
			func() { s.reports("r1", 10) }, func() { s.reports("r1", 20) }, func() { s.puts("r1", "x") }, func() { s.finishes("r1") },
		} {
			time.AfterFunc(5*time.Second, change)
			began = time.Now()
			a = s.call("GET", "/requests/r1", "", "If-None-Match", etag, "Prefer", "wait=20").is(200)
			require.GreaterOrEqual(t, time.Since(began), 5*time.Second, "%s", a.text)
			require.Less(t, time.Since(began), 5*time.Second+200*time.Millisecond)
			require.NotEqual(t, etag, a.Header.Get("ETag"))
			etag = a.Header.Get("ETag")
		}
	})
}

func TestAWaitWithoutETagIsForTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		time.AfterFunc(time.Second, func() { s.puts("r1", "x") })
		time.AfterFunc(2*time.Second, func() { s.finishes("r1") })
		began := time.Now()
		m := s.call("GET", "/requests/r1", "", "Prefer", "wait=20").is(200).members()
		require.Equal(t, 2*time.Second, time.Since(began))
		require.Equal(t, "completed", m["status"])

		s.submits("r2")
		began = time.Now()
		m = s.call("GET", "/requests/r2", "", "Prefer", "wait=3").is(200).members()
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, "running", m["status"])
	})
}

func TestUnknownAndForeignRequestsLookTheSame(t *testing.T) {
	s := start(t, identified())
	s.submitsAs(streamer.Identity{Tenant: "acme", User: "alice"}, "r1")
	for _, call := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"GET", "/events"}} {
		var seen []string
		for _, id := range []string{"r1", "r2", "r3"} {
			a := s.call(call[0], "/requests/"+id+call[1], "", "Authorization", "Bearer evil:mallory")
			a.problem(404, "NOT_FOUND")
			a.Header.Del("Date")
			seen = append(seen, strings.ReplaceAll(a.text, id, "ID")+fmt.Sprint(a.Header))
		}
		require.Equal(t, seen[0], seen[1])
	}
	s.call("GET", "/requests/"+strings.Repeat("x", 200), "", "Authorization", "Bearer acme:alice").problem(404, "NOT_FOUND")
	s.call("GET", "/requests/a%20b", "", "Authorization", "Bearer acme:alice").problem(404, "NOT_FOUND")
	s.call("GET", "/requests/r1", "", "Authorization", "Bearer acme:alice").is(200)
}

func TestCancelEndsTheRequestAndSaysHowItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		s.reports("r1", 1)
		a := s.call("DELETE", "/requests/r1?reason=user%20pressed%0D%0Astop%E2%80%A8", "").is(202)
		require.Equal(t, "canceling", a.members()["status"])
		time.Sleep(time.Second)
		for range 2 {
			m := s.call("DELETE", "/requests/r1", "").is(200).members()
			require.Equal(t, "canceled", m["status"])
			require.Equal(t, map[string]any{"code": "CANCELED", "message": "user pressed\r\nstop\u2028"}, m["error"])
		}
		s.call("DELETE", "/requests/r2", "").problem(404, "NOT_FOUND")
	})
}

func TestHTTP2TimeoutsCancelNothing(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := setup{real: true, options: []transport.Option{transport.WithWriteTimeout(time.Second)},
		server: func(s *http.Server) {
			s.Protocols = protocols
			s.WriteTimeout = 500 * time.Millisecond
		},
		client: func(t *http.Transport) { t.Protocols = protocols },
	}.start(t)
	s.submits("r1")
	st := s.stream("/requests/r1/events")
	require.Equal(t, 2, st.resp.ProtoMajor)
	st.expect("attached", "r1")
	st.expect("status", "r1")
	st.expect("status", "r1")
	began := time.Now()
	for time.Since(began) < 1500*time.Millisecond {
		s.puts("r1", "x")
		st.expect("output", "r1")
	}
	time.AfterFunc(1500*time.Millisecond, func() { s.finishes("r1") }) // quiet for longer than either time-out
	st.expect("complete", "r1")
	st.ends()
}
