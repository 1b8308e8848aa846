// Package onepiece has the requests of the AWS SDK sent in one piece. It knows nothing of the SDK.
package onepiece

import (
	"bytes"
	"io"
	"net/http"
)

// Doer is how the SDK's clients make their calls: HTTPClient in each of its packages.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// Client returns a client that sends requests in one piece. As the SDK makes them, net/http sends
// the headers, then the body, and then asks the body whether it has ended. If the answer is there
// by then, smithy has closed the body, fails with io.EOF, and net/http closes the connection under
// the answer. The SDK's retries hide that from those who have them, and so they do connections that
// the server has closed: with the whole body net/http takes another one, if nothing was sent yet.
func Client(c Doer) Doer { return whole{c} }

type whole struct{ client Doer }

func (w whole) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return w.client.Do(r)
	}
	var whole bytes.Buffer
	whole.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	if _, err := whole.ReadFrom(r.Body); err != nil {
		return nil, err
	}
	body := whole.Bytes()
	piece := r.WithContext(r.Context())
	piece.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	piece.Body, _ = piece.GetBody()
	return w.client.Do(piece)
}
