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
	opts []dynamolog.Option
}

// start returns an emulator, or DynamoDB itself where STREAMER_AWS_TEST says so: then region
// and credentials come from where the SDK looks for them. STREAMER_DYNAMODB_LOCAL is the
// endpoint of a DynamoDB Local that runs.
func start(tb testing.TB) service {
	tb.Helper()
	if os.Getenv("STREAMER_AWS_TEST") == "1" {
		c, err := config.LoadDefaultConfig(tb.Context(), config.WithHTTPClient(&http.Client{Transport: transport(tb)}))
		require.NoError(tb, err)
		return service{Client: dynamodb.NewFromConfig(c)}
	}
	if endpoint := os.Getenv("STREAMER_DYNAMODB_LOCAL"); endpoint != "" {
		return service{Client: at(tb, endpoint, transport(tb))}
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
	s := start(t)
	fast := dynamolog.WithPoll(10*time.Millisecond, 100*time.Millisecond)
	var tables sync.Map // of logs
	another := func(t testing.TB, table string) progress.Log {
		l := s.open(t, s, table, fast)
		tables.Store(progress.Log(l), table)
		return l
	}
	again := func(t testing.TB, l progress.Log) progress.Log {
		table, _ := tables.Load(l)
		return another(t, table.(string))
	}
	logtest.Run(t, logtest.Harness{
		New:    func(t testing.TB) progress.Log { return another(t, s.create(t)) },
		Peer:   again,
		Reopen: again,
		Wait:   30 * time.Second,
		Count:  100,
	})
}
