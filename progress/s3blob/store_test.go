package s3blob_test

import (
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/progress/s3blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bucket is as much of S3 as a Store needs, with one bucket.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key, there := strings.CutPrefix(r.URL.Path, "/bucket/")
	data, found := b.objects[key]
	switch {
	case !there:
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			refuse(w, http.StatusBadRequest, "IncompleteBody")
			return
		}
		b.objects[key] = body
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case !found:
		refuse(w, http.StatusNotFound, "NoSuchKey")
	default:
		_, _ = w.Write(data) // a client that has gone needs none
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
	}{Code: code})
}

// serve returns a client of a bucket, and what is in it.
func serve(t *testing.T) (*s3.Client, *bucket) {
	t.Helper()
	b := &bucket{objects: make(map[string][]byte)}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &server.URL, UsePathStyle: true, HTTPClient: server.Client(), RetryMaxAttempts: 1,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
		}),
	}), b
}

func TestBlobsComeBackAndGo(t *testing.T) {
	t.Parallel()
	client, b := serve(t)
	s := s3blob.New(client, "bucket", "streamer/")
	data := []byte(strings.Repeat("\x00data\xff", 50_000))
	require.NoError(t, s.Put(t.Context(), "name", data))
	require.NoError(t, s.Put(t.Context(), "name", data))
	require.Contains(t, b.objects, "streamer/name")
	got, err := s.Get(t.Context(), "name")
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.NoError(t, s.Delete(t.Context(), "name"))
	require.NoError(t, s.Delete(t.Context(), "name"))
	require.Empty(t, b.objects)
}

func TestErrorsNameTheObject(t *testing.T) {
	t.Parallel()
	client, _ := serve(t)
	_, err := s3blob.New(client, "bucket", "streamer/").Get(t.Context(), "name")
	var missing *types.NoSuchKey
	require.ErrorAs(t, err, &missing)
	require.ErrorContains(t, err, "s3blob: get streamer/name in bucket bucket: ")
	require.ErrorContains(t, s3blob.New(client, "another", "").Put(t.Context(), "name", nil), "make the bucket")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s3blob.New(client, "bucket", "").Put(ended, "name", nil), context.Canceled)
}
