package transport

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestOriginsAreComparedExactly(t *testing.T) {
	listed := []Option{WithOrigins("https://app.example.com", "http://localhost:3000")}
	auth := []Option{WithAuthenticator(nobody)}
	for _, row := range []struct {
		name    string
		options []Option
		target  string
		origin  string
		allowed bool
	}{
		{"no origin", nil, "http://example.com/ws", "", true},
		{"same", auth, "http://example.com/ws", "http://example.com", true},
		{"same over TLS", auth, "https://example.com/ws", "https://example.com", true},
		{"same with port", auth, "http://example.com:8080/ws", "http://example.com:8080", true},
		{"same with default port", auth, "https://example.com:443/ws", "https://example.com", true},
		{"upper case", auth, "http://Example.COM/ws", "http://example.com", true},
		{"other scheme", auth, "http://example.com/ws", "https://example.com", false},
		{"other port", auth, "http://example.com:8080/ws", "http://example.com:8081", false},
		{"no port", auth, "http://example.com:8080/ws", "http://example.com", false},
		{"null", auth, "http://example.com/ws", "null", false},
		{"subdomain", auth, "http://example.com/ws", "http://a.example.com", false},
		{"look-alike suffix", auth, "http://example.com/ws", "http://example.com.evil.com", false},
		{"look-alike letter", auth, "http://kexample.com/ws", "http://\u212aexample.com", false},
		{"user info", auth, "http://example.com/ws", "http://example.com@evil.com", false},
		{"user info of ours", auth, "http://example.com/ws", "http://evil.com@example.com", false},
		{"path", auth, "http://example.com/ws", "http://example.com/ws", false},
		{"space", auth, "http://example.com/ws", "http://example.com ", false},
		{"listed", listed, "http://10.0.0.1/ws", "https://app.example.com", true},
		{"listed with port", listed, "http://10.0.0.1/ws", "http://localhost:3000", true},
		{"not listed", listed, "http://10.0.0.1/ws", "https://example.com", false},
		{"own, but not listed", listed, "http://10.0.0.1/ws", "http://10.0.0.1", false},
		{"null, listed", listed, "http://10.0.0.1/ws", "null", false},

		{"anonymous on localhost", nil, "http://localhost:8080/ws", "http://localhost:8080", true},
		{"anonymous on IPv4", nil, "http://192.168.0.7:8080/ws", "http://192.168.0.7:8080", true},
		{"anonymous on IPv6", nil, "http://[::1]:8080/ws", "http://[::1]:8080", true},
		{"anonymous below localhost", nil, "http://app.localhost/ws", "http://app.localhost", true},
		{"anonymous on a name", nil, "http://rebound.evil.com/ws", "http://rebound.evil.com", false},
		{"anonymous on a name like localhost", nil, "http://notlocalhost/ws", "http://notlocalhost", false},
		{"anonymous on a served name", []Option{WithHosts("Example.com")}, "http://example.com/ws", "http://example.com", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := NewConfig(row.options...)
			r := httptest.NewRequest("GET", row.target, nil)
			if row.origin != "" {
				r.Header.Set("Origin", row.origin)
			}
			if r.URL.Scheme == "https" {
				r.TLS = &tls.ConnectionState{}
			}
			if err := c.checkOrigin(r); row.allowed {
				require.Nil(t, err)
			} else {
				require.NotNil(t, err)
				require.Equal(t, streamer.ErrCodeForbidden, err.Code)
			}
		})
	}
}

func TestTwoOriginsAreRefused(t *testing.T) {
	r := httptest.NewRequest("GET", "http://localhost/ws", nil)
	r.Header["Origin"] = []string{"http://localhost", "http://evil.com"}
	require.NotNil(t, NewConfig().checkOrigin(r))
}

func TestOtherHostsAreRefused(t *testing.T) {
	c := NewConfig(WithHosts("api.example.com", "api.example.com:8443"))
	for host, served := range map[string]bool{
		"api.example.com": true, "API.example.com": true, "api.example.com:8443": true,
		"api.example.com:80": false, "example.com": false, "": false,
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.Host = host
		require.Equal(t, served, c.checkOrigin(r) == nil, host)
	}
}

func TestInvalidOptionsPanic(t *testing.T) {
	for name, o := range map[string]Option{
		"ping interval":     WithPingInterval(0),
		"pong timeout":      WithPongTimeout(-1),
		"hello timeout":     WithHelloTimeout(0),
		"write timeout":     WithWriteTimeout(0),
		"drain time":        WithDrainTime(0),
		"limit":             WithLimits(Limits{InFlight: -1}),
		"rate":              WithLimits(Limits{MessageRate: -1}),
		"origin of a path":  WithOrigins("https://example.com/"),
		"origin, no scheme": WithOrigins("example.com"),
		"origin pattern":    WithOrigins("https://*.example.com"),
		"null":              WithOrigins("null"),
		"host":              WithHosts("https://example.com"),
		"host beyond ASCII": WithHosts("bücher.example"),
	} {
		t.Run(name, func(t *testing.T) {
			require.Panics(t, func() { NewConfig(o) })
		})
	}
	require.NotPanics(t, func() { NewConfig() })
}

func TestAddressesAreIPv4OrIPv6Networks(t *testing.T) {
	for remote, address := range map[string]string{
		"192.0.2.1:1234":             "192.0.2.1",
		"[::ffff:192.0.2.1]:1234":    "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:999": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:999":         "fe80::/64",
		"@":                          "@",
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		require.Equal(t, address, Address(r))
	}
}

func TestErrorsAreProblems(t *testing.T) {
	w := httptest.NewRecorder()
	WriteError(w, streamer.NewError(streamer.ErrCodeRateLimited, "slow down").WithRetry(1500*time.Millisecond))
	require.Equal(t, 429, w.Code)
	require.Equal(t, "2", w.Header().Get("Retry-After"))
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	var p map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
	require.Equal(t, map[string]any{
		"type": "about:blank", "title": "Too Many Requests", "status": 429.0, "detail": "slow down",
		"code": "RATE_LIMITED", "retry_after_ms": 1500.0,
	}, p)
}

func TestOnlyErrorsMeantForClientsKeepTheirText(t *testing.T) {
	f := Failure(errors.New("hunter2"))
	require.Equal(t, streamer.ErrCodeInternalError, f.Code)
	require.NotContains(t, f.Message, "hunter2")

	f = Failure(fmt.Errorf("more: %w", streamer.NewError("OUT_OF_PAPER", "tray 2").WithDetail("tray", 2).WithRetry(time.Second)))
	require.Equal(t, &progress.Failure{
		Code: "OUT_OF_PAPER", Message: "tray 2", Details: json.RawMessage(`{"tray":2}`), RetryAfter: time.Second,
	}, f)
}

func TestEveryCodeHasTheStatusOfTheProtocol(t *testing.T) {
	for code, status := range map[string]int{
		"VALIDATION_ERROR": 400, "INVALID_ACTION": 404, "NOT_FOUND": 404, "UNAUTHORIZED": 401, "FORBIDDEN": 403, "CONFLICT": 422,
		"PAYLOAD_TOO_LARGE": 413, "RATE_LIMITED": 429, "SERVICE_UNAVAILABLE": 503, "TIMEOUT": 504, "CANCELED": 409,
		"PROCESSING_FAILED": 500, "INTERNAL_ERROR": 500, "OUT_OF_PAPER": 422,
	} {
		require.Equal(t, status, Status(code), code)
	}
}
