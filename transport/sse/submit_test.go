package sse_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
)

func TestShortWorkIsAnsweredInLine(t *testing.T) {
	s := start(t)
	a := s.call("POST", "/requests", `{"action":"echo","id":"r1","payload":{"n":12345678901234567890}}`).is(200)
	require.Equal(t, `{"type":"response","request_id":"r1","seq":1,"success":true,"data":{"n":12345678901234567890}}`, a.text)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	require.Empty(t, a.Header.Get("Idempotency-Replayed"))

	again := s.call("POST", "/requests", `{"action":"echo","id":"r1","payload":{"n":12345678901234567890}}`).is(200)
	require.Equal(t, a.text, again.text)
	require.Equal(t, "true", again.Header.Get("Idempotency-Replayed"))
}

func TestTheErrorOfShortWorkIsAProblemWithItsNumber(t *testing.T) {
	s := start(t)
	a := s.call("POST", "/requests", `{"action":"refuse","id":"r1"}`)
	require.Equal(t, "tray 2 is empty", a.problem(422, "OUT_OF_PAPER"))
	require.Equal(t, "2", a.Header.Get("Retry-After"))
	p := a.members()
	require.EqualValues(t, 1, p["seq"])
	require.EqualValues(t, 1500, p["retry_after_ms"])
	require.Equal(t, map[string]any{"tray": 2.0}, p["details"])
	require.Equal(t, "r1", p["request_id"])
}

func TestLongWorkIsAcceptedWithWhereToLook(t *testing.T) {
	s := start(t)
	a := s.call("POST", "/requests", `{"action":"work","id":"r1"}`).is(202)
	require.Equal(t, "requests/r1", a.Header.Get("Location"))
	require.Equal(t, "1", a.Header.Get("Retry-After"))
	require.Empty(t, a.Header.Get("Preference-Applied"))
	m := a.members()
	require.Equal(t, "acknowledgment", m["type"])
	require.Equal(t, "r1", m["request_id"])
	require.Equal(t, "queued", m["status"])
	require.Equal(t, false, m["duplicate"])
	require.NotEmpty(t, m["epoch"])
	require.Equal(t, map[string]any{"self": "requests/r1", "events": "requests/r1/events"}, m["links"])

	again := s.call("POST", "/requests", `{"action":"work","id":"r1"}`).is(202)
	require.Equal(t, "true", again.Header.Get("Idempotency-Replayed"))
	require.Equal(t, true, again.members()["duplicate"])
}

func TestARequestWithoutIDGetsOne(t *testing.T) {
	s := start(t)
	id := s.call("POST", "/requests", `{"action":"work"}`).is(202).members()["request_id"].(string)
	require.Len(t, id, 36)
	s.call("GET", "/requests/"+id, "").is(200)
}

func TestAClientThatWaitsGetsTheEndOrTheAcknowledgment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		began := time.Now()
		a := s.call("POST", "/requests", `{"action":"work","id":"r1"}`, "Prefer", "respond-async, wait=10").is(202)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, "respond-async, wait=10", a.Header.Get("Preference-Applied"))

		time.AfterFunc(3*time.Second, func() { s.finishes("r1") })
		began = time.Now()
		a = s.call("POST", "/requests", `{"action":"work","id":"r1"}`, "Prefer", "wait=10").is(200)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, "complete", a.members()["type"])
		require.Equal(t, "done", a.members()["result"])

		s.submits("r2")
		time.AfterFunc(time.Second, func() { s.fails("r2", streamer.NewError(streamer.ErrCodeForbidden, "no")) })
		a = s.call("POST", "/requests", `{"action":"work","id":"r2"}`, "Prefer", "wait=10")
		require.Equal(t, "no", a.problem(403, "FORBIDDEN"))
		require.EqualValues(t, 3, a.members()["seq"])
	})
}

func TestPreferencesThatMakeNoSenseAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		for header, row := range map[string]struct {
			wait    time.Duration
			applied string
		}{
			"wait=0":                     {0, "wait=0"},
			"wait":                       {0, ""},
			"wait=":                      {0, ""},
			"wait=-1":                    {0, ""},
			"wait=1.5":                   {0, ""},
			"wait=soon":                  {0, ""},
			`wait="2"`:                   {2 * time.Second, "wait=2"},
			"WAIT = 2":                   {2 * time.Second, "wait=2"},
			"wait=2; why=because":        {2 * time.Second, "wait=2"},
			"wait=2, wait=30":            {2 * time.Second, "wait=2"},
			"wait=99":                    {time.Minute, "wait=60"},
			"wait=99999999999999999999":  {time.Minute, "wait=60"},
			"respond-async":              {0, "respond-async"},
			"handling=lenient, sheep":    {0, ""},
			strings.Repeat("x,", 50_000): {0, ""},
		} {
			began := time.Now()
			a := s.call("POST", "/requests", `{"action":"work"}`, "Prefer", header).is(202)
			require.Equal(t, row.wait, time.Since(began), header[:min(len(header), 40)])
			require.Equal(t, row.applied, a.Header.Get("Preference-Applied"))
		}
		began := time.Now()
		s.call("POST", "/requests", `{"action":"work"}`, "Prefer", "respond-async", "Prefer", "wait=3").is(202)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestTheServersWriteTimeoutEndsNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{server: func(s *http.Server) { s.WriteTimeout = time.Second }}.start(t)
		s.submits("r1")
		time.AfterFunc(5*time.Second, func() { s.finishes("r1") })
		s.call("POST", "/requests", `{"action":"work","id":"r1"}`, "Prefer", "wait=10").is(200)
		s.submits("r2")
		s.call("GET", "/requests/r2", "", "Prefer", "wait=10").is(200)
		s.call("GET", "/requests/r2/events?after=2", "", "Prefer", "wait=10", "Accept", "application/json").is(200)
	})
}

func TestAConnectionServesOtherCallsLongAfterAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		s := setup{client: func(tr *http.Transport) {
			dial := tr.DialContext
			tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials++
				return dial(ctx, network, addr)
			}
		}}.start(t)
		s.submits("r1")
		for range 3 {
			s.call("POST", "/requests", `{"action":"work","id":"r1"}`, "Prefer", "wait=1").is(202)
			s.call("GET", "/requests/r1", "", "Prefer", "wait=1").is(200)
			time.Sleep(5 * time.Minute)
			s.call("GET", "/requests/r1", "").is(200)
		}
		require.Equal(t, 1, dials)
	})
}

func TestIdempotencyKeyIsTheID(t *testing.T) {
	s := start(t)
	for _, key := range []string{"k1", `"k1"`} {
		a := s.call("POST", "/requests", `{"action":"work","payload":1}`, "Idempotency-Key", key).is(202)
		require.Equal(t, "requests/k1", a.Header.Get("Location"))
	}
	s.call("POST", "/requests", `{"action":"work","id":"k1","payload":1}`, "Idempotency-Key", "k1").is(202)

	s.call("POST", "/requests", `{"action":"work","payload":2}`, "Idempotency-Key", "k1").problem(422, "CONFLICT")
	s.call("POST", "/requests", `{"action":"echo","payload":1}`, "Idempotency-Key", "k1").problem(422, "CONFLICT")
	s.call("POST", "/requests", `{"action":"work","id":"other"}`, "Idempotency-Key", "k1").problem(400, "VALIDATION_ERROR")
	s.call("POST", "/requests", `{"action":"work"}`, "Idempotency-Key", "k1", "Idempotency-Key", "k2").problem(400, "VALIDATION_ERROR")
	for _, key := range []string{"", `"`, `""`, "a b", "a/b", "ä", strings.Repeat("x", 129), `"k1`, "."} {
		if key == `"k1` {
			continue
		}
		s.call("POST", "/requests", `{"action":"work"}`, "Idempotency-Key", key).problem(400, "VALIDATION_ERROR")
	}
}

