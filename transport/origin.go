package transport

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/pay-theory/streamer/v2"
)

var (
	errHost   = streamer.NewError(streamer.ErrCodeForbidden, "this host is not served here")
	errOrigin = streamer.NewError(streamer.ErrCodeForbidden, "this origin may not connect")
)

// checkOrigin refuses pages that a browser would let connect with its user's credentials, or
// to a server that only its user can reach. Requests without an Origin don't come from a page.
func (c *Config) checkOrigin(r *http.Request) *streamer.Error {
	host := strings.ToLower(r.Host)
	if c.Hosts != nil && (!ascii(r.Host) || !slices.ContainsFunc(c.Hosts, func(h string) bool { return strings.ToLower(h) == host })) {
		return errHost
	}
	sent := r.Header.Values("Origin")
	if len(sent) == 0 {
		return nil
	}
	origin, ok := canonicalOrigin(sent[0])
	if !ok || len(sent) > 1 {
		return errOrigin
	}
	if c.Origins != nil {
		for _, allowed := range c.Origins {
			if allowed, _ := canonicalOrigin(allowed); allowed == origin {
				return nil
			}
		}
		return errOrigin
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	own, ok := canonicalOrigin(scheme + r.Host)
	if !ok || own != origin {
		return errOrigin
	}
	if c.Authenticator == nil && c.Hosts == nil && !unspoofable(host) {
		return errHost
	}
	return nil
}

// checkSite refuses what a browser sends without an Origin, which a GET to the page's own site
// has none of, when it says that the page is not allowed.
func (c *Config) checkSite(r *http.Request) *streamer.Error {
	if r.Header.Get("Sec-Fetch-Site") == "" || r.Header.Get("Origin") != "" {
		return nil
	}
	if c.Authenticator == nil && c.Hosts == nil && !unspoofable(strings.ToLower(r.Host)) {
		return errHost
	}
	return nil
}

// foreign reports whether a browser says that a request without an Origin, such as one for a
// picture, comes from a page of another site.
func foreign(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") == "" && site != "" && site != "same-origin" && site != "none"
}

// CORS lets pages of the origins that WithOrigins lists read the answer to r, and answers
// their preflights, for which it returns true. Without WithOrigins it does nothing.
func (c *Config) CORS(w http.ResponseWriter, r *http.Request) (answered bool) {
	if c.Origins == nil {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || c.checkOrigin(r) != nil {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		h.Set("Access-Control-Expose-Headers", "ETag, Idempotency-Replayed, Location, Preference-Applied, Retry-After")
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// canonicalOrigin returns an origin in lower case without its scheme's default port. It
// returns false for "null" and for what is no scheme://host[:port].
func canonicalOrigin(s string) (string, bool) {
	scheme, host, ok := strings.Cut(strings.ToLower(s), "://")
	if !ok || !ascii(s) || !validHost(host) {
		return "", false
	}
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return scheme + "://" + host, scheme != ""
}

// validHost reports whether s is host[:port] and nothing more.
func validHost(s string) bool {
	u, err := url.Parse("http://" + s) // whose hosts have one port
	return err == nil && u.Host == s && u.Hostname() != "" && !strings.HasSuffix(s, ":") && !strings.ContainsAny(s, "*,")
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// unspoofable reports whether a page of another site can't have been served under this
// host[:port]: a name in the public DNS can be pointed at any server, also a local one.
func unspoofable(host string) bool {
	u := url.URL{Host: host}
	name := u.Hostname()
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}
