package websocket_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
)

// byToken takes the token as the user, with what follows a slash as how long it is valid.
func byToken(_ context.Context, c transport.Credentials) (streamer.Identity, error) {
	token := c.Token
	if token == "" && c.Request != nil {
		if cookie, err := c.Request.Cookie("session"); err == nil {
			token = cookie.Value
		}
	}
	user, valid, limited := strings.Cut(token, "/")
	who := streamer.Identity{User: user}
	switch {
	case user == "" || strings.HasPrefix(user, "wrong"):
		return who, streamer.NewError(streamer.ErrCodeUnauthorized, "secret detail")
	case user == "panic":
		panic("no identity")
	case user == "banned":
		return who, streamer.NewError(streamer.ErrCodeForbidden, "you are banned")
	case limited:
		d, err := time.ParseDuration(valid)
		who.Expires = time.Now().Add(d)
		return who, err
	}
	return who, nil
}

func TestTokensAreTakenFromWhereTheApplicationAllows(t *testing.T) {
	t.Parallel()
	bearer := "Query|Authorization=Bearer%20alice"
	protocol := "Protocol|streamer.token." + base64.RawURLEncoding.EncodeToString([]byte("alice"))
	for _, row := range []struct {
		name   string
		option transport.Option
		header string
		known  bool
	}{
		{"header", nil, "Authorization|Bearer alice", true},
		{"header in other case", nil, "Authorization|bearer alice", true},
		{"another scheme", nil, "Authorization|Basic alice", false},
		{"query, not enabled", nil, bearer, false},
		{"query", transport.WithQueryToken(), bearer, true},
		{"query with a plus", transport.WithQueryToken(), "Query|Authorization=Bearer+alice", true},
		{"query without Bearer", transport.WithQueryToken(), "Query|Authorization=alice", true},
		{"subprotocol, not enabled", nil, protocol, false},
		{"subprotocol", transport.WithProtocolToken(), protocol, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			opts := []transport.Option{transport.WithAuthenticator(byToken)}
			if row.option != nil {
				opts = append(opts, row.option)
			}
			s := start(t, opts...)
			header := strings.Split(row.header, "|")
			if strings.HasPrefix(row.header, "Protocol") {
				header = append(header, "Protocol", "streamer.v1")
			}
			p := s.connect(header...)
			if header[0] == "Protocol" {
				require.Equal(t, "streamer.v1", p.conn.Subprotocol(), "the token must not be echoed")
			}
			p.send(`{"type":"hello","v":1}`)
			if row.known {
				p.expect("welcome", "")
			} else {
				p.expectClosed(4401)
			}
		})
	}
}

func TestWrongTokensAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	require.Equal(t, streamer.ErrCodeUnauthorized, s.refused(401, "Authorization", "Bearer wrong"))
	require.Equal(t, streamer.ErrCodeUnauthorized, s.refused(401, "Authorization", "Bearer alice/-1s"))
	require.Equal(t, streamer.ErrCodeForbidden, s.refused(403, "Authorization", "Bearer banned"))
	for token, code := range map[string]int{"wrong": 4401, "alice/-1s": 4401, "banned": 4403} {
		p := s.connect()
		p.send(`{"type":"hello","v":1,"token":"` + token + `"}`)
		require.NotContains(t, p.expectClosed(code), "secret")
	}
	require.Eventually(t, func() bool { return s.handler.Stats().Connections == 0 }, 5*time.Second, time.Millisecond)
	require.Zero(t, s.handler.Stats().Unauthenticated)
}

func TestNothingIsServedBeforeHelloOnceAuthenticationIsAskedFor(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	for _, message := range []string{
		`{"type":"request","id":"r1","action":"echo"}`, `{"type":"attach","id":"r1"}`, `{"type":"ping"}`,
		`{"type":"auth","token":"alice"}`, `nonsense`, `{"type":"hello","v":1}`,
	} {
		p := s.connect()
		p.send(message)
		p.expectClosed(4401)
	}
	p := s.connect()
	p.send(`{"type":"hello","v":1,"token":"` + strings.Repeat("x", 4<<10) + `"}`)
	p.closed(1009)
}

func TestHelloWithATokenIsEnough(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	p := s.connect("Protocol", "streamer.v1")
	require.Equal(t, 1, s.handler.Stats().Unauthenticated)
	p.send(`{"type":"hello","v":1,"token":"alice"}`)
	p.expect("welcome", "")
	require.Zero(t, s.handler.Stats().Unauthenticated)
	// The limit of 4 KiB is over.
	p.send(`{"type":"request","id":"r1","action":"echo","payload":"` + strings.Repeat("x", 8<<10) + `"}`)
	p.expect("response", "r1")
}

func TestHelloTwiceOrOfAnotherVersionIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.hello()
	p.send(`{"type":"hello","v":1}`)
	p.expectClosed(4400)
	for _, v := range []string{"0", "2"} {
		p := s.connect()
		p.send(`{"type":"hello","v":` + v + `}`)
		p.expectClosed(4406)
	}
}

func TestATokenOfAnotherIdentityIsForbidden(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	p := s.hello("Authorization", "Bearer alice")
	p.send(`{"type":"auth","token":"bob"}`)
	p.expectClosed(4403)

	p = s.connect("Authorization", "Bearer alice")
	p.send(`{"type":"hello","v":1,"token":"bob"}`)
	p.expectClosed(4403)
}

func TestCookiesNeedAnAllowedOrigin(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken), transport.WithOrigins("https://app.example.com"))
	p := s.connect("Cookie", "session=alice", "Origin", "https://app.example.com")
	p.send(`{"type":"hello","v":1}`)
	p.expect("welcome", "")
	for _, origin := range []string{"https://evil.example.com", "null", "https://app.example.com.evil.com", "http://app.example.com"} {
		require.Equal(t, streamer.ErrCodeForbidden, s.refused(403, "Cookie", "session=alice", "Origin", origin))
	}
	require.Equal(t, streamer.ErrCodeForbidden, s.refused(403, "Cookie", "session=alice"))
	s.hello("Authorization", "Bearer alice")
}