func TestBodiesThatMakeNoSenseAreRefused(t *testing.T) {
	s := start(t)
	for body, status := range map[string]int{
		``:                                      400,
		`{`:                                     400,
		`[]`:                                    400,
		`"x"`:                                   400,
		`{"action":"echo"} x`:                   400,
		`{"action":"echo","action":"work"}`:     400,
		`{"action":"echo","Action":"work"}`:     400,
		`{"action":"echo","id":7}`:              400,
		`{"action":"echo","id":"a b"}`:          400,
		`{"action":"echo","id":".."}`:           400,
		`{"action":"echo","id":"."}`:            400,
		`{"action":"echo","metadata":{"n":1}}`:  400,
		`{"type":"cancel","id":"r1"}`:           400,
		`{"type":"request"}`:                    400,
		`{}`:                                    400,
		"{\"action\":\"echo\",\"id\":\"\xff\"}": 400,
		`{"action":"` + strings.Repeat("x", 200) + `"}`: 400,
		`{"action":"nothing"}`:                          404,
		`{"action":"echo","payload":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: 400,
		`{"action":"echo","payload":"` + strings.Repeat("x", 64<<10) + `"}`:                       413,
	} {
		a := s.call("POST", "/requests", body, "Content-Type", "application/json")
		a.is(status)
		require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"))
		require.NotEmpty(t, a.members()["detail"])
	}
	require.Equal(t, "r7", s.call("POST", "/requests", `{"id":"r7","action":"nothing"}`).members()["request_id"])
	require.Equal(t, "r7", s.call("POST", "/requests", `{"id":"r7","action":1}`).members()["request_id"])
}

func TestOnlyJSONIsTaken(t *testing.T) {
	s := start(t)
	for _, typ := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "application/json x", ";"} {
		a := s.call("POST", "/requests", `{"action":"echo"}`, "Content-Type", typ)
		require.Contains(t, a.problem(415, "VALIDATION_ERROR"), "Content-Type: application/json")
	}
	for _, typ := range []string{"application/json", "application/json; charset=utf-8", "APPLICATION/JSON"} {
		s.call("POST", "/requests", `{"action":"echo"}`, "Content-Type", typ).is(200)
	}
}

func TestABodyThatDoesNotArriveIsRefusedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		conn, err := s.http.Transport.(*http.Transport).DialContext(context.Background(), "tcp", s.addr)
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("POST /requests HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"action\""))
		require.NoError(t, err)
		began := time.Now()
		buf := make([]byte, 16)
		n, err := conn.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 408 Req", string(buf[:n]))
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

func TestWrongMethodsAreToldTheRightOnes(t *testing.T) {
	s := start(t)
	s.submits("r1")
	for path, allow := range map[string]string{
		"/requests": "POST", "/requests/": "POST", "/requests/r1": "GET, HEAD, DELETE", "/requests/r1/events": "GET, HEAD", "/events": "GET, HEAD", "/tickets": "POST",
	} {
		for _, method := range []string{"PUT", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			a := s.call(method, path, "")
			a.problem(405, "VALIDATION_ERROR")
			require.Equal(t, allow, a.Header.Get("Allow"))
		}
	}
}

func TestUnknownPathsAreNotFoundAndLeadNowhere(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/", "/request", "/requests/r1/", "/requests/r1/event", "/requests/r1/events/", "/requests/a/b", "//evil.example/requests", "/events/", "//requests", "/tickets/", "/requests//events"} {
		a := s.call("GET", path, "")
		require.Equal(t, 404, a.StatusCode, path)
		require.Empty(t, a.Header.Get("Location"), path)
	}
}

func TestLocationIsRightBehindStripPrefixAndWhateverTheHostHeader(t *testing.T) {
	s := setup{wrap: func(h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/api/v1/", http.StripPrefix("/api/v1", h))
		mux.Handle("/requests/", h)
		return mux
	}}.start(t)
	for path, want := range map[string]string{"/api/v1/requests": "/api/v1/requests/r1", "/requests/": "/requests/r1"} {
		a := s.call("POST", path, `{"action":"work","id":"r1"}`, "Host", "localhost:666").is(202)
		require.NotContains(t, a.Header.Get("Location"), "localhost")
		u, err := a.Request.URL.Parse(a.Header.Get("Location"))
		require.NoError(t, err)
		require.Equal(t, want, u.Path)
		s.call("GET", want, "").is(200)
		var ack struct{ Links struct{ Events string } }
		require.NoError(t, json.Unmarshal([]byte(a.text), &ack))
		u, err = a.Request.URL.Parse(ack.Links.Events)
		require.NoError(t, err)
		s.call("GET", u.Path, "", "Accept", "application/json").is(200)
	}
}

func TestLeavingWhileWaitingCancelsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		_, err := s.try(ctx, "POST", "/requests", `{"action":"work","id":"r1"}`, "Prefer", "wait=30")
		require.ErrorIs(t, err, context.Canceled)
		time.Sleep(time.Minute)
		require.Equal(t, "running", s.call("GET", "/requests/r1", "").is(200).members()["status"])
		s.finishes("r1")
		synctest.Wait()
		require.Equal(t, "completed", s.call("GET", "/requests/r1", "").is(200).members()["status"])
	})
}

func TestErrorsOfHandlersKeepTheirTextInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		s.fails("r1", errTest)
		synctest.Wait()
		a := s.call("GET", "/requests/r1", "").is(200)
		require.NotContains(t, a.text, "secret")
		require.Equal(t, "INTERNAL_ERROR", a.members()["error"].(map[string]any)["code"])
	})
}
