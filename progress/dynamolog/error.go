package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/pay-theory/streamer/v2/progress"
)

var errClosed = errors.New("the log is closed")

// code returns the code of an error of DynamoDB, empty for others.
func code(err error) string {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return ""
	}
	return api.ErrorCode()
}

// tooLarge reports whether an item was refused for its size.
func tooLarge(err error) bool {
	return code(err) == "ValidationException" && strings.Contains(err.Error(), "tem size")
}

// translate says in a Log's terms why a call failed. ctx is the caller's, without the bound
// that the call had.
func translate(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	switch {
	case errors.Is(err, progress.ErrNotFound), errors.Is(err, progress.ErrUnavailable), errors.Is(err, progress.ErrTooLarge):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: DynamoDB did not answer within %v", progress.ErrUnavailable, patience)
	case tooLarge(err):
		return fmt.Errorf("%w: %w", progress.ErrTooLarge, err)
	}
	return fmt.Errorf("%w: %w%s", progress.ErrUnavailable, err, advice(err))
}

// advice returns what to do about an error of DynamoDB, where it does not say so itself.
func advice(err error) string {
	switch c := code(err); c {
	case "ResourceNotFoundException":
		return ": see to the table's name, and that the client is for its account and region; CreateTable makes one for development"
	case "AccessDeniedException":
		return ": the role needs a policy that allows it on this table, and dynamodb:Query on its index"
	case "ProvisionedThroughputExceededException", "RequestLimitExceeded":
		return ": the table's capacity is used up: let it be on demand, or scale it"
	case "ThrottlingException", "LimitExceededException":
		return ": DynamoDB has not scaled the table to this load yet"
	case "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "IncompleteSignatureException", "MissingAuthenticationTokenException":
		return ": see to the client's credentials, and to the clock of this machine"
	case "KMSAccessDeniedException", "InaccessibleEncryptionCredentialsException":
		return ": the role needs the table's key, which must be enabled"
	}
	return ""
}