func TestTheIdentityReachesTheHandler(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	s.mux.Handle("whoami", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		return &streamer.Result{Success: true, Data: req.Metadata}, nil
	}), streamer.WithEstimate(0))
	p := s.hello("Authorization", "Bearer alice")
	p.send(`{"type":"request","id":"r1","action":"whoami","metadata":{"trace":"t"}}`)
	require.JSONEq(t, `{"user_id":"alice","trace":"t"}`, string(p.expect("response", "r1").Data))
	p.send(`{"type":"request","id":"r2","action":"whoami","metadata":{"user_id":"bob"}}`)
	p.fails(streamer.ErrCodeValidation, "r2")
}

func TestTokensAreNeverLogged(t *testing.T) {
	t.Parallel()
	var logged syncBuffer
	logger := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := start(t, transport.WithAuthenticator(byToken), transport.WithQueryToken(), transport.WithProtocolToken(), transport.WithLogger(logger))
	const token = "wrong-5ecret"
	s.refused(401, "Authorization", "Bearer "+token)
	s.refused(401, "Query", "Authorization=Bearer%20"+token)
	s.refused(401, "Protocol", "streamer.token."+base64.RawURLEncoding.EncodeToString([]byte(token)))
	p := s.connect()
	p.send(`{"type":"hello","v":1,"token":"` + token + `"}`)
	p.expectClosed(4401)
	p = s.hello("Authorization", "Bearer alice")
	p.send(`{"type":"auth","token":"` + token + `"}`)
	p.fails(streamer.ErrCodeUnauthorized, "")
	require.Contains(t, logged.String(), "connection closing")
	require.NotContains(t, logged.String(), token)
	require.NotContains(t, logged.String(), base64.RawURLEncoding.EncodeToString([]byte(token)))
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		limits  transport.Limits
		user    string
		status  int
		another string // user who is not limited
	}{
		{"in all", transport.Limits{Connections: 2}, "alice", 503, ""},
		{"per address", transport.Limits{ConnectionsPerAddress: 2}, "alice", 429, ""},
		{"per identity", transport.Limits{ConnectionsPerIdentity: 2}, "alice", 429, "bob"},
		{"unauthenticated in all", transport.Limits{Unauthenticated: 2}, "", 503, "bob"},
		{"unauthenticated per address", transport.Limits{UnauthenticatedPerAddress: 2}, "", 429, "bob"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := start(t, transport.WithAuthenticator(byToken), transport.WithLimits(row.limits))
			var header []string
			if row.user != "" {
				header = []string{"Authorization", "Bearer " + row.user}
			}
			p := s.connect(header...)
			s.connect(header...)
			s.refused(row.status, header...)
			if row.another != "" {
				s.hello("Authorization", "Bearer "+row.another)
			}
			p.conn.CloseNow()
			require.Eventually(t, func() bool {
				p, _, err := s.tryConnect(header...)
				return err == nil && p != nil
			}, 5*time.Second, 10*time.Millisecond)
		})
	}
}

func TestAnIdentityIsLimitedAlsoWhenItComesWithHello(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken), transport.WithLimits(transport.Limits{ConnectionsPerIdentity: 1}))
	s.hello("Authorization", "Bearer alice")
	p := s.connect()
	p.send(`{"type":"hello","v":1,"token":"alice"}`)
	require.Contains(t, p.expectClosed(4429), "retry_after_ms=")
}

func TestWithoutAuthenticatorABrowserReachesOnlyLoopbackAndIPs(t *testing.T) {
	t.Parallel()
	s := start(t)
	host := strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/ws")
	s.connect("Origin", "http://"+host)
	s.connect("Host", "localhost:80", "Origin", "http://localhost")
	require.Equal(t, streamer.ErrCodeForbidden, s.refused(403, "Host", "rebound.example.com", "Origin", "http://rebound.example.com"))
	require.Equal(t, streamer.ErrCodeForbidden, s.refused(403, "Origin", "null"))
	require.Equal(t, streamer.ErrCodeForbidden, s.refused(403, "Origin", "https://"+host))
}

func TestAThousandRefusedHandshakesLeaveNothing(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	before := runtime.NumGoroutine()
	for i := range 1000 {
		r := httptest.NewRequest("GET", "/ws", nil)
		switch i % 3 {
		case 0:
			r.Header.Set("Authorization", "Bearer wrong")
		case 1:
			r.Header.Set("Origin", "null")
		case 2:
			r.Header.Set("Authorization", "Bearer alice") // and no upgrade
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		require.GreaterOrEqual(t, w.Code, 400)
	}
	for range 50 {
		s.refused(401, "Authorization", "Bearer wrong")
	}
	st := s.handler.Stats()
	require.Zero(t, st.Connections)
	require.Zero(t, st.Unauthenticated)
	require.EqualValues(t, 1050, st.Refused)
	require.Less(t, runtime.NumGoroutine(), before+100)
	s.hello("Authorization", "Bearer alice")
}

func TestMiddlewareThatCanNotUpgradeIsAnError(t *testing.T) {
	t.Parallel()
	s := setup{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(struct{ http.ResponseWriter }{w}, r) })
	}}.start(t)
	s.refused(500)

	s = setup{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(unwrapping{w}, r) })
	}}.start(t)
	s.hello().lives()
}

type unwrapping struct{ http.ResponseWriter }

func (u unwrapping) Unwrap() http.ResponseWriter { return u.ResponseWriter }
