package sqsqueue_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// hoarder answers each request with a refusal, and keeps its body as it is sent.
type hoarder struct{ body io.Reader }

func (h *hoarder) Do(r *http.Request) (*http.Response, error) {
	h.body = r.Body
	return &http.Response{StatusCode: http.StatusBadRequest, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
}

// net/http reads a body to its end though the answer is there, and takes a failure of that for
// one of the connection.
func TestARequestsBodyStaysReadableAfterTheAnswer(t *testing.T) {
	t.Parallel()
	h := &hoarder{}
	client := sqs.New(sqs.Options{
		Region: "us-east-1", HTTPClient: h,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
		}),
	})
	_, err := sqsqueue.New(t.Context(), client, "http://127.0.0.1/queue")
	require.Error(t, err)
	_, err = io.Copy(io.Discard, h.body)
	require.NoError(t, err)
}
