package sse_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
)

// identified lets clients say who they are: by a token tenant:user, or by a cookie.
func identified() transport.Option {
	return transport.WithAuthenticator(func(_ context.Context, c transport.Credentials) (streamer.Identity, error) {
		token := c.Token
		if token == "" && c.Request != nil {
			if cookie, err := c.Request.Cookie("who"); err == nil {
				token = cookie.Value
			}
		}
		tenant, user, ok := strings.Cut(token, ":")
		if !ok {
			return streamer.Identity{}, errors.New("who are you: " + token)
		}
		who := streamer.Identity{Tenant: tenant, User: user}
		if user == "brief" {
			who.Expires = time.Now().Add(time.Minute)
		}
		return who, nil
	})
}

const alice = "Bearer acme:alice"

func TestWhoIsNotKnownIsRefused(t *testing.T) {
	s := start(t, identified())
	for _, call := range [][2]string{{"POST", "/requests"}, {"GET", "/requests/r1"}, {"DELETE", "/requests/r1"}, {"GET", "/requests/r1/events"}, {"GET", "/events?r=r1"}, {"POST", "/tickets"}} {
		for _, header := range [][]string{nil, {"Authorization", "Bearer nonsense"}, {"Authorization", "Basic acme:alice"}, {"Cookie", "who=nonsense"}} {
			a := s.call(call[0], call[1], "", header...)
			a.problem(401, "UNAUTHORIZED")
			require.Equal(t, "Bearer", a.Header.Get("WWW-Authenticate"))
			require.NotContains(t, a.text, "nonsense")
		}
	}
	s.call("POST", "/requests", `{"action":"echo","metadata":{"tenant_id":"evil"}}`, "Authorization", alice).problem(400, "VALIDATION_ERROR")
	s.call("POST", "/requests", `{"action":"echo"}`, "Authorization", alice).is(200)
}

func TestATicketStandsForATokenOnce(t *testing.T) {
	s := start(t, identified())
	s.submitsAs(streamer.Identity{Tenant: "acme", User: "alice"}, "r1")
	ticket := func(who string) string {
		a := s.call("POST", "/tickets", "", "Authorization", who).is(201)
		require.Equal(t, 30000.0, a.members()["expires_in_ms"])
		return a.members()["ticket"].(string)
	}
	st := s.stream("/requests/r1/events?ticket=" + ticket(alice))
	st.expect("attached", "r1")
	s.call("GET", "/requests/r1?ticket="+ticket(alice), "").is(200)

	used := ticket(alice)
	s.call("GET", "/requests/r1?ticket="+used, "").is(200)
	s.call("GET", "/requests/r1?ticket="+used, "").problem(401, "UNAUTHORIZED")
	s.call("GET", "/requests/r1?ticket="+used, "", "Authorization", alice).problem(401, "UNAUTHORIZED")
	s.call("GET", "/requests/r1?ticket="+ticket("Bearer evil:mallory"), "").problem(404, "NOT_FOUND")
	s.call("GET", "/requests/r1?ticket=made-up", "").problem(401, "UNAUTHORIZED")
	s.call("DELETE", "/requests/r1?ticket="+ticket(alice), "").problem(401, "UNAUTHORIZED")
	s.call("POST", "/requests?ticket="+ticket(alice), `{"action":"echo"}`).problem(401, "UNAUTHORIZED")
	s.call("POST", "/tickets?ticket="+ticket(alice), "").problem(401, "UNAUTHORIZED")

	raced := ticket(alice)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if s.call("GET", "/requests/r1?ticket="+raced, "").StatusCode == 200 {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, admitted.Load())
}

func TestTicketsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, identified())
		s.submitsAs(streamer.Identity{Tenant: "acme", User: "alice"}, "r1")
		var issued struct{ Ticket string }
		require.NoError(t, json.Unmarshal([]byte(s.call("POST", "/tickets", "", "Authorization", alice).text), &issued))
		time.Sleep(30*time.Second + time.Millisecond)
		s.call("GET", "/requests/r1?ticket="+issued.Ticket, "").problem(401, "UNAUTHORIZED")
	})
}

func TestAStreamEndsWithItsIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, identified())
		s.submitsAs(streamer.Identity{Tenant: "acme", User: "brief"}, "r1")
		began := time.Now()
		st := s.stream("/requests/r1/events", "Authorization", "Bearer acme:brief")
		for err := error(nil); err == nil; {
			_, _, err = st.read()
		}
		require.Equal(t, time.Minute, time.Since(began))
	})
}

