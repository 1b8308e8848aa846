package transport

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
)

// lower lowers the case of ASCII letters only, as browsers do for hosts they have made ASCII.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func request(host string, secure bool) *http.Request {
	r := httptest.NewRequest("GET", "/ws", nil)
	r.Host = host
	if secure {
		r.TLS = &tls.ConnectionState{}
	}
	return r
}

// FuzzOrigin: an origin or host that is listed is accepted in its few spellings, byte for byte,
// and nothing else is. Without a list an origin is accepted only when a browser would understand
// it as just the scheme, host and port that the request was sent to.
func FuzzOrigin(f *testing.F) {
	listed := NewConfig(WithOrigins("https://app.example.com", "http://kiosk.example.com:3000", "HTTP://Example.com:80"))
	served := NewConfig(WithHosts("kiosk.example.com", "Example.com:8443", "[::1]:80"))
	own := NewConfig(WithAuthenticator(nobody))
	anonymous := NewConfig()
	for _, seed := range []struct {
		origin, host string
		secure       bool
	}{
		{"https://app.example.com", "10.0.0.1", false},
		{"http://kiosk.example.com:3000", "kiosk.example.com", false},
		{"https://Example.com:8443", "example.com:8443", true},
		{"http://[::1]", "[::1]:80", false},
	} {
		f.Add(seed.origin, seed.host, seed.secure)
	}
	f.Fuzz(func(t *testing.T, origin, host string, secure bool) {
		r := request(host, secure)
		require.Equal(t, slices.Contains([]string{"kiosk.example.com", "example.com:8443", "[::1]:80"}, lower(host)), served.checkOrigin(r) == nil)

		r.Header["Origin"] = []string{origin}
		require.Equal(t, slices.Contains([]string{
			"https://app.example.com", "https://app.example.com:443", "http://kiosk.example.com:3000", "http://example.com", "http://example.com:80",
		}, lower(origin)), listed.checkOrigin(r) == nil)

		if own.checkOrigin(r) == nil {
			requireSameOrigin(t, origin, host, secure)
		}
		if anonymous.checkOrigin(r) == nil {
			requireSameOrigin(t, origin, host, secure)
			name := (&url.URL{Host: lower(host)}).Hostname()
			_, err := netip.ParseAddr(name)
			require.True(t, err == nil || name == "localhost" || strings.HasSuffix(name, ".localhost"), "%q can be anyone's", host)
		}
		r.Header["Origin"] = []string{origin, origin}
		for _, c := range []*Config{listed, own, anonymous} {
			require.NotNil(t, c.checkOrigin(r), "two origins")
		}
	})
}

func requireSameOrigin(t *testing.T, origin, host string, secure bool) {
	t.Helper()
	scheme, port := "http", "80"
	if secure {
		scheme, port = "https", "443"
	}
	u, err := url.Parse(origin)
	require.NoError(t, err)
	to := &url.URL{Host: host}
	require.Equal(t, &url.URL{Scheme: scheme, Host: u.Host}, u, "more than an origin, or another scheme")
	require.Equal(t, lower(to.Hostname()), lower(u.Hostname()))
	require.NotEmpty(t, u.Hostname())
	for _, p := range []*url.URL{u, to} {
		if p.Port() == "" {
			p.Host += ":" + port
		}
	}
	require.Equal(t, to.Port(), u.Port())
}

const (
	withProtocol = 1 << iota
	withQuery
)

// FuzzToken: a token comes from the header or from where the application allows, the header
// first, and as the client has it; what clients are told does not depend on it.
func FuzzToken(f *testing.F) {
	f.Add("Bearer alice", "", "", "bob", uint8(0))
	f.Add("", "streamer.v1, streamer.token.YWxpY2U", "Authorization=Bearer%20carol", "bob", uint8(withProtocol|withQuery))
	f.Fuzz(func(t *testing.T, header, protocols, query, token string, allowed uint8) {
		c := NewConfig(WithAuthenticator(func(_ context.Context, cred Credentials) (streamer.Identity, error) {
			return streamer.Identity{}, errors.New("unknown token: " + cred.Token)
		}))
		c.ProtocolToken, c.QueryToken = allowed&withProtocol != 0, allowed&withQuery != 0
		with := func(header, protocols, query string) *http.Request {
			r := httptest.NewRequest("GET", "/ws", nil)
			r.Header["Authorization"] = []string{header}
			r.Header["Sec-Websocket-Protocol"] = []string{protocols}
			r.URL.RawQuery = query
			return r
		}
		r := with(header, protocols, query)
		found := c.token(r)

		if inHeader := c.token(with(header, "", "")); inHeader != "" {
			require.Equal(t, inHeader, found)
			require.Equal(t, "bearer ", lower(header[:len("bearer ")]))
			require.Equal(t, strings.TrimSpace(header[len("bearer "):]), inHeader)
		}
		if !c.ProtocolToken {
			require.Equal(t, c.token(with(header, "", query)), found)
		}
		if !c.QueryToken {
			require.Equal(t, c.token(with(header, protocols, "")), found)
		}

		if c.ProtocolToken {
			sent := with("", "streamer.v1, streamer.token."+base64.RawURLEncoding.EncodeToString([]byte(token)), "")
			require.Equal(t, token, c.token(sent))
		}
		if c.QueryToken {
			sent := with("", "", url.Values{"Authorization": {"Bearer " + token}}.Encode())
			require.Equal(t, strings.TrimSpace(token), c.token(sent))
		}
		if found != "" {
			require.Equal(t, refusal(t, c, with("Bearer x", "", "")), refusal(t, c, r))
		}
	})
}

// refusal returns the answer to a client that is not let in.
func refusal(t *testing.T, c *Config, r *http.Request) *http.Response {
	t.Helper()
	_, known, err := c.Admit(r, nil)
	require.False(t, known)
	require.NotNil(t, err)
	w := httptest.NewRecorder()
	WriteError(w, err)
	return w.Result()
}

// FuzzAddress: an IPv4 address counts as itself, an IPv6 address as its /64 network, from any
// port and in any spelling; nothing else is taken for one.
func FuzzAddress(f *testing.F) {
	f.Add("192.0.2.1:1234")
	f.Add("[2001:db8:1:2:3:4:5:6]:999")
	f.Fuzz(func(t *testing.T, remote string) {
		r := &http.Request{RemoteAddr: remote}
		got := Address(r)
		from, err := netip.ParseAddrPort(remote)
		if err != nil {
			require.Equal(t, remote, got)
			return
		}
		addr := from.Addr().WithZone("")
		if four, err := netip.ParseAddr(got); err == nil {
			require.True(t, four.Is4())
			require.Equal(t, addr.Unmap(), four)
			require.Equal(t, got, Address(&http.Request{RemoteAddr: "[::ffff:" + got + "]:1"}))
		} else {
			network, err := netip.ParsePrefix(got)
			require.NoError(t, err)
			require.Equal(t, 64, network.Bits())
			require.True(t, network.Contains(addr))
			require.Equal(t, network.Masked().String(), got)
		}
		r.RemoteAddr = netip.AddrPortFrom(from.Addr(), from.Port()+1).String()
		require.Equal(t, got, Address(r))
	})
}
