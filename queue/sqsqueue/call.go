package sqsqueue

import (
	"bytes"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// once has a call made without retries: what a failed call means is known better by who made it.
func once(o *sqs.Options) {
	o.Retryer = aws.NopRetryer{}
	o.HTTPClient = whole{o.HTTPClient}
}

// whole sends requests in one piece. As the SDK makes them, net/http sends the headers, then
// the body, and then asks the body whether it has ended. If the answer is there by then, smithy
// has closed the body, fails with io.EOF, and net/http closes the connection under the answer.
type whole struct{ client sqs.HTTPClient }

// Do implements sqs.HTTPClient.
func (w whole) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return w.client.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	piece := r.WithContext(r.Context())
	piece.Body = io.NopCloser(bytes.NewReader(body))
	return w.client.Do(piece)
}
