package natslog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/progress"
)

// Codes of the server's errors that nats.go has no names for.
const (
	codeAccountResources jetstream.ErrorCode = 10002
	codeResources        jetstream.ErrorCode = 10023
	codeMemory           jetstream.ErrorCode = 10028
	codeStorage          jetstream.ErrorCode = 10047
	codeStoreFailed      jetstream.ErrorCode = 10077
)

// translate says in a Log's terms why a request to the server failed. ctx is the caller's,
// without the bound that the request had.
func translate(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	var api *jetstream.APIError
	switch {
	case errors.Is(err, errSilent):
		return fmt.Errorf("%w: %w", progress.ErrUnavailable, err)
	case errors.Is(err, progress.ErrNotFound), errors.Is(err, progress.ErrUnavailable), errors.Is(err, progress.ErrTooLarge), errors.Is(err, progress.ErrFull):
		return err
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: nobody serves its stream: JetStream is down, or the stream was removed", progress.ErrUnavailable)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: the connection was lost before it answered", progress.ErrUnavailable)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%w: no answer within %v", progress.ErrUnavailable, patience)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", progress.ErrTooLarge, err)
	case errors.As(err, &api):
		return refusal(api)
	}
	return fmt.Errorf("%w: %w", progress.ErrUnavailable, err)
}

// refusal translates an answer of the server.
func refusal(api *jetstream.APIError) error {
	switch api.ErrorCode {
	case codeAccountResources, codeResources, codeMemory, codeStorage:
		return fmt.Errorf("%w: %s", progress.ErrFull, api.Description)
	case codeStoreFailed:
		if strings.HasPrefix(api.Description, "maximum ") {
			return fmt.Errorf("%w: %s of the stream", progress.ErrFull, api.Description)
		}
	case jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("%w: %s", progress.ErrTooLarge, api.Description)
	}
	return fmt.Errorf("%w: %s (code %d)", progress.ErrUnavailable, api.Description, api.ErrorCode)
}

// conflicts reports whether an error says that the log is not where the append expected it.
func conflicts(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// full reports whether an error says that there is no room.
func full(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, progress.ErrFull) || errors.As(err, &api) && errors.Is(refusal(api), progress.ErrFull)
}

// refused reports whether an error says that a message can't be stored, however well the server is.
func refused(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || full(err) || errors.As(err, &api) && errors.Is(refusal(api), progress.ErrTooLarge)
}

// senseless says that what is stored can't be what a Log wrote.
func senseless(subject string, seq uint64, err error) error {
	return fmt.Errorf("%w: message %d of subject %s makes no sense: %w", progress.ErrUnavailable, seq, subject, err)
}
