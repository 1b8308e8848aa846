package main

import (
	"context"
	"io"
	"net/url"
	"testing"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// emulators starts what stands in for AWS, and returns the flags of a lab that uses it. It sets the
// environment, in which the SDK looks for the rest.
func emulators(t *testing.T) []string {
	t.Helper()
	t.Setenv("AWS_REGION", awstest.Region)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	queues, tables := awstest.SQS(t).Endpoint(), awstest.DynamoDB(t).Endpoint()
	c, err := awsconfig.LoadDefaultConfig(t.Context())
	require.NoError(t, err)
	made, err := sqs.NewFromConfig(c, func(o *sqs.Options) { o.BaseEndpoint = &queues }).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: new("tickets")})
	require.NoError(t, err)
	at, err := url.Parse(*made.QueueUrl)
	require.NoError(t, err)
	require.NoError(t, dynamolog.CreateTable(t.Context(), dynamodb.NewFromConfig(c, func(o *dynamodb.Options) { o.BaseEndpoint = &tables }), "requests"))
	return []string{"-sqs", queues + at.Path, "-dynamo", tables, "-table", "requests", "-lease", "3s"}
}

func TestOnSQSAndDynamoDB(t *testing.T) {
	flags := emulators(t)
	t.Run("a gateway shows what a worker does", func(t *testing.T) { aGatewayShowsWhatAWorkerDoes(t, flags) })
	t.Run("what does not fit ends the lab", func(t *testing.T) { whatDoesNotFitEndsTheLab(t, flags) })
}

func aGatewayShowsWhatAWorkerDoes(t *testing.T, flags []string) {
	gateway := start(t, append(flags, "-role", "gateway")...)
	start(t, append(flags, "-role", "worker")...)
	c := gateway.client()
	for _, row := range []struct{ action, payload, want string }{
		{"echo", `"short work runs in the gateway"`, `"short work runs in the gateway"`},
		{"count", `{"n":2,"checkpoint":true}`, `{"n":2}`},
		{"fail", `{"code":"X","retry_ms":1,"times":1}`, `{"attempt":2}`},
		{"big", `{"bytes":5}`, `{"data":"xxxxx"}`},
	} {
		got, err := gateway.ask(c, row.action, row.payload)
		require.NoError(t, err, row.action)
		require.Equal(t, row.want, got, row.action)
	}
	_, err := gateway.ask(c, "panic", ``)
	require.Equal(t, streamer.ErrCodeInternalError, code(t, err))

	r, err := c.Submit(within(t, 10*time.Second), "sleep", msIn{MS: 60_000})
	require.NoError(t, err)
	var end error
	for e, err := range r.Events(within(t, 10*time.Second)) {
		if end = err; err == nil && e.Kind == progress.Started {
			require.NoError(t, r.Cancel(within(t, 10*time.Second), "enough"))
		}
	}
	require.Equal(t, streamer.ErrCodeCanceled, code(t, end))
}

func whatDoesNotFitEndsTheLab(t *testing.T, flags []string) {
	for _, row := range []struct {
		why  string
		args []string
	}{
		{"queue does not exist", []string{"-sqs", flags[1] + "-of-others"}},
		{"of-others not found", []string{"-table", "of-others"}},
		{"WithLease(1.5s)", []string{"-lease", "1500ms"}},
		{"no URL of a queue", []string{"-sqs", "tickets"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0"}, append(flags, row.args...)...), io.Discard, io.Discard)
		cancel()
		require.ErrorContains(t, err, row.why)
	}
}

func TestEndpointsOfAWSAreLeftToTheSDK(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		"https://sqs.us-east-1.amazonaws.com/123456789012/tickets":     "",
		"https://sqs.cn-north-1.amazonaws.com.cn/123456789012/tickets": "",
		"https://sqs.us-east-1.api.aws/123456789012/tickets":           "",
		"http://127.0.0.1:4566/000000000000/tickets":                   "http://127.0.0.1:4566",
		"http://amazonaws.com.example.org/queue":                       "http://amazonaws.com.example.org",
		"tickets":                                                      "",
	} {
		got := endpoint(at)
		if want == "" {
			require.Nil(t, got, at)
		} else {
			require.NotNil(t, got, at)
			require.Equal(t, want, *got)
		}
	}
}

func TestNoPollIsLongerThanALease(t *testing.T) {
	t.Parallel()
	for lease, want := range map[time.Duration]time.Duration{
		time.Second: time.Second, 3 * time.Second: 3 * time.Second, 30 * time.Second: 5 * time.Second, 1500 * time.Millisecond: time.Second,
	} {
		require.Equal(t, want, poll(lease))
	}
}
