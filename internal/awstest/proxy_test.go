package awstest_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
)

func TestAProxyPassesCallsOnAndCountsThem(t *testing.T) {
	t.Parallel()
	e := awstest.SQS(t)
	p := awstest.NewProxy(t, e.Endpoint(), func(awstest.Call) awstest.Fault { return awstest.Fault{} })
	status, answer := post(t, p.Endpoint(), "AmazonSQS.CreateQueue", "application/x-amz-json-1.0", `{"QueueName":"q"}`)
	require.Equal(t, http.StatusOK, status, answer)
	_, answer = listQueues(t, e.Endpoint())
	require.Contains(t, answer, "/q")
	require.Equal(t, map[string]int{"CreateQueue": 1}, p.Calls())
}

func TestAProxyDisturbs(t *testing.T) {
	t.Parallel()
	e := awstest.SQS(t)
	var next atomic.Pointer[awstest.Fault]
	p := awstest.NewProxy(t, e.Endpoint(), func(c awstest.Call) awstest.Fault {
		require.Equal(t, "ListQueues", c.Operation)
		require.Equal(t, "{}", string(c.Body))
		return *next.Load()
	})
	try := func(f awstest.Fault) (int, string) {
		next.Store(&f)
		return listQueues(t, p.Endpoint())
	}
	status, answer := try(awstest.Fault{Status: http.StatusBadRequest, Code: "ThrottlingException"})
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, answer, "ThrottlingException")

	status, answer = try(awstest.Fault{Status: http.StatusOK, Answer: []byte(`{"its":"own"}`)})
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, `{"its":"own"}`, answer)

	status, answer = try(awstest.Fault{Lost: true})
	require.Zero(t, status)
	require.Contains(t, answer, "EOF")

	begin := time.Now()
	status, _ = try(awstest.Fault{Late: 50 * time.Millisecond, Twice: true})
	require.Equal(t, http.StatusOK, status)
	require.GreaterOrEqual(t, time.Since(begin), 50*time.Millisecond)

	_, answer = try(awstest.Fault{Tell: func([]byte) []byte { return []byte("told") }})
	require.Equal(t, "told", answer)

	status, _ = try(awstest.Fault{Ask: []byte("not json")})
	require.Equal(t, http.StatusInternalServerError, status)
	require.Equal(t, map[string]int{"ListQueues": 6}, p.Calls())
}
