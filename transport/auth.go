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
	errUnknown      = streamer.NewError(streamer.ErrCodeUnauthorized, "a token is missing: send it in the header Authorization: Bearer …")
	errExpired      = streamer.NewError(streamer.ErrCodeUnauthorized, "token expired")
	errNoOrigin     = streamer.NewError(streamer.ErrCodeForbidden, "credentials other than a token need an Origin header")
	errForeign      = streamer.NewError(streamer.ErrCodeForbidden, "credentials other than a token may not come from a page of another site")
)

// Admit decides on a request that opens a connection: whether its host and origin are
// allowed, and whose it is. It returns false when the client has not said who it is, which
// it may still do with [Config.Identify].
func (c *Config) Admit(r *http.Request, tickets Tickets) (who streamer.Identity, known bool, err *streamer.Error) {
	if err := c.checkOrigin(r); err != nil {
		return who, false, err
	}
	who, means, err := c.known(r, tickets)
	switch {
	case err != nil:
		return streamer.Identity{}, false, err
	case means == byOther && r.Header.Get("Origin") == "":
		// Without its Origin a page that uses its visitor's cookie can't be told apart.
		return streamer.Identity{}, false, errNoOrigin
	default:
		return who, means != byNothing, nil
	}
}

// AdmitCall decides on a call of plain HTTP, whose client must be known: whether its host and
// origin are allowed, and whose it is.
func (c *Config) AdmitCall(r *http.Request, tickets Tickets) (streamer.Identity, *streamer.Error) {
	if err := c.checkOrigin(r); err != nil {
		return streamer.Identity{}, err
	}
	if err := c.checkSite(r); err != nil {
		return streamer.Identity{}, err
	}
	who, means, err := c.known(r, tickets)
	switch {
	case err != nil:
		return streamer.Identity{}, err
	case means == byNothing:
		return streamer.Identity{}, errUnknown
	case means == byOther && (c.protection.Check(r) != nil || foreign(r)):
		return streamer.Identity{}, errForeign
	}
	return who, nil
}

// means is how a client is known.
type means int

const (
	byNothing means = iota
	byToken         // or a ticket: something that only who has it can send
	byOther         // a cookie or certificate, which a browser sends whichever page asks
	anonymous
)

// known finds out whose a request is.
func (c *Config) known(r *http.Request, tickets Tickets) (streamer.Identity, means, *streamer.Error) {
	if ticket := r.URL.Query().Get("ticket"); ticket != "" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		who, err := c.redeem(r.Context(), ticket, tickets)
		return who, byToken, err
	}
	if c.Authenticator == nil {
		return streamer.Identity{}, anonymous, nil
	}
	token := c.token(r)
	who, err := c.Identify(r.Context(), Credentials{Token: token, Request: r})
	switch {
	case err == nil && token == "":
		return who, byOther, nil
	case err == nil:
		return who, byToken, nil
	case token == "" && err.Code == streamer.ErrCodeUnauthorized:
		return streamer.Identity{}, byNothing, nil
	default:
		return streamer.Identity{}, byNothing, err
	}
}

// redeem returns the identity of a ticket.
func (c *Config) redeem(ctx context.Context, ticket string, tickets Tickets) (streamer.Identity, *streamer.Error) {
	who, err := tickets.RedeemTicket(ctx, ticket)
	var public *streamer.Error
	switch {
	case errors.As(err, &public) && public != nil:
		return streamer.Identity{}, public
	case err != nil:
		return streamer.Identity{}, errUnauthorized
	}
	return who, nil // a ticket does not outlive its identity
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
