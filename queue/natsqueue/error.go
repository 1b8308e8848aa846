package natsqueue

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/queue"
)

var (
	errClosed   = errors.New("the queue was closed")
	errNoAnswer = errors.New("the broker does not answer")
)

// Codes of the broker that are told apart here.
const (
	codeAccountLimit    jetstream.ErrorCode = 10002
	codeNoResources     jetstream.ErrorCode = 10023
	codeNoMemory        jetstream.ErrorCode = 10028
	codeNoStorage       jetstream.ErrorCode = 10047
	codeSubjectsOverlap jetstream.ErrorCode = 10065
	codeMessageSize     jetstream.ErrorCode = 10054
	codeStoreRefused    jetstream.ErrorCode = 10077
)

// atItsBound is what the broker says when it refused since a bound of the stream is reached:
// the number of messages, of bytes, or of messages per subject.
const (
	atItsBound      = "maximum "
	scopeAtItsBound = "maximum messages per subject"
)

// failed returns the error of a call that failed with err: the context's error, or one that
// wraps a sentinel of package queue.
func failed(ctx context.Context, what string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	kind := queue.ErrUnavailable
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		kind = queue.ErrTooLarge
	case errors.As(err, &api):
		switch api.ErrorCode {
		case codeMessageSize:
			kind = queue.ErrTooLarge
		case codeAccountLimit, codeNoResources, codeNoMemory, codeNoStorage:
			kind = queue.ErrFull
		case codeStoreRefused:
			switch {
			case strings.HasPrefix(api.Description, scopeAtItsBound):
				kind = queue.ErrScopeFull
			case strings.HasPrefix(api.Description, atItsBound):
				kind = queue.ErrFull
			}
		}
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		err = errors.New("no stream or consumer answers: it was removed, or has no leader now")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		err = errNoAnswer
	}
	return fmt.Errorf("natsqueue: %s: %w: %v", what, kind, err)
}
