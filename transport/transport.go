// Package transport holds what all transports share: what they need of a router, the
// [Authenticator] that says who a client is, the origins that browsers may come from, limits,
// and the options for all of these.
//
// The transports themselves are packages below: websocket and sse. An application gives the same
// options to each.
package transport

import (
	"context"
	"net/http"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

// Router is what transports need of a [streamer.Mux]. Errors are *streamer.Error.
type Router interface {
	Submit(ctx context.Context, who streamer.Identity, req *streamer.Request) (*streamer.Receipt, error)
	Attach(ctx context.Context, who streamer.Identity, id string) (*streamer.Viewer, error)
	Cancel(ctx context.Context, who streamer.Identity, id, reason string) (progress.State, error)

	Tickets

	// Draining returns a channel that is closed when the router takes no more requests.
	Draining() <-chan struct{}

	// Retention returns how long requests can be followed after their end.
	Retention() time.Duration
}

// Tickets are what stands for a client that can't send a token: see [streamer.Mux].
type Tickets interface {
	IssueTicket(ctx context.Context, who streamer.Identity) (ticket string, lifetime time.Duration, err error)
	RedeemTicket(ctx context.Context, ticket string) (streamer.Identity, error)
}

var _ Router = (*streamer.Mux)(nil)

// Credentials are what a client shows of who it is.
type Credentials struct {
	// Token is the bearer token, without "Bearer". It is "" when none was sent: then the
	// client may still be known by the Request, say by a cookie or a certificate.
	Token string

	// Request is the HTTP request that opened the connection. Its body is not to be read. It is
	// nil when a token is renewed on a connection that exists.
	Request *http.Request
}

// Authenticator returns the identity that credentials stand for. It may be called by many
// goroutines at once, and must return when ctx ends: see WithHelloTimeout.
//
// It is asked once for each connection, and each call over HTTP, before anything else, with a Token of "" too: a client
// that is not known then may still send its token in its first message. An error refuses the
// client as UNAUTHORIZED with a generic text, unless it is a *streamer.Error with code
// FORBIDDEN, RATE_LIMITED or SERVICE_UNAVAILABLE, which the client sees.
type Authenticator func(ctx context.Context, c Credentials) (streamer.Identity, error)
