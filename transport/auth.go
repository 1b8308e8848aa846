package transport

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2"
)

// tokenProtocol is what a WebSocket subprotocol starts with that carries a token.
const tokenProtocol = "streamer.token."

var (
	errUnauthorized = streamer.NewError(streamer.ErrCodeUnauthorized, "invalid token")
	errExpired      = streamer.NewError(streamer.ErrCodeUnauthorized, "token expired")
	errNoOrigin     = streamer.NewError(streamer.ErrCodeForbidden, "credentials other than a token need an Origin header")
)

// Admit decides on a request that opens a connection: whether its host and origin are
// allowed, and whose it is. It returns false when the client has not said who it is, which
// it may still do with [Config.Identify].
func (c *Config) Admit(r *http.Request) (who streamer.Identity, known bool, err *streamer.Error) {
	if err := c.checkOrigin(r); err != nil {
		return who, false, err
	}
	if c.Authenticator == nil {
		return who, true, nil
	}
	token := c.token(r)
	who, err = c.Identify(r.Context(), Credentials{Token: token, Request: r})
	switch {
	case err == nil && token == "" && r.Header.Get("Origin") == "":
		// Without its Origin a page that uses its visitor's cookie can't be told apart.
		return streamer.Identity{}, false, errNoOrigin
	case err == nil:
		return who, true, nil
	case token == "" && err.Code == streamer.ErrCodeUnauthorized:
		return streamer.Identity{}, false, nil
	default:
		return streamer.Identity{}, false, err
	}
}

// Identify asks the Authenticator, which must be set and has the hello timeout to answer. The
// error is fit for the client.
func (c *Config) Identify(ctx context.Context, cred Credentials) (streamer.Identity, *streamer.Error) {
	ctx, cancel := context.WithTimeout(ctx, c.HelloTimeout)
	defer cancel()
	who, err := c.Authenticator(ctx, cred)
	if err == nil {
		if !who.Expires.IsZero() && !time.Now().Before(who.Expires) {
			return streamer.Identity{}, errExpired
		}
		return who, nil
	}
	var public *streamer.Error
	if errors.As(err, &public) && public != nil {
		switch public.Code {
		case streamer.ErrCodeForbidden, streamer.ErrCodeRateLimited, streamer.ErrCodeServiceUnavailable:
			return streamer.Identity{}, public
		}
	}
	return streamer.Identity{}, errUnauthorized
}

// token returns the token that came with r, or "".
func (c *Config) token(r *http.Request) string {
	if token, ok := bearer(r.Header.Get("Authorization")); ok {
		return token
	}
	if c.ProtocolToken {
		for _, list := range r.Header.Values("Sec-WebSocket-Protocol") {
			for p := range strings.SplitSeq(list, ",") {
				if enc, ok := strings.CutPrefix(strings.TrimSpace(p), tokenProtocol); ok {
					token, err := base64.RawURLEncoding.DecodeString(enc)
					if err == nil {
						return string(token)
					}
				}
			}
		}
	}
	if c.QueryToken {
		q := r.URL.Query().Get("Authorization")
		if token, ok := bearer(q); ok {
			return token
		}
		return q
	}
	return ""
}

func bearer(s string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(s, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}
