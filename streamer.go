package streamer

import (
	"encoding/json"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Request is one unit of work that a client asked for, as handlers see it. Handlers must not
// change it.
type Request struct {
	// ID names the request within the scope of the identity that submitted it:
	// [A-Za-z0-9._~-]{1,128}. Submit makes a UUIDv7 when it is empty.
	ID string `json:"id"`

	// Action is the name the request is routed by.
	Action string `json:"action"`

	// Payload is the client's JSON, byte for byte; nil when it sent none.
	Payload json.RawMessage `json:"payload,omitempty"`

	// Metadata is the client's, with "user_id" and "tenant_id" set from its identity where
	// that has them. A client can't set these two, nor names that start with "streamer.".
	Metadata map[string]string `json:"metadata,omitempty"`

	// CreatedAt is when the request was accepted.
	CreatedAt time.Time `json:"created_at"`

	// Timeout limits an attempt to less than the action's own limit. 0: the action's.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Result is what a handler returns. Data is encoded as JSON for the client.
type Result struct {
	RequestID string            `json:"request_id"`
	Success   bool              `json:"success"`
	Data      any               `json:"data,omitempty"`
	Error     *Error            `json:"error,omitempty"`    // with Success false: ends the request like a returned error
	Metadata  map[string]string `json:"metadata,omitempty"` // for middleware; clients don't get it
}

// Reporter is what handlers report progress to; the same type as [progress.Reporter].
type Reporter = progress.Reporter

// Identity says who a client is. Transports get it from the application's authentication.
// The zero value is the anonymous identity.
type Identity struct {
	User   string // becomes Metadata["user_id"]; "" has none
	Tenant string // becomes Metadata["tenant_id"]; "" has none

	// Permissions are what WithPermission asks for.
	Permissions []string

	// Expires ends connections of this identity unless they are refreshed. The zero time: never.
	Expires time.Time
}

// Receipt says that a submitted request is stored.
type Receipt struct {
	ID string

	// State is how the request stands: for a new one, as accepted.
	State progress.State

	// Duplicate is set when the request existed already: the receipt is that request's.
	Duplicate bool

	// End is the end of short work, which has no other event. It is nil for queued work.
	End *progress.Event

	// Viewer follows the request.
	Viewer *Viewer
}
