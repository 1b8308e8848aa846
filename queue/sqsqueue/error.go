package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/pay-theory/streamer/v2/queue"
)

var (
	errClosed   = errors.New("the queue was closed")
	errNoAnswer = errors.New("SQS does not answer")
)

// refusal is the error of an entry of a batch.
type refusal struct {
	code, message string
	sender        bool
}

var _ smithy.APIError = refusal{}

func (r refusal) Error() string        { return strings.TrimSuffix(r.code+": "+r.message, ": ") }
func (r refusal) ErrorCode() string    { return r.code }
func (r refusal) ErrorMessage() string { return r.message }

func (r refusal) ErrorFault() smithy.ErrorFault {
	if r.sender {
		return smithy.FaultClient
	}
	return smithy.FaultServer
}

// code returns the last part of the code of an error of SQS, empty for others: codes come with
// and without a prefix.
func code(err error) string {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return ""
	}
	c := api.ErrorCode()
	return c[strings.LastIndexAny(c, ".#")+1:]
}

// stale reports whether an entry was refused since its receipt handle is not that of a leased
// message any more.
func stale(err error) bool {
	var r refusal
	return errors.As(err, &r) && slices.Contains([]string{"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"}, code(r))
}

// again reports whether SQS has refused an entry alone, and not by the sender's fault.
func again(err error) bool {
	var r refusal
	return errors.As(err, &r) && !r.sender && !stale(err)
}

// failed returns the error of a call that failed with err: the context's error, or one that
// wraps a sentinel of package queue.
func failed(ctx context.Context, what string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	kind := queue.ErrUnavailable
	switch {
	case strings.Contains(err.Error(), "must be shorter than"), code(err) == "BatchRequestTooLong":
		kind = queue.ErrTooLarge
	case errors.Is(err, context.DeadlineExceeded):
		err = errNoAnswer
	}
	return fmt.Errorf("sqsqueue: %s: %w: %v%s", what, kind, err, advice(err))
}

// advice returns what to do about an error of SQS, where it does not say so itself.
func advice(err error) string {
	c := code(err)
	switch {
	case c == "QueueDoesNotExist" || c == "NonExistentQueue":
		return ": see to the URL, and that the client is for the queue's account and region"
	case strings.Contains(strings.ToLower(err.Error()), "kms"):
		return ": the role needs kms:GenerateDataKey to send and kms:Decrypt to send and receive, on the queue's key, which must be enabled"
	case strings.HasPrefix(c, "AccessDenied"):
		return ": the role needs a policy that allows it on this queue"
	case c == "InvalidClientTokenId" || c == "UnrecognizedClientException" || c == "InvalidSecurity" || c == "ExpiredToken" || c == "SignatureDoesNotMatch":
		return ": see to the client's credentials, and to the clock of this machine"
	case c == "OverLimit":
		return ": as many messages are leased or parked as a queue of SQS can have"
	case errors.Is(err, errNoAnswer):
		return " within the time that it has"
	}
	return ""
}