func TestAForeignPageCanDoNothingWithItsVisitorsCookie(t *testing.T) {
	s := start(t, identified())
	s.submitsAs(streamer.Identity{Tenant: "acme", User: "alice"}, "r1")
	cookie := []string{"Cookie", "who=acme:alice"}
	own := "http://" + s.addr
	for name, row := range map[string]struct {
		method string
		header []string
		status int
	}{
		"own page reads":               {"GET", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"typed by the user":            {"GET", []string{"Sec-Fetch-Site", "none"}, 200},
		"no browser":                   {"GET", nil, 200},
		"own page, with origin":        {"GET", []string{"Sec-Fetch-Site", "same-origin", "Origin", own}, 200},
		"foreign page shows a picture": {"GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		"sister site":                  {"GET", []string{"Sec-Fetch-Site", "same-site"}, 403},
		"foreign fetch":                {"GET", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403},
		"foreign form":                 {"POST", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example", "Content-Type", "text/plain"}, 403},
		"sandboxed form":               {"POST", []string{"Origin", "null"}, 403},
		"old browser, foreign form":    {"POST", []string{"Origin", "https://evil.example"}, 403},
		"foreign cancel":               {"DELETE", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"own page submits":             {"POST", []string{"Sec-Fetch-Site", "same-origin", "Origin", own}, 200},
	} {
		path, body := "/requests/r1", ""
		if row.method == "POST" {
			path, body = "/requests", `{"action":"echo"}`
		}
		a := s.call(row.method, path, body, append(cookie, row.header...)...)
		require.Equal(t, row.status, a.StatusCode, name+": "+a.text)
	}
	// A token can't be sent by accident.
	s.call("GET", "/requests/r1", "", "Authorization", alice, "Sec-Fetch-Site", "cross-site").is(200)
}

func TestOnlyListedOriginsMayRead(t *testing.T) {
	s := start(t, identified(), transport.WithOrigins("https://app.example.com"))
	s.submitsAs(streamer.Identity{Tenant: "acme", User: "alice"}, "r1")
	a := s.call("OPTIONS", "/requests", "", "Origin", "https://app.example.com", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type").is(204)
	require.Equal(t, "https://app.example.com", a.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "true", a.Header.Get("Access-Control-Allow-Credentials"))
	require.Contains(t, a.Header.Get("Access-Control-Allow-Methods"), "DELETE")
	for _, name := range []string{"Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "If-None-Match"} {
		require.Contains(t, a.Header.Get("Access-Control-Allow-Headers"), name)
	}
	a = s.call("GET", "/requests/r1", "", "Origin", "https://app.example.com", "Authorization", alice).is(200)
	require.Equal(t, "https://app.example.com", a.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "Origin", a.Header.Get("Vary"))
	require.Contains(t, a.Header.Get("Access-Control-Expose-Headers"), "Location")

	for _, origin := range []string{"https://evil.example", "http://app.example.com", "null", "https://app.example.com.evil.example"} {
		for _, method := range []string{"OPTIONS", "GET"} {
			a = s.call(method, "/requests/r1", "", "Origin", origin, "Authorization", alice, "Access-Control-Request-Method", "DELETE")
			require.GreaterOrEqual(t, a.StatusCode, 403)
			require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"))
		}
	}
	closed := start(t, identified())
	closed.submitsAs(streamer.Identity{Tenant: "acme", User: "alice"}, "r1")
	a = closed.call("OPTIONS", "/requests", "", "Origin", "http://"+closed.addr, "Access-Control-Request-Method", "POST")
	require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"))
}

func TestALocalServerIsNotServedUnderANameThatCanPointAnywhere(t *testing.T) {
	s := start(t)
	s.submits("r1")
	rebound := []string{"Host", "rebound.evil.example"}
	s.call("GET", "/requests/r1", "", append(rebound, "Sec-Fetch-Site", "same-origin")...).problem(403, "FORBIDDEN")
	s.call("POST", "/requests", `{"action":"echo"}`, append(rebound, "Origin", "http://rebound.evil.example")...).problem(403, "FORBIDDEN")
	s.call("GET", "/requests/r1", "", "Host", "localhost", "Sec-Fetch-Site", "same-origin").is(200)
}

func TestTooManyCallsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, identified(), transport.WithLimits(transport.Limits{MessageRate: 10, MessageBurst: 5, ConnectionsPerIdentity: 3, Connections: 8}))
		for _, user := range []string{"alice", "bob"} {
			for range 5 {
				s.call("POST", "/requests", `{"action":"echo"}`, "Authorization", "Bearer acme:"+user).is(200)
			}
			a := s.call("POST", "/requests", `{"action":"echo"}`, "Authorization", "Bearer acme:"+user)
			a.problem(429, "RATE_LIMITED")
			require.Equal(t, "1", a.Header.Get("Retry-After"))
			require.EqualValues(t, 100, a.members()["retry_after_ms"])
		}
		for i := range 8 {
			user := fmt.Sprint("user", i/3)
			s.submitsAs(streamer.Identity{Tenant: "acme", User: user}, fmt.Sprint("r", i))
			s.stream(fmt.Sprintf("/requests/r%d/events", i), "Authorization", "Bearer acme:"+user).expect("attached", fmt.Sprint("r", i))
			if i == 5 {
				s.call("GET", "/requests/r5", "", "Authorization", "Bearer acme:user1").problem(429, "RATE_LIMITED")
			}
		}
		s.call("GET", "/requests/r1", "", "Authorization", "Bearer acme:user9").problem(503, "SERVICE_UNAVAILABLE")
		require.Equal(t, 8, s.handler.Stats().Streams)
	})
}

func TestHalfRequestHeadsDoNotKeepOthersOut(t *testing.T) {
	s := setup{real: true, server: func(s *http.Server) { s.ReadHeaderTimeout = 2 * time.Second }}.start(t)
	conns := slowloris(t, s.addr, 2000)
	began := time.Now()
	s.call("POST", "/requests", `{"action":"echo","id":"r1"}`).is(200)
	require.Less(t, time.Since(began), time.Second)
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err := c.Read(make([]byte, 1)) // the server hangs up
		require.Error(t, err)
		var timeout interface{ Timeout() bool }
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "a half-finished request is still open")
	}
}
