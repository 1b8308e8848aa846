package dynamolog_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a DynamoDB to make tables on, with what its logs need.
type service struct {
	*dynamodb.Client
	streams dynamolog.StreamsClient // nil where it has none
	opts    []dynamolog.Option
}

// start returns an emulator, or DynamoDB itself where STREAMER_AWS_TEST says so: then region
// and credentials come from where the SDK looks for them. STREAMER_DYNAMODB_LOCAL is the
// endpoint of a DynamoDB Local that runs.
func start(tb testing.TB) service {
	tb.Helper()
	if os.Getenv("STREAMER_AWS_TEST") == "1" {
		c, err := config.LoadDefaultConfig(tb.Context(), config.WithHTTPClient(&http.Client{Transport: transport(tb)}))
		require.NoError(tb, err)
		return service{Client: dynamodb.NewFromConfig(c), streams: dynamodbstreams.NewFromConfig(c)}
	}
	if endpoint := os.Getenv("STREAMER_DYNAMODB_LOCAL"); endpoint != "" {
		c := at(tb, endpoint, transport(tb))
		o := c.Options()
		return service{Client: c, streams: dynamodbstreams.New(dynamodbstreams.Options{
			Region: o.Region, BaseEndpoint: o.BaseEndpoint, HTTPClient: o.HTTPClient, Credentials: o.Credentials,
		})}
	}
	return service{Client: at(tb, awstest.DynamoDB(tb).Endpoint(), transport(tb)), opts: []dynamolog.Option{dynamolog.WithoutTTL()}}
}

// at returns a client for the emulator at an endpoint.
func at(tb testing.TB, endpoint string, way http.RoundTripper) *dynamodb.Client {
	tb.Helper()
	return dynamodb.New(dynamodb.Options{
		Region: awstest.Region, BaseEndpoint: &endpoint, HTTPClient: &http.Client{Transport: way},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
		}),
	})
}

func transport(tb testing.TB) *http.Transport {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	tb.Cleanup(transport.CloseIdleConnections)
	return transport
}

// create makes a table that nobody else uses, which is deleted when the test ends.
func (s service) create(tb testing.TB) (table string) {
	tb.Helper()
	table = "streamer-test-" + rand.Text()
	require.NoError(tb, dynamolog.CreateTable(tb.Context(), s.Client, table))
	tb.Cleanup(func() {
		_, err := s.DeleteTable(context.WithoutCancel(tb.Context()), &dynamodb.DeleteTableInput{TableName: &table})
		require.NoError(tb, err)
	})
	return table
}

// open returns a log that is closed when the test ends.
func (s service) open(tb testing.TB, client dynamolog.Client, table string, opts ...dynamolog.Option) *dynamolog.Log {
	tb.Helper()
	l, err := dynamolog.New(tb.Context(), client, table, append(append([]dynamolog.Option(nil), s.opts...), opts...)...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, l.Close()) })
	return l
}

// patience bounds what must happen but not at once.
const patience = 10 * time.Second

func TestLogKeepsTheContract(t *testing.T) {
	s, fast := start(t), dynamolog.WithPoll(10*time.Millisecond, 100*time.Millisecond)
	keepsTheContract(t, func(t testing.TB) func(testing.TB) *dynamolog.Log {
		table := s.create(t)
		return func(t testing.TB) *dynamolog.Log { return s.open(t, s, table, fast) }
	})
}

// What other processes change is told by the stream alone: it is polled once a minute.
func TestLogKeepsTheContractWithStreams(t *testing.T) {
	t.Parallel()
	s := start(t)
	keepsTheContract(t, func(t testing.TB) func(testing.TB) *dynamolog.Log {
		table := s.create(t)
		client, streams := s.streamed(t, table)
		return func(t testing.TB) *dynamolog.Log {
			return s.open(t, client, table, dynamolog.WithStreams(streams), dynamolog.WithPoll(10*time.Millisecond, time.Minute))
		}
	})
}

// keepsTheContract runs the suite on tables that create makes, and on logs on these.
func keepsTheContract(t *testing.T, create func(testing.TB) func(testing.TB) *dynamolog.Log) {
	var tables sync.Map // of logs
	another := func(t testing.TB, open func(testing.TB) *dynamolog.Log) progress.Log {
		l := open(t)
		tables.Store(progress.Log(l), open)
		return l
	}
	again := func(t testing.TB, l progress.Log) progress.Log {
		open, _ := tables.Load(l)
		return another(t, open.(func(testing.TB) *dynamolog.Log))
	}
	logtest.Run(t, logtest.Harness{
		New:    func(t testing.TB) progress.Log { return another(t, create(t)) },
		Peer:   again,
		Reopen: again,
		Wait:   30 * time.Second,
		Count:  100,
	})
}
