package awstest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/internal/awstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// post makes a call as an AWS client does.
func post(t *testing.T, endpoint, target, contentType, body string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("X-Amz-Target", target)
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("X-Amz-Date", "20260101T000000Z")
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/service/aws4_request, SignedHeaders=host, Signature=0")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(data)
}

func listQueues(t *testing.T, endpoint string) (status int, answer string) {
	t.Helper()
	return post(t, endpoint, "AmazonSQS.ListQueues", "application/x-amz-json-1.0", "{}")
}

func TestEmulatorsAnswerOnLoopback(t *testing.T) {
	t.Run("sqs", func(t *testing.T) {
		t.Parallel()
		e := awstest.SQS(t)
		status, answer := listQueues(t, e.Endpoint())
		require.Equal(t, http.StatusOK, status, answer)
		require.Contains(t, e.Endpoint(), "http://127.0.0.1:")
	})
	t.Run("dynamodb", func(t *testing.T) {
		t.Parallel()
		e := awstest.DynamoDB(t)
		status, answer := post(t, e.Endpoint(), "DynamoDB_20120810.ListTables", "application/x-amz-json-1.0", "{}")
		require.Equal(t, http.StatusOK, status, answer)
	})
}

func TestEachEmulatorIsItsTestsOwn(t *testing.T) {
	t.Parallel()
	a, b := awstest.SQS(t), awstest.SQS(t)
	status, answer := post(t, a.Endpoint(), "AmazonSQS.CreateQueue", "application/x-amz-json-1.0", `{"QueueName":"q"}`)
	require.Equal(t, http.StatusOK, status, answer)
	_, answer = listQueues(t, b.Endpoint())
	require.NotContains(t, answer, "/q")
}

func TestCloseEndsTheProcess(t *testing.T) {
	t.Parallel()
	e, err := awstest.StartSQS(t.Context())
	require.NoError(t, err)
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
	at, err := url.Parse(e.Endpoint())
	require.NoError(t, err)
	_, err = net.Dial("tcp", at.Host)
	require.ErrorContains(t, err, "refused")
}

func TestAStartThatIsCutShortLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := awstest.StartSQS(ended)
	require.ErrorIs(t, err, context.Canceled)
}

func TestWhatIsNotInstalledIsSaid(t *testing.T) {
	top := t.TempDir()
	t.Chdir(top)
	_, err := awstest.StartSQS(t.Context())
	require.ErrorContains(t, err, "within the repository")
	require.NoError(t, os.MkdirAll("internal/awstest/emulators", 0o755))
	require.NoError(t, os.Mkdir("below", 0o755))
	t.Chdir("below")
	_, err = awstest.StartSQS(t.Context())
	require.ErrorContains(t, err, "run `make emulators` in "+top)
}

func TestAnEmulatorOutlivesClientsThatGoAwayWithinARequest(t *testing.T) {
	t.Parallel()
	for _, e := range []*awstest.Emulator{awstest.SQS(t), awstest.DynamoDB(t)} {
		at, err := url.Parse(e.Endpoint())
		require.NoError(t, err)
		gone, err := net.Dial("tcp", at.Host)
		require.NoError(t, err)
		_, err = io.WriteString(gone, "POST / HTTP/1.1\r\nHost: emulator\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n{")
		require.NoError(t, err)
		_, err = io.ReadFull(gone, make([]byte, 1)) // its answer: it has begun with the request
		require.NoError(t, err)
		require.NoError(t, gone.Close())
		status, answer := listQueues(t, e.Endpoint())
		require.NotZero(t, status, answer)
	}
}
