package onepiece

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

// net/http sends a request again on another connection only if it can have the body again.
func TestABodyCanBeSentAgain(t *testing.T) {
	t.Parallel()
	sent := 0
	c := Client(doer(func(r *http.Request) (*http.Response, error) {
		body := r.Body
		for range 2 {
			data, err := io.ReadAll(body)
			require.NoError(t, err)
			require.Equal(t, "a request", string(data))
			sent++
			require.NotNil(t, r.GetBody)
			body, err = r.GetBody()
			require.NoError(t, err)
		}
		return &http.Response{StatusCode: http.StatusOK}, nil
	}))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1", io.NopCloser(strings.NewReader("a request")))
	require.NoError(t, err)
	require.Nil(t, r.GetBody, "the SDK sets none")
	_, err = c.Do(r)
	require.NoError(t, err)
	require.Equal(t, 2, sent)
}
