package awstest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
)

// disturbed returns what the weather does to a call in the way of this name.
func disturbed(t *testing.T, way string, call func(*awstest.Weather) awstest.Fault) awstest.Fault {
	t.Helper()
	w := awstest.NewWeather(1, time.Second)
	w.Set(1)
	for range 1000 {
		before := w.Count(way)
		f := call(w)
		if w.Count(way) > before {
			return f
		}
	}
	t.Fatalf("nothing is %s", way)
	return awstest.Fault{}
}

func TestWeatherDisturbsAsTheServicesDo(t *testing.T) {
	t.Parallel()
	sqs := func(operation, body string) func(*awstest.Weather) awstest.Fault {
		return func(w *awstest.Weather) awstest.Fault {
			return w.SQS(awstest.Call{Operation: operation, Body: []byte(body)})
		}
	}
	const one = `{"QueueUrl":"q","Entries":[{"Id":"0","ReceiptHandle":"a"}]}`
	const two = `{"QueueUrl":"q","Entries":[{"Id":"0","ReceiptHandle":"a"},{"Id":"1","ReceiptHandle":"b"}]}`

	f := disturbed(t, "partly", sqs("DeleteMessageBatch", two))
	require.JSONEq(t, `{"QueueUrl":"q","Entries":[{"Id":"1","ReceiptHandle":"b"}]}`, string(f.Ask))
	require.JSONEq(t, `{"Successful":[{"Id":"1"}],"Failed":[{"Id":"0","Code":"InternalError","SenderFault":false}]}`, string(f.Tell([]byte(`{"Successful":[{"Id":"1"}]}`))))
	f = disturbed(t, "partly", sqs("SendMessageBatch", one))
	require.Equal(t, http.StatusOK, f.Status)
	require.JSONEq(t, `{"Failed":[{"Id":"0","Code":"InternalError","SenderFault":false}]}`, string(f.Answer))

	f = disturbed(t, "forgotten", sqs("DeleteMessageBatch", two))
	require.JSONEq(t, `{"Successful":[{"Id":"0"},{"Id":"1"}]}`, string(f.Answer))
	require.Equal(t, http.StatusOK, f.Status)

	f = disturbed(t, "stale", sqs("ChangeMessageVisibilityBatch", two))
	require.JSONEq(t, `{"QueueUrl":"q","Entries":[{"Id":"0","ReceiptHandle":"b"},{"Id":"1","ReceiptHandle":"b"}]}`, string(f.Ask))
	f = disturbed(t, "stale", sqs("DeleteMessageBatch", one))
	require.NotContains(t, string(f.Ask), `"a"`)

	f = disturbed(t, "hidden", sqs("ReceiveMessage", `{}`))
	require.Equal(t, "{}", string(f.Tell([]byte(`{"Messages":[{}]}`))))

	require.NotZero(t, disturbed(t, "throttled", sqs("ReceiveMessage", `{}`)).Status)
	require.NotZero(t, disturbed(t, "unavailable", sqs("ReceiveMessage", `{}`)).Status)
	require.True(t, disturbed(t, "lost", sqs("ReceiveMessage", `{}`)).Lost)
	require.True(t, disturbed(t, "twice", sqs("ReceiveMessage", `{}`)).Twice)
	require.LessOrEqual(t, disturbed(t, "late", sqs("ReceiveMessage", `{}`)).Late, time.Second)

	f = disturbed(t, "partly", func(w *awstest.Weather) awstest.Fault { return w.DynamoDB(awstest.Call{Operation: "BatchGetItem"}) })
	require.JSONEq(t, `{"Responses":{"t":[{"p":1,"s":2}]},"UnprocessedKeys":{"t":{"Keys":[{"p":3,"s":4}]}}}`,
		string(f.Tell([]byte(`{"Responses":{"t":[{"p":1,"s":2},{"p":3,"s":4,"x":5}]},"UnprocessedKeys":{}}`))))
}

func TestGoodWeatherDisturbsNothing(t *testing.T) {
	t.Parallel()
	w := awstest.NewWeather(1, time.Second)
	for range 100 {
		require.Equal(t, awstest.Fault{}, w.SQS(awstest.Call{Operation: "SendMessageBatch"}))
		require.Equal(t, awstest.Fault{}, w.DynamoDB(awstest.Call{Operation: "PutItem"}))
	}
	require.Zero(t, w.Count())
}
